"""Builds the record of a release from the objects of the API server and the records of its nodes. Pure.

The objects and records are input: a key that is missing or has another type counts as empty.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from genplug.kubectl.json_values import JSON, read_map, read_maps, read_number, read_text, read_texts
from genplug.kubectl.release_access import (
    Objects,
    RoleObjects,
    describe_admission_policies,
    describe_editors,
    describe_roles,
)
from genplug.kubectl.release_config import list_configurations
from genplug.kubectl.release_objects import (
    MANAGED_BY_LABEL,
    NO_RECORD,
    NODE_RECORDS,
    NodeAnswer,
    copy_fact,
    count_entries,
    describe_label,
    find_agent_container,
    list_field_managers,
    read_account,
    read_annotations,
    read_fact,
    read_fact_list,
    read_labels,
    read_name,
    read_pod_spec,
    read_pool,
    read_words,
)
from genplug.kubectl.release_pods import (
    describe_pool,
    describe_strategy,
    list_host_mounts,
    list_security,
    list_variables,
)
from genplug.record.behavior import AGENT_RESTART, KUBELET_RESTART, SKEW
from genplug.record.facts import Fact, Known, Unknown, build_document
from genplug.record.node import API_VERSION, Access, Generation

RELEASE_KIND = "ReleaseRecord"
INSTANCE_LABEL = "app.kubernetes.io/instance"
_NAME_LABEL, _CHART_LABEL = "app.kubernetes.io/name", "helm.sh/chart"
_HELM_RELEASE, _HELM_NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
_TOOLS = (
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "kustomization of Flux"),
    ("kubectl.kubernetes.io/last-applied-configuration", "kubectl apply"),
)
"""Annotations and labels that identify the tool that applied an object."""


class ReleaseObjects(Struct, frozen=True):
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


class ReleasePlugin(Struct, frozen=True):
    """The plugin of a release."""

    name: Fact
    versions: Fact
    image: Fact
    image_digests: Fact
    same_image: Fact


class ReleaseDeployment(Struct, frozen=True):
    """How a release is deployed."""

    release: Fact
    namespace: Fact
    method: Fact
    tool: Fact
    chart: Fact
    field_managers: Fact


class ReleaseDrivers(Struct, frozen=True):
    """The versions of kernels, drivers and firmware, with the numbers of nodes."""

    kernels: Fact
    drivers: Fact
    devices: Fact


class OtherObjects(Struct, frozen=True):
    """Other objects that affect a release."""

    network_policies: Fact
    priority_class: Fact
    resource_quotas: Fact


class ReleaseUpgrade(Struct, frozen=True):
    """The upgrade plan, and what happens at restarts."""

    strategy: Fact
    supported_skew: Fact
    on_kubelet_restart: Fact
    on_agent_restart: Fact


class ReleaseStatus(Struct, frozen=True):
    """The status of the agents when the record was made."""

    ready: Fact
    devices: Fact


class ReleaseRecord(Struct, frozen=True):
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
    accounts = {read_account(daemon_set) for daemon_set in objects.daemon_sets}
    return ReleaseRecord(
        generated=generation,
        plugin=_describe_plugin(objects),
        deployment=_describe_deployment(objects),
        resources=_describe_resources(objects),
        pools=Known(tuple(map(partial(describe_pool, objects.answers), objects.daemon_sets)), "DaemonSets"),
        drivers=_describe_drivers(objects),
        host_mounts=Known(_list_for_pools(objects, list_host_mounts), "pod templates of the DaemonSets"),
        security=Known(
            _list_for_pools(objects, partial(list_security, objects.answers)), "pod templates of the DaemonSets"
        ),
        environment=Known(_list_for_pools(objects, list_variables), "pod templates of the DaemonSets"),
        access=Access(
            _describe_accounts(objects),
            describe_roles(objects.roles, objects.namespace, accounts),
            describe_editors(objects.roles, objects.namespace),
            describe_admission_policies(objects.admission_policies, objects.admission_bindings),
        ),
        objects=_describe_other_objects(objects),
        health=_describe_health(objects),
        upgrade=ReleaseUpgrade(
            Known(tuple(map(describe_strategy, objects.daemon_sets)), "DaemonSets"),
            SKEW,
            KUBELET_RESTART,
            AGENT_RESTART,
        ),
        configuration=Known(
            _list_for_pools(objects, partial(list_configurations, objects.config_maps, objects.answers)),
            "ConfigMaps that the pods mount",
        ),
        status=_describe_status(objects),
        nodes=Known(tuple(map(_describe_node, objects.answers)), "pods of the DaemonSets"),
    )


def _list_for_pools(objects: ReleaseObjects, describe: Callable[[JSON], Iterable[Any]]) -> tuple[Any, ...]:
    """Return the results of a function for each DaemonSet."""
    return tuple(entry for daemon_set in objects.daemon_sets for entry in describe(daemon_set))


def _records(objects: ReleaseObjects) -> list[tuple[NodeAnswer, JSON]]:
    """Return the nodes that returned a record."""
    return [(answer, answer.record) for answer in objects.answers if not isinstance(answer.record, Unknown)]


def _without_records(objects: ReleaseObjects) -> Unknown | None:
    """Return why no node returned a record, or None if a node did."""
    if _records(objects):
        return None
    reasons = sorted({answer.record.reason for answer in objects.answers if isinstance(answer.record, Unknown)})
    return Unknown(f"{NO_RECORD}: {reasons[0]}" if reasons else f"{NO_RECORD}: the release has no pods")


def _source_of_records(objects: ReleaseObjects) -> str:
    count, total = len(_records(objects)), len(objects.answers)
    return f"{NODE_RECORDS}, {count} of {total} nodes"


def _describe_plugin(objects: ReleaseObjects) -> ReleasePlugin:
    missing = _without_records(objects)
    versions: dict[str, list[str]] = {}
    for answer, record in _records(objects):
        version = read_fact(record, "plugin", "version")
        if isinstance(version, str):
            versions.setdefault(version, []).append(answer.node)
    digests: dict[str, list[str]] = {}
    for answer in objects.answers:
        statuses = read_maps(read_map(answer.pod, "status"), "containerStatuses")
        name = read_text(find_agent_container(read_map(answer.pod, "spec")), "name")
        digest = next((read_text(status, "imageID") for status in statuses if read_text(status, "name") == name), "")
        digests.setdefault(digest, []).append(answer.node)
    not_running = digests.pop("", [])
    images = tuple(
        {
            "pool": read_pool(daemon_set),
            "image": read_text(container, "image"),
            "pullPolicy": read_text(container, "imagePullPolicy"),
        }
        for daemon_set in objects.daemon_sets
        for container in [find_agent_container(read_pod_spec(daemon_set))]
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
        name=describe_label(objects.daemon_sets[0], _NAME_LABEL),
        versions=missing
        or Known(
            tuple({"version": version, "nodes": sorted(nodes)} for version, nodes in sorted(versions.items())),
            _source_of_records(objects),
        ),
        image=Known(images, "pod templates of the DaemonSets"),
        image_digests=found,
        same_image=same,
    )


def _describe_deployment(objects: ReleaseObjects) -> ReleaseDeployment:
    first = objects.daemon_sets[0]
    managers = sorted({manager for daemon_set in objects.daemon_sets for manager in list_field_managers(daemon_set)})
    return ReleaseDeployment(
        release=describe_label(first, INSTANCE_LABEL),
        namespace=Known(objects.namespace, "DaemonSets"),
        method=Known("pods of a DaemonSet for each pool", "DaemonSets"),
        tool=_describe_tool(first, managers),
        chart=describe_label(first, _CHART_LABEL),
        field_managers=Known(tuple(managers), "'managedFields' of the DaemonSets")
        if managers
        else Unknown("the DaemonSets have no 'managedFields'"),
    )


def _describe_tool(daemon_set: JSON, managers: Sequence[str]) -> Fact:
    """Return the tool that applied a DaemonSet. The label ``managed-by`` alone is that of a rendered manifest too."""
    marks = {**read_labels(daemon_set), **read_annotations(daemon_set)}
    if release := marks.get(_HELM_RELEASE):
        chart = marks.get(_CHART_LABEL, "unknown")
        namespace = marks.get(_HELM_NAMESPACE, "")
        return Known(f"Helm release {release} in namespace {namespace}, chart {chart}", f"annotation '{_HELM_RELEASE}'")
    # kustomize sets the label with `buildMetadata: [managedByLabel]`; kubectl then applies the objects.
    if marks.get(MANAGED_BY_LABEL, "").startswith("kustomize"):
        return Known(marks[MANAGED_BY_LABEL], f"label '{MANAGED_BY_LABEL}'")
    for mark, tool in _TOOLS:
        if mark in marks:
            return Known(tool, f"annotation or label '{mark}'")
    if any(manager.startswith("kubectl") for manager in managers):
        return Known("kubectl", "'managedFields' of the DaemonSets")
    return Unknown("the DaemonSets have no annotation, label or field manager of a known tool")


def _describe_resources(objects: ReleaseObjects) -> Fact:
    if (missing := _without_records(objects)) is not None:
        return missing
    found: dict[str, dict[str, Any]] = {}
    for answer, record in _records(objects):
        for resource in read_fact_list(record, "resources"):
            name = read_text(resource, "name")
            entry = found.setdefault(name, {"name": name, "pools": set(), "nodes": 0, "devices": 0})
            entry["pools"].add(answer.pool)
            entry["nodes"] += 1
            count = read_fact(resource, "devices")
            entry["devices"] += count if isinstance(count, int) else 0
    records = tuple({**entry, "pools": sorted(entry["pools"])} for _, entry in sorted(found.items()))
    return Known(records, _source_of_records(objects))


def _describe_drivers(objects: ReleaseObjects) -> ReleaseDrivers:
    missing = _without_records(objects)
    source = _source_of_records(objects)
    drivers: list[tuple[str, dict[str, Any]]] = []
    devices: list[tuple[str, dict[str, Any]]] = []
    for answer, record in _records(objects):
        for driver in read_fact_list(record, "drivers", "drivers"):
            kept = {key: build_document(copy_fact(driver, key)) for key in ("module", "version", "taints")}
            drivers.append((answer.node, {"pool": answer.pool, "driver": read_text(driver, "driver"), **kept}))
        for device in read_fact_list(record, "drivers", "devices"):
            firmware = copy_fact(device, "firmware")
            texts: Fact = firmware
            if isinstance(firmware, Known):
                versions = {
                    f"{entry.get('name')} {entry.get('version')}" for entry in read_fact_list(device, "firmware")
                }
                texts = Known(tuple(sorted(versions)), "files of the driver in /sys and /proc/driver")
            devices.append(
                (
                    answer.node,
                    {
                        "pool": answer.pool,
                        "resource": read_text(device, "resource"),
                        "drivers": build_document(copy_fact(device, "drivers")),
                        "firmware": build_document(texts),
                    },
                )
            )
    return ReleaseDrivers(
        _describe_kernels(objects),
        missing or Known(tuple(count_entries(drivers, items="")), source),
        missing or Known(tuple(count_entries(devices, items="devices")), source),
    )


def _describe_kernels(objects: ReleaseObjects) -> Fact:
    if isinstance(objects.nodes, Unknown):
        return objects.nodes
    infos = {read_name(node): read_map(read_map(node, "status"), "nodeInfo") for node in objects.nodes}
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
    return Known(tuple(count_entries(entries, items="")), "'nodeInfo' of the nodes")


def _describe_accounts(objects: ReleaseObjects) -> Fact:
    records = []
    for daemon_set in objects.daemon_sets:
        name = read_account(daemon_set)
        account = objects.accounts.get(name, Unknown(f"the service account {name} was not read"))
        is_mounted = read_pod_spec(daemon_set).get("automountServiceAccountToken")
        if not isinstance(is_mounted, bool):
            if isinstance(account, Unknown):
                return account
            is_mounted = account.get("automountServiceAccountToken") is not False
        records.append({"pool": read_pool(daemon_set), "name": name, "tokenMounted": is_mounted})
    return Known(tuple(records), "pod templates of the DaemonSets, and the service accounts")


def _describe_other_objects(objects: ReleaseObjects) -> OtherObjects:
    policies = objects.network_policies
    labels = [read_labels(read_map(read_map(daemon_set, "spec"), "template")) for daemon_set in objects.daemon_sets]
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
    egress = "restricted" if "Egress" in read_words(spec, "policyTypes") else "not restricted"
    if egress == "restricted" and not list(read_maps(spec, "egress")):
        egress = "none"
    peers = "everywhere" if is_open else "its peers"
    return f"{read_name(policy)}: ingress to {', '.join(ports) or 'no port'} from {peers}, egress {egress}"


def _selects(selector: JSON, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects an object with these labels."""
    if any(labels.get(key) != value for key, value in read_texts(selector, "matchLabels").items()):
        return False
    for expression in read_maps(selector, "matchExpressions"):
        key, values = read_text(expression, "key"), read_words(expression, "values")
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
        read_text(resource, "name")
        for _, record in _records(objects)
        for resource in read_fact_list(record, "resources")
    }
    if not names:
        return Unknown("the names of the resources are not known")
    records = []
    for quota in objects.quotas:
        hard = read_texts(read_map(quota, "spec"), "hard")
        kept = {key: value for key, value in sorted(hard.items()) if key.removeprefix("requests.") in names}
        if kept:
            namespace = read_text(read_map(quota, "metadata"), "namespace")
            records.append({"namespace": namespace, "name": read_name(quota), "hard": kept})
    records.sort(key=lambda record: (record["namespace"], record["name"]))
    return Known(tuple(records), "ResourceQuotas of all namespaces")


def _describe_health(objects: ReleaseObjects) -> Fact:
    if (missing := _without_records(objects)) is not None:
        return missing
    found = [
        (answer.node, {"pool": answer.pool, **resource})
        for answer, record in _records(objects)
        for resource in read_fact_list(record, "health")
    ]
    entries = tuple(
        {"pool": entry["pool"], "nodes": entry["nodes"], **entry} for entry in count_entries(found, items="")
    )
    return Known(entries, _source_of_records(objects))


def _describe_status(objects: ReleaseObjects) -> ReleaseStatus:
    statuses = [read_map(daemon_set, "status") for daemon_set in objects.daemon_sets]
    is_ready = all(
        read_number(status, "numberReady") == read_number(status, "desiredNumberScheduled") for status in statuses
    )
    missing = _without_records(objects)
    counts: dict[str, list[int]] = {}
    for _, record in _records(objects):
        for entry in read_fact_list(record, "status", "devices"):
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
        return record if isinstance(record, Unknown) else copy_fact(record, *path)

    return {
        "name": answer.node,
        "pool": answer.pool,
        "pod": read_name(answer.pod),
        "ready": is_ready,
        "version": copy("plugin", "version"),
        "configuration": copy("configuration", "activeSha256"),
        "reasons": copy("status", "reasons"),
    }
