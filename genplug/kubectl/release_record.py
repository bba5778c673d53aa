"""Builds the record of a release from the objects of the API server and the records of its nodes. Pure.

The objects and records are input: a key that is missing or has another type counts as empty.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from attrs import frozen

from genplug.config.diagnostics import ConfigInvalidError
from genplug.config.files import ConfigFile, is_config_file, node_of
from genplug.config.load import load_texts
from genplug.kubectl.json_values import JSON, read_map, read_maps, read_number, read_text, read_texts
from genplug.kubectl.objects import POOL_LABEL
from genplug.kubectl.release_access import (
    Objects,
    RoleObjects,
    describe_admission_policies,
    describe_editors,
    describe_roles,
)
from genplug.record.behavior import AGENT_RESTART, KUBELET_RESTART, SKEW
from genplug.record.facts import Fact, Known, Unknown, build_document
from genplug.record.node import API_VERSION, Access, Generation

RELEASE_KIND = "ReleaseRecord"
INSTANCE_LABEL = "app.kubernetes.io/instance"
_NAME_LABEL, _MANAGED_BY_LABEL, _CHART_LABEL = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
)
_HELM_RELEASE, _HELM_NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
_TOOLS = (
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "kustomization of Flux"),
    ("kubectl.kubernetes.io/last-applied-configuration", "kubectl apply"),
)
"""Annotations and labels that identify the tool that applied an object."""
_PURPOSES = {
    "dev": "device nodes: the agent finds them and reads their numbers",
    "sys": "attributes and health of devices",
    "proc-driver": "devices of drivers outside of the kernel tree",
    "proc-devices": "the drivers of device numbers, by which the policy recognizes device nodes",
    "udev-data": "properties of devices, such as the capabilities of cameras",
    "device-plugins": "the sockets of the agent and the registration socket of the kubelet",
    "pod-resources": "the devices that pods use",
    "cdi": "the CDI files that the agent writes",
}
"""The purpose of the volumes of the chart, by name; deploy/helm/genplug/templates/daemonset.yaml."""
_NO_RECORD = "no agent returned a record"
_NODE_RECORDS = "'genplug record' in the containers of the agents"


@frozen
class NodeAnswer:
    """The pod of an agent, and the record that it returned, or why it returned none."""

    pod: JSON
    record: JSON | Unknown

    @property
    def node(self) -> str:
        """The name of the node."""
        return read_text(read_map(self.pod, "spec"), "nodeName")

    @property
    def pool(self) -> str:
        """The name of the pool."""
        return _labels(self.pod).get(POOL_LABEL, "")


@frozen
class ReleaseObjects:
    """The objects of a release, as the API server returned them.

    ``daemon_sets`` and ``answers`` are sorted. ``config_maps`` are by name. ``accounts`` are the service accounts by
    name.
    """

    namespace: str
    daemon_sets: Sequence[JSON]
    answers: Sequence[NodeAnswer]
    nodes: Objects
    config_maps: Mapping[str, JSON | Unknown]
    accounts: Mapping[str, JSON | Unknown]
    roles: RoleObjects
    admission_policies: Objects
    admission_bindings: Objects
    network_policies: Objects
    quotas: Objects


@frozen
class ReleasePlugin:
    """The plugin of a release."""

    name: Fact
    versions: Fact
    image: Fact
    image_digests: Fact
    same_image: Fact


@frozen
class ReleaseDeployment:
    """How a release is deployed."""

    release: Fact
    namespace: Fact
    method: Fact
    tool: Fact
    chart: Fact
    field_managers: Fact


@frozen
class ReleaseDrivers:
    """The versions of kernels, drivers and firmware, with the numbers of nodes."""

    kernels: Fact
    drivers: Fact
    devices: Fact


@frozen
class OtherObjects:
    """Other objects that affect a release."""

    network_policies: Fact
    priority_class: Fact
    resource_quotas: Fact


@frozen
class ReleaseUpgrade:
    """The upgrade plan, and what happens at restarts."""

    strategy: Fact
    supported_skew: Fact
    on_kubelet_restart: Fact
    on_agent_restart: Fact


@frozen
class ReleaseStatus:
    """The status of the agents when the record was made."""

    ready: Fact
    devices: Fact


@frozen
class ReleaseRecord:
    """The governance record of a release."""

    generated: Generation
    plugin: ReleasePlugin
    deployment: ReleaseDeployment
    resources: Fact
    pools: Fact
    drivers: ReleaseDrivers
    host_mounts: Fact
    security: Fact
    environment: Fact
    access: Access
    objects: OtherObjects
    health: Fact
    upgrade: ReleaseUpgrade
    configuration: Fact
    status: ReleaseStatus
    nodes: Fact

    def as_json(self) -> dict[str, Any]:
        """Return the document that ``schemas/record.schema.json`` describes."""
        return {"apiVersion": API_VERSION, "kind": RELEASE_KIND, **build_document(self)}


def build_release_record(generation: Generation, objects: ReleaseObjects) -> ReleaseRecord:
    """Return the record of a release; it has at least one DaemonSet."""
    accounts = {_account_of(daemon_set) for daemon_set in objects.daemon_sets}
    return ReleaseRecord(
        generated=generation,
        plugin=_describe_plugin(objects),
        deployment=_describe_deployment(objects),
        resources=_describe_resources(objects),
        pools=Known(tuple(_describe_pool(daemon_set, objects) for daemon_set in objects.daemon_sets), "DaemonSets"),
        drivers=_describe_drivers(objects),
        host_mounts=Known(_list_for_pools(objects, _list_host_mounts), "pod templates of the DaemonSets"),
        security=Known(
            _list_for_pools(objects, partial(_list_security, objects.answers)), "pod templates of the DaemonSets"
        ),
        environment=Known(_list_for_pools(objects, _list_variables), "pod templates of the DaemonSets"),
        access=Access(
            _describe_accounts(objects),
            describe_roles(objects.roles, objects.namespace, accounts),
            describe_editors(objects.roles, objects.namespace),
            describe_admission_policies(objects.admission_policies, objects.admission_bindings),
        ),
        objects=_describe_other_objects(objects),
        health=_describe_health(objects),
        upgrade=ReleaseUpgrade(
            Known(tuple(map(_describe_strategy, objects.daemon_sets)), "DaemonSets"),
            SKEW,
            KUBELET_RESTART,
            AGENT_RESTART,
        ),
        configuration=Known(
            _list_for_pools(objects, partial(_list_configurations, objects)), "ConfigMaps that the pods mount"
        ),
        status=_describe_status(objects),
        nodes=Known(tuple(map(_describe_node, objects.answers)), "pods of the DaemonSets"),
    )


def list_config_maps(daemon_set: JSON) -> Iterator[tuple[str, str]]:
    """Yield the use and the name of each ConfigMap that the agents of a DaemonSet read.

    The options of the agent name the directories, and the container mounts the volumes there.
    """
    spec = _pod_spec(daemon_set)
    container = _agent_container(spec)
    arguments = [word for word in container.get("args") or () if isinstance(word, str)]
    uses = {"--config": "configuration", "--policy": "policy"}
    paths = {value: uses[option] for option, value in pairwise(arguments) if option in uses}
    mounts = {read_text(mount, "name"): read_text(mount, "mountPath") for mount in read_maps(container, "volumeMounts")}
    for volume in read_maps(spec, "volumes"):
        name, directory = read_text(read_map(volume, "configMap"), "name"), mounts.get(read_text(volume, "name"))
        use = next((use for path, use in paths.items() if f"{path}/".startswith(f"{directory}/")), None)
        if name and directory and use:
            yield use, name


def _labels(item: JSON) -> dict[str, str]:
    return read_texts(read_map(item, "metadata"), "labels")


def _annotations(item: JSON) -> dict[str, str]:
    return read_texts(read_map(item, "metadata"), "annotations")


def _name(item: JSON) -> str:
    return read_text(read_map(item, "metadata"), "name")


def _pool(item: JSON) -> str:
    return _labels(item).get(POOL_LABEL, "")


def _pod_spec(daemon_set: JSON) -> JSON:
    return read_map(read_map(read_map(daemon_set, "spec"), "template"), "spec")


def _agent_container(spec: JSON) -> JSON:
    containers = list(read_maps(spec, "containers"))
    return next((container for container in containers if read_text(container, "name") == "genplug"), {}) or (
        containers[0] if containers else {}
    )


def _account_of(daemon_set: JSON) -> str:
    return read_text(_pod_spec(daemon_set), "serviceAccountName") or "default"


def _field_managers(item: JSON) -> tuple[str, ...]:
    entries = read_maps(read_map(item, "metadata"), "managedFields")
    return tuple(sorted({read_text(entry, "manager") for entry in entries if read_text(entry, "manager")}))


def _list_for_pools(objects: ReleaseObjects, describe: Callable[[JSON], Iterable[Any]]) -> tuple[Any, ...]:
    """Return the results of a function for each DaemonSet."""
    return tuple(entry for daemon_set in objects.daemon_sets for entry in describe(daemon_set))


def _records(objects: ReleaseObjects) -> list[tuple[NodeAnswer, JSON]]:
    """Return the nodes that returned a record."""
    return [(answer, answer.record) for answer in objects.answers if not isinstance(answer.record, Unknown)]


def _read_fact(document: JSON, *path: str) -> Any:  # noqa: ANN401 - a value of a document
    """Return the value of a known fact in the record of a node, or None."""
    for key in path:
        document = read_map(document, key)
    return document.get("value") if document.get("known") is True else None


def _read_list(document: JSON, *path: str) -> list[JSON]:
    """Return the objects in the list of a known fact in the record of a node."""
    value = _read_fact(document, *path)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _copy_fact(document: JSON, *path: str) -> Fact:
    """Return a fact of the record of a node."""
    for key in path:
        document = read_map(document, key)
    if document.get("known") is True:
        return Known(document.get("value"), read_text(document, "source"))
    return Unknown(read_text(document, "reason") or f"the record of the node has no field '{'.'.join(path)}'")


def _without_records(objects: ReleaseObjects) -> Unknown | None:
    """Return why no node returned a record, or None if a node did."""
    if _records(objects):
        return None
    reasons = sorted({answer.record.reason for answer in objects.answers if isinstance(answer.record, Unknown)})
    return Unknown(f"{_NO_RECORD}: {reasons[0]}" if reasons else f"{_NO_RECORD}: the release has no pods")


def _source_of_records(objects: ReleaseObjects) -> str:
    count, total = len(_records(objects)), len(objects.answers)
    return f"{_NODE_RECORDS}, {count} of {total} nodes"


def _describe_plugin(objects: ReleaseObjects) -> ReleasePlugin:
    missing = _without_records(objects)
    versions: dict[str, list[str]] = {}
    for answer, record in _records(objects):
        version = _read_fact(record, "plugin", "version")
        if isinstance(version, str):
            versions.setdefault(version, []).append(answer.node)
    digests: dict[str, list[str]] = {}
    for answer in objects.answers:
        statuses = read_maps(read_map(answer.pod, "status"), "containerStatuses")
        name = read_text(_agent_container(read_map(answer.pod, "spec")), "name")
        digest = next((read_text(status, "imageID") for status in statuses if read_text(status, "name") == name), "")
        digests.setdefault(digest, []).append(answer.node)
    not_running = digests.pop("", [])
    images = tuple(
        {
            "pool": _pool(daemon_set),
            "image": read_text(container, "image"),
            "pullPolicy": read_text(container, "imagePullPolicy"),
        }
        for daemon_set in objects.daemon_sets
        for container in [_agent_container(_pod_spec(daemon_set))]
    )
    source = "'containerStatuses[].imageID' of the pods, which the container runtime reports"
    found: Fact = Known(
        tuple({"digest": digest, "nodes": sorted(nodes)} for digest, nodes in sorted(digests.items())), source
    )
    same: Fact = Known(len(digests) == 1, source)
    if not digests:
        found = same = Unknown("no container of an agent has started")
    elif not_running:
        same = Unknown(f"no container of an agent has started on {', '.join(sorted(not_running))}")
    return ReleasePlugin(
        name=_label_fact(objects.daemon_sets[0], _NAME_LABEL),
        versions=missing
        or Known(
            tuple({"version": version, "nodes": sorted(nodes)} for version, nodes in sorted(versions.items())),
            _source_of_records(objects),
        ),
        image=Known(images, "pod templates of the DaemonSets"),
        image_digests=found,
        same_image=same,
    )


def _label_fact(item: JSON, label: str) -> Fact:
    value = _labels(item).get(label)
    return Known(value, f"label '{label}'") if value else Unknown(f"the object {_name(item)} has no label '{label}'")


def _describe_deployment(objects: ReleaseObjects) -> ReleaseDeployment:
    first = objects.daemon_sets[0]
    managers = sorted({manager for daemon_set in objects.daemon_sets for manager in _field_managers(daemon_set)})
    return ReleaseDeployment(
        release=_label_fact(first, INSTANCE_LABEL),
        namespace=Known(objects.namespace, "DaemonSets"),
        method=Known("pods of a DaemonSet for each pool", "DaemonSets"),
        tool=_describe_tool(first, managers),
        chart=_label_fact(first, _CHART_LABEL),
        field_managers=Known(tuple(managers), "'managedFields' of the DaemonSets")
        if managers
        else Unknown("the DaemonSets have no 'managedFields'"),
    )


def _describe_tool(daemon_set: JSON, managers: Sequence[str]) -> Fact:
    """Return the tool that applied a DaemonSet. The label ``managed-by`` alone is that of a rendered manifest too."""
    marks = {**_labels(daemon_set), **_annotations(daemon_set)}
    if release := marks.get(_HELM_RELEASE):
        chart = marks.get(_CHART_LABEL, "unknown")
        namespace = marks.get(_HELM_NAMESPACE, "")
        return Known(f"Helm release {release} in namespace {namespace}, chart {chart}", f"annotation '{_HELM_RELEASE}'")
    for mark, tool in _TOOLS:
        if mark in marks:
            return Known(tool, f"annotation or label '{mark}'")
    if marks.get(_MANAGED_BY_LABEL, "").startswith("kustomize"):
        return Known(marks[_MANAGED_BY_LABEL], f"label '{_MANAGED_BY_LABEL}'")
    if any(manager.startswith("kubectl") for manager in managers):
        return Known("kubectl", "'managedFields' of the DaemonSets")
    return Unknown("the DaemonSets have no annotation, label or field manager of a known tool")


def _describe_resources(objects: ReleaseObjects) -> Fact:
    if (missing := _without_records(objects)) is not None:
        return missing
    found: dict[str, dict[str, Any]] = {}
    for answer, record in _records(objects):
        for resource in _read_list(record, "resources"):
            name = read_text(resource, "name")
            entry = found.setdefault(name, {"name": name, "pools": set(), "nodes": 0, "devices": 0})
            entry["pools"].add(answer.pool)
            entry["nodes"] += 1
            entry["devices"] += _read_fact(resource, "devices") or 0
    records = tuple({**entry, "pools": sorted(entry["pools"])} for _, entry in sorted(found.items()))
    return Known(records, _source_of_records(objects))


def _describe_pool(daemon_set: JSON, objects: ReleaseObjects) -> dict[str, Any]:
    spec, status = _pod_spec(daemon_set), read_map(daemon_set, "status")
    pool = _pool(daemon_set)
    return {
        "name": pool,
        "daemonSet": _name(daemon_set),
        "nodeSelector": read_texts(spec, "nodeSelector"),
        "affinity": [_describe_term(term) for term in _affinity_terms(spec)],
        "tolerations": [_describe_toleration(toleration) for toleration in read_maps(spec, "tolerations")],
        "desired": read_number(status, "desiredNumberScheduled"),
        "ready": read_number(status, "numberReady"),
        "updated": read_number(status, "updatedNumberScheduled"),
        "nodes": sorted(answer.node for answer in objects.answers if answer.pool == pool),
    }


def _affinity_terms(spec: JSON) -> Iterator[JSON]:
    affinity = read_map(read_map(spec, "affinity"), "nodeAffinity")
    yield from read_maps(read_map(affinity, "requiredDuringSchedulingIgnoredDuringExecution"), "nodeSelectorTerms")


def _describe_term(term: JSON) -> str:
    conditions = [*read_maps(term, "matchExpressions"), *read_maps(term, "matchFields")]
    return " and ".join(map(_describe_condition, conditions))


def _describe_condition(condition: JSON) -> str:
    values = [str(value) for value in condition.get("values") or ()]
    text = f"{read_text(condition, 'key')} {read_text(condition, 'operator')}"
    return f"{text} ({', '.join(values)})" if values else text


def _describe_toleration(toleration: JSON) -> str:
    key, operator, value, effect = (read_text(toleration, name) for name in ("key", "operator", "value", "effect"))
    taint = (key or "every taint") + (f"={value}" if value and operator != "Exists" else "")
    return f"{taint}:{effect}" if effect else taint


def _describe_drivers(objects: ReleaseObjects) -> ReleaseDrivers:
    missing = _without_records(objects)
    source = _source_of_records(objects)
    drivers: list[tuple[str, dict[str, Any]]] = []
    devices: list[tuple[str, dict[str, Any]]] = []
    for answer, record in _records(objects):
        for driver in _read_list(record, "drivers", "drivers"):
            kept = {key: driver.get(key) for key in ("module", "version", "taints")}
            drivers.append((answer.node, {"pool": answer.pool, "driver": read_text(driver, "driver"), **kept}))
        for device in _read_list(record, "drivers", "devices"):
            firmware = _copy_fact(device, "firmware")
            texts: Fact = firmware
            if isinstance(firmware, Known):
                versions = {f"{entry.get('name')} {entry.get('version')}" for entry in _read_list(device, "firmware")}
                texts = Known(tuple(sorted(versions)), "files of the driver in /sys and /proc/driver")
            devices.append(
                (
                    answer.node,
                    {
                        "pool": answer.pool,
                        "resource": read_text(device, "resource"),
                        "drivers": build_document(_copy_fact(device, "drivers")),
                        "firmware": build_document(texts),
                    },
                )
            )
    return ReleaseDrivers(
        _describe_kernels(objects),
        missing or Known(tuple(_count(drivers, items="")), source),
        missing or Known(tuple(_count(devices, items="devices")), source),
    )


def _count(found: Iterable[tuple[str, dict[str, Any]]], items: str) -> Iterator[dict[str, Any]]:
    """Yield each distinct entry once, with the number of its nodes, and with its number if ``items`` is a key."""
    groups: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for node, entry in found:
        groups.setdefault(json.dumps(entry, sort_keys=True), (entry, []))[1].append(node)
    for _, (entry, nodes) in sorted(groups.items(), key=lambda group: _sort_key(group[1][0])):
        yield {**entry, **({items: len(nodes)} if items else {}), "nodes": len(set(nodes))}


def _sort_key(entry: JSON) -> list[str]:
    return [json.dumps(value, sort_keys=True) for value in entry.values()]


def _describe_kernels(objects: ReleaseObjects) -> Fact:
    if isinstance(objects.nodes, Unknown):
        return objects.nodes
    infos = {_name(node): read_map(read_map(node, "status"), "nodeInfo") for node in objects.nodes}
    keys = {
        "kernel": "kernelVersion",
        "operatingSystem": "osImage",
        "containerRuntime": "containerRuntimeVersion",
        "kubelet": "kubeletVersion",
    }
    entries = [
        (answer.node, {"pool": answer.pool, **{key: read_text(infos[answer.node], name) for key, name in keys.items()}})
        for answer in objects.answers
        if answer.node in infos
    ]
    return Known(tuple(_count(entries, items="")), "'nodeInfo' of the nodes")


def _list_host_mounts(daemon_set: JSON) -> Iterator[dict[str, Any]]:
    spec = _pod_spec(daemon_set)
    volumes = {
        read_text(volume, "name"): read_map(volume, "hostPath")
        for volume in read_maps(spec, "volumes")
        if "hostPath" in volume
    }
    for container in (*read_maps(spec, "initContainers"), *read_maps(spec, "containers")):
        for mount in read_maps(container, "volumeMounts"):
            name = read_text(mount, "name")
            if name not in volumes:
                continue
            yield {
                "pool": _pool(daemon_set),
                "path": read_text(volumes[name], "path"),
                "mountPath": read_text(mount, "mountPath"),
                "readOnly": mount.get("readOnly") is True,
                "type": read_text(volumes[name], "type"),
                "purpose": _describe_purpose(name),
            }


def _describe_purpose(volume: str) -> Fact:
    if volume in _PURPOSES:
        return Known(_PURPOSES[volume], "the chart")
    if volume.startswith("host-"):
        return Known(
            "files that the configuration mounts into containers or reads", "'daemonset.hostMounts' of the chart"
        )
    if volume.startswith("cdi-"):
        return Known("CDI files of other programs", "'daemonset.cdiSearchDirs' of the chart")
    return Unknown(f"the volume '{volume}' is not one of the chart")


def _list_security(answers: Sequence[NodeAnswer], daemon_set: JSON) -> Iterator[dict[str, Any]]:
    spec, pool = _pod_spec(daemon_set), _pool(daemon_set)
    pod_context = read_map(spec, "securityContext")
    agent = _agent_container(spec)
    for container in (*read_maps(spec, "initContainers"), *read_maps(spec, "containers")):
        context = {**pod_context, **read_map(container, "securityContext")}
        capabilities = read_map(context, "capabilities")
        source = "'securityContext' of the pod template"
        user, group = (context.get(key) for key in ("runAsUser", "runAsGroup"))
        profile, options = read_map(context, "seccompProfile"), read_texts(context, "seLinuxOptions")
        armor = read_map(context, "appArmorProfile")
        yield {
            "pool": pool,
            "container": read_text(container, "name"),
            "user": Known(f"{user}:{group if group is not None else 0}", source)
            if isinstance(user, int)
            else Unknown("'runAsUser' is not set: the image decides"),
            "privileged": _read_flag(context, "privileged", default=False),
            "allowPrivilegeEscalation": _read_flag(context, "allowPrivilegeEscalation", default=True),
            "readOnlyRootFilesystem": _read_flag(context, "readOnlyRootFilesystem", default=False),
            "addedCapabilities": Known(sorted(map(str, capabilities.get("add") or ())), source),
            "droppedCapabilities": Known(sorted(map(str, capabilities.get("drop") or ())), source),
            "seccomp": Known(_describe_profile(profile), source)
            if profile
            else Unknown("'seccompProfile' is not set: the kubelet decides by 'seccompDefault'"),
            "appArmor": Known(_describe_profile(armor), source)
            if armor
            else Unknown("'appArmorProfile' is not set: the container runtime decides"),
            "seLinux": Known(", ".join(f"{key} {value}" for key, value in sorted(options.items())), source)
            if options
            else Unknown("'seLinuxOptions' is not set: the container runtime decides"),
            "hostNamespaces": Known([key for key in ("hostIPC", "hostNetwork", "hostPID") if spec.get(key) is True],
                                    "the pod template"),
            "effective": _describe_effective(answers, pool)
            if container is agent
            else Unknown("only the agent returns a record"),
        }  # fmt: skip


def _describe_profile(profile: JSON) -> str:
    kind, file = read_text(profile, "type"), read_text(profile, "localhostProfile")
    return f"{kind} {file}" if file else kind


def _read_flag(context: JSON, key: str, *, default: bool) -> Fact:
    value = context.get(key)
    if isinstance(value, bool):
        return Known(value, "'securityContext' of the pod template")
    return Known(default, f"the default of Kubernetes: '{key}' is not set")


def _describe_effective(answers: Sequence[NodeAnswer], pool: str) -> Fact:
    found = []
    for answer in answers:
        if answer.pool != pool or isinstance(answer.record, Unknown):
            continue
        security = read_map(answer.record, "security")
        capabilities = _read_fact(security, "capabilities")
        effective = _read_words(capabilities, "effective") if isinstance(capabilities, dict) else None
        texts = [
            f"capabilities {'not known' if effective is None else ', '.join(effective) or 'none'}",
            f"seccomp {_read_fact(security, 'seccomp') or 'not known'}",
            f"security module {_read_fact(security, 'securityModule') or 'not known'}",
        ]
        found.append((answer.node, {"rights": "; ".join(texts)}))
    if not found:
        return Unknown(f"{_NO_RECORD} in this pool")
    return Known(tuple(_count(found, items="")), _NODE_RECORDS)


def _read_words(parent: JSON, key: str) -> list[str]:
    """Return the texts in the list of a key."""
    value = parent.get(key)
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _list_variables(daemon_set: JSON) -> Iterator[dict[str, Any]]:
    spec = _pod_spec(daemon_set)
    for container in (*read_maps(spec, "initContainers"), *read_maps(spec, "containers")):
        for variable in read_maps(container, "env"):
            origin = "value in the pod template"
            reference = read_map(variable, "valueFrom")
            for kind, target in sorted(reference.items()):
                parts = [str(value) for _, value in sorted(target.items())] if isinstance(target, dict) else []
                origin = f"{kind}: {' '.join(parts)}"
            yield {"pool": _pool(daemon_set), "name": read_text(variable, "name"), "origin": origin}
        for source in read_maps(container, "envFrom"):
            for kind in ("configMapRef", "secretRef"):
                if name := read_text(read_map(source, kind), "name"):
                    yield {"pool": _pool(daemon_set), "name": "every key", "origin": f"{kind}: {name}"}


def _describe_accounts(objects: ReleaseObjects) -> Fact:
    records = []
    for daemon_set in objects.daemon_sets:
        name = _account_of(daemon_set)
        account = objects.accounts.get(name, Unknown(f"the service account {name} was not read"))
        is_mounted = _pod_spec(daemon_set).get("automountServiceAccountToken")
        if not isinstance(is_mounted, bool):
            if isinstance(account, Unknown):
                return account
            is_mounted = account.get("automountServiceAccountToken") is not False
        records.append({"pool": _pool(daemon_set), "name": name, "tokenMounted": is_mounted})
    return Known(tuple(records), "pod templates of the DaemonSets, and the service accounts")


def _describe_other_objects(objects: ReleaseObjects) -> OtherObjects:
    policies = objects.network_policies
    labels = [_labels(read_map(read_map(daemon_set, "spec"), "template")) for daemon_set in objects.daemon_sets]
    network: Fact = policies if isinstance(policies, Unknown) else Known(
        tuple(
            sorted(
                _describe_network_policy(policy)
                for policy in policies
                if any(_selects(read_map(read_map(policy, "spec"), "podSelector"), own) for own in labels)
            )
        ),
        "NetworkPolicies of the namespace",
    )  # fmt: skip
    classes = {
        f"{answer.pool}: {read_text(spec, 'priorityClassName') or 'none'}, value {read_number(spec, 'priority')}"
        for answer in objects.answers
        for spec in [read_map(answer.pod, "spec")]
    }
    return OtherObjects(
        network,
        Known(tuple(sorted(classes)), "pods of the DaemonSets") if classes else Unknown("the release has no pods"),
        _describe_quotas(objects),
    )


def _describe_network_policy(policy: JSON) -> str:
    spec = read_map(policy, "spec")
    ports = [
        f"{port.get('port')}/{read_text(port, 'protocol') or 'TCP'}"
        for rule in read_maps(spec, "ingress")
        for port in read_maps(rule, "ports")
    ]
    is_open = not all(rule.get("from") for rule in read_maps(spec, "ingress"))
    egress = "restricted" if "Egress" in _read_words(spec, "policyTypes") else "not restricted"
    if egress == "restricted" and not list(read_maps(spec, "egress")):
        egress = "none"
    return (
        f"{_name(policy)}: ingress to {', '.join(ports) or 'no port'} from {'everywhere' if is_open else 'its peers'}, "
        f"egress {egress}"
    )


def _selects(selector: JSON, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects an object with these labels."""
    if any(labels.get(key) != value for key, value in read_texts(selector, "matchLabels").items()):
        return False
    for expression in read_maps(selector, "matchExpressions"):
        key, values = read_text(expression, "key"), _read_words(expression, "values")
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds.get(read_text(expression, "operator"), False):
            return False
    return True


def _describe_quotas(objects: ReleaseObjects) -> Fact:
    if isinstance(objects.quotas, Unknown):
        return objects.quotas
    names = {
        read_text(resource, "name") for _, record in _records(objects) for resource in _read_list(record, "resources")
    }
    if not names:
        return Unknown("the names of the resources are not known")
    records = []
    for quota in objects.quotas:
        hard = read_texts(read_map(quota, "spec"), "hard")
        kept = {key: value for key, value in sorted(hard.items()) if key.removeprefix("requests.") in names}
        if kept:
            namespace = read_text(read_map(quota, "metadata"), "namespace")
            records.append({"namespace": namespace, "name": _name(quota), "hard": kept})
    records.sort(key=lambda record: (record["namespace"], record["name"]))
    return Known(tuple(records), "ResourceQuotas of all namespaces")


def _describe_health(objects: ReleaseObjects) -> Fact:
    if (missing := _without_records(objects)) is not None:
        return missing
    found = [
        (answer.node, {"pool": answer.pool, **resource})
        for answer, record in _records(objects)
        for resource in _read_list(record, "health")
    ]
    entries = tuple({"pool": entry["pool"], "nodes": entry["nodes"], **entry} for entry in _count(found, items=""))
    return Known(entries, _source_of_records(objects))


def _describe_strategy(daemon_set: JSON) -> dict[str, Any]:
    strategy = read_map(read_map(daemon_set, "spec"), "updateStrategy")
    rolling = read_map(strategy, "rollingUpdate")
    return {
        "pool": _pool(daemon_set),
        "type": read_text(strategy, "type"),
        "maxUnavailable": str(rolling.get("maxUnavailable", "")),
        "maxSurge": str(rolling.get("maxSurge", "")),
        "terminationGracePeriodSeconds": read_number(_pod_spec(daemon_set), "terminationGracePeriodSeconds"),
    }


def _list_configurations(objects: ReleaseObjects, daemon_set: JSON) -> Iterator[dict[str, Any]]:
    pool = _pool(daemon_set)
    for use, name in list_config_maps(daemon_set):
        found = objects.config_maps.get(name, Unknown(f"the ConfigMap {name} was not read"))
        answers = [answer for answer in objects.answers if answer.pool == pool]
        yield {"pool": pool, "use": use, "configMap": name, **_describe_config_map(found, use, answers)}


def _describe_config_map(config_map: JSON | Unknown, use: str, answers: Sequence[NodeAnswer]) -> dict[str, Fact]:
    if isinstance(config_map, Unknown):
        keys = ("resourceVersion", "managedBy", "fieldManagers", "files", "sameNodes", "differentNodes")
        return dict.fromkeys(keys, config_map)
    metadata, data = read_map(config_map, "metadata"), read_texts(config_map, "data")
    managers = _field_managers(config_map)
    files = tuple(
        {"path": name, "sha256": Known(_digest(text), f"key '{name}' of the ConfigMap")}
        for name, text in sorted(data.items())
    )
    same, different = _compare_nodes(data, use, answers)
    return {
        "resourceVersion": Known(read_text(metadata, "resourceVersion"), "the ConfigMap"),
        "managedBy": _label_fact(config_map, _MANAGED_BY_LABEL),
        "fieldManagers": Known(managers, "'managedFields' of the ConfigMap")
        if managers
        else Unknown("the ConfigMap has no 'managedFields'"),
        "files": Known(files, "the ConfigMap"),
        "sameNodes": same,
        "differentNodes": different,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _compare_nodes(data: Mapping[str, str], use: str, answers: Sequence[NodeAnswer]) -> tuple[Fact, Fact]:
    """Return the nodes whose agents have the content of a ConfigMap, and those with another content."""
    same: list[str] = []
    different: list[dict[str, str]] = []
    unknown: list[str] = []
    for answer in answers:
        expected, found = _expected_digest(data, use, answer), _found_digest(use, answer)
        if expected is None or found is None:
            unknown.append(answer.node)
        elif expected == found:
            same.append(answer.node)
        else:
            different.append({"node": answer.node, "expected": expected, "found": found})
    source = "digests of the ConfigMap and of the agents"
    if unknown:
        source += f"; not known: {', '.join(sorted(unknown))}"
    if answers and len(unknown) == len(answers):
        reason = Unknown("no agent of the pool returned a digest, or the ConfigMap is not a valid configuration")
        return reason, reason
    return Known(tuple(sorted(same)), source), Known(tuple(sorted(different, key=lambda entry: entry["node"])), source)


def _expected_digest(data: Mapping[str, str], use: str, answer: NodeAnswer) -> str | None:
    """Return the digest that the agent of a node has after it read a ConfigMap."""
    if use == "policy":
        return _digest(data["policy.yaml"]) if "policy.yaml" in data else None
    names = [name for name in sorted(data) if is_config_file(name) and node_of(name) in (None, answer.node)]
    names.sort(key=lambda name: node_of(name) is not None)
    try:
        return load_texts([ConfigFile(name, data[name]) for name in names], None).sha256
    except ConfigInvalidError:
        return None


def _found_digest(use: str, answer: NodeAnswer) -> str | None:
    """Return the digest of the active configuration of an agent, or of the policy file in its container."""
    if isinstance(answer.record, Unknown):
        return None
    if use == "configuration":
        value = _read_fact(answer.record, "configuration", "activeSha256")
    else:
        files = _read_list(answer.record, "policy", "file")
        value = _read_fact(files[0], "sha256") if files else None
    return value if isinstance(value, str) else None


def _describe_status(objects: ReleaseObjects) -> ReleaseStatus:
    statuses = [read_map(daemon_set, "status") for daemon_set in objects.daemon_sets]
    is_ready = all(
        read_number(status, "numberReady") == read_number(status, "desiredNumberScheduled") for status in statuses
    )
    missing = _without_records(objects)
    counts: dict[str, list[int]] = {}
    for _, record in _records(objects):
        for entry in _read_list(record, "status", "devices"):
            count = counts.setdefault(read_text(entry, "resource"), [0, 0])
            count[0] += read_number(entry, "healthy")
            count[1] += read_number(entry, "unhealthy")
    devices = tuple(
        {"resource": name, "healthy": healthy, "unhealthy": unhealthy}
        for name, (healthy, unhealthy) in sorted(counts.items())
    )
    return ReleaseStatus(
        Known(is_ready, "'status' of the DaemonSets"), missing or Known(devices, _source_of_records(objects))
    )


def _describe_node(answer: NodeAnswer) -> dict[str, Any]:
    conditions = read_maps(read_map(answer.pod, "status"), "conditions")
    is_ready = any(
        read_text(condition, "type") == "Ready" and read_text(condition, "status") == "True" for condition in conditions
    )
    record = answer.record

    def copy(*path: str) -> Fact:
        return record if isinstance(record, Unknown) else _copy_fact(record, *path)

    return {
        "name": answer.node,
        "pool": answer.pool,
        "pod": _name(answer.pod),
        "ready": is_ready,
        "version": copy("plugin", "version"),
        "configuration": copy("configuration", "activeSha256"),
        "reasons": copy("status", "reasons"),
    }
