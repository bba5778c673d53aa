"""The pod templates in the record of a release: pools, host mounts, security contexts, variables and strategies."""

from collections.abc import Iterator, Sequence
from typing import Any

from genplug.kubectl.json_values import JSON, read_map, read_maps, read_number, read_text, read_texts
from genplug.kubectl.release_objects import (
    NO_RECORD,
    NODE_RECORDS,
    NodeAnswer,
    count_entries,
    find_agent_container,
    read_annotations,
    read_fact,
    read_name,
    read_pod_spec,
    read_pool,
    read_words,
)
from genplug.record.facts import Fact, Known, Unknown

_APP_ARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"
_PURPOSES = {
    "dev": "device nodes: the agent finds them and reads their numbers",
    "sys": "attributes and health of devices",
    "proc-driver": "devices of drivers outside of the kernel tree",
    "proc-devices": "the drivers of device numbers, by which the policy recognizes device nodes",
    "udev-data": "properties of devices, such as the capabilities of cameras",
    "device-plugins": "the sockets of the agent and the registration socket of the kubelet",
    "pod-resources": "the devices that pods use",
    "plugins-registry": "the socket by which the kubelet finds the DRA driver",
    "dra-driver": "the socket of the DRA driver, and the records of prepared claims",
    "cdi": "the CDI files that the agent writes",
    "audit": "the audit log that the agent writes",
}
"""The purpose of the volumes of the chart, by name; deploy/helm/genplug/templates/daemonset.yaml."""


def describe_pool(answers: Sequence[NodeAnswer], daemon_set: JSON) -> dict[str, Any]:
    """Return the node pool of a DaemonSet."""
    spec, status = read_pod_spec(daemon_set), read_map(daemon_set, "status")
    pool = read_pool(daemon_set)
    return {
        "name": pool,
        "daemonSet": read_name(daemon_set),
        "nodeSelector": read_texts(spec, "nodeSelector"),
        "affinity": [_describe_term(term) for term in _affinity_terms(spec)],
        "tolerations": [_describe_toleration(toleration) for toleration in read_maps(spec, "tolerations")],
        "desired": read_number(status, "desiredNumberScheduled"),
        "ready": read_number(status, "numberReady"),
        "updated": read_number(status, "updatedNumberScheduled"),
        "nodes": sorted(answer.node for answer in answers if answer.pool == pool),
    }


def _affinity_terms(spec: JSON) -> Iterator[JSON]:
    affinity = read_map(read_map(spec, "affinity"), "nodeAffinity")
    yield from read_maps(read_map(affinity, "requiredDuringSchedulingIgnoredDuringExecution"), "nodeSelectorTerms")


def _describe_term(term: JSON) -> str:
    conditions = [*read_maps(term, "matchExpressions"), *read_maps(term, "matchFields")]
    return " and ".join(map(_describe_condition, conditions))


def _describe_condition(condition: JSON) -> str:
    values = read_words(condition, "values")
    text = f"{read_text(condition, 'key')} {read_text(condition, 'operator')}"
    return f"{text} ({', '.join(values)})" if values else text


def _describe_toleration(toleration: JSON) -> str:
    key, operator, value, effect = (read_text(toleration, name) for name in ("key", "operator", "value", "effect"))
    taint = (key or "every taint") + (f"={value}" if value and operator != "Exists" else "")
    return f"{taint}:{effect}" if effect else taint


def list_host_mounts(daemon_set: JSON) -> Iterator[dict[str, Any]]:
    """Yield the mounts of ``hostPath`` volumes of a pool."""
    spec = read_pod_spec(daemon_set)
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
                "pool": read_pool(daemon_set),
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


def list_security(answers: Sequence[NodeAnswer], daemon_set: JSON) -> Iterator[dict[str, Any]]:
    """Yield the security context of each container of a pool, with the rights that the kernels report."""
    spec, pool = read_pod_spec(daemon_set), read_pool(daemon_set)
    pod_context = read_map(spec, "securityContext")
    agent = find_agent_container(spec)
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
            "addedCapabilities": Known(sorted(read_words(capabilities, "add")), source),
            "droppedCapabilities": Known(sorted(read_words(capabilities, "drop")), source),
            "seccomp": Known(_describe_profile(profile), source)
            if profile
            else Unknown("'seccompProfile' is not set: the kubelet decides by 'seccompDefault'"),
            "appArmor": _describe_app_armor(daemon_set, read_text(container, "name"), armor),
            "seLinux": Known(", ".join(f"{key} {value}" for key, value in sorted(options.items())), source)
            if options
            else Unknown("'seLinuxOptions' is not set: the container runtime decides"),
            "hostNamespaces": Known([key for key in ("hostIPC", "hostNetwork", "hostPID") if spec.get(key) is True],
                                    "the pod template"),
            "effective": _describe_effective(answers, pool)
            if container is agent
            else Unknown("only the agent returns a record"),
        }  # fmt: skip


def _describe_app_armor(daemon_set: JSON, container: str, profile: JSON) -> Fact:
    """Return the profile of AppArmor: of the field, else of the annotation that Kubernetes before 1.30 reads."""
    if profile:
        return Known(_describe_profile(profile), "'securityContext' of the pod template")
    annotations = read_annotations(read_map(read_map(daemon_set, "spec"), "template"))
    if value := annotations.get(f"{_APP_ARMOR_ANNOTATION}{container}"):
        return Known(value, f"annotation '{_APP_ARMOR_ANNOTATION}{container}' of the pod template")
    return Unknown("'appArmorProfile' is not set: the container runtime decides")


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
        capabilities = read_fact(security, "capabilities")
        effective = read_words(capabilities, "effective") if isinstance(capabilities, dict) else None
        texts = [
            f"capabilities {'not known' if effective is None else ', '.join(effective) or 'none'}",
            f"seccomp {read_fact(security, 'seccomp') or 'not known'}",
            f"security module {read_fact(security, 'securityModule') or 'not known'}",
        ]
        found.append((answer.node, {"rights": "; ".join(texts)}))
    if not found:
        return Unknown(f"{NO_RECORD} in this pool")
    return Known(tuple(count_entries(found, items="")), NODE_RECORDS)


def list_variables(daemon_set: JSON) -> Iterator[dict[str, Any]]:
    """Yield the environment variables of a pool, without their values."""
    spec = read_pod_spec(daemon_set)
    for container in (*read_maps(spec, "initContainers"), *read_maps(spec, "containers")):
        for variable in read_maps(container, "env"):
            origin = "value in the pod template"
            reference = read_map(variable, "valueFrom")
            for kind, target in sorted(reference.items()):
                parts = [str(value) for _, value in sorted(target.items())] if isinstance(target, dict) else []
                origin = f"{kind}: {' '.join(parts)}"
            yield {"pool": read_pool(daemon_set), "name": read_text(variable, "name"), "origin": origin}
        for source in read_maps(container, "envFrom"):
            for kind in ("configMapRef", "secretRef"):
                if name := read_text(read_map(source, kind), "name"):
                    yield {"pool": read_pool(daemon_set), "name": "every key", "origin": f"{kind}: {name}"}


def describe_strategy(daemon_set: JSON) -> dict[str, Any]:
    """Return the update strategy of a pool."""
    strategy = read_map(read_map(daemon_set, "spec"), "updateStrategy")
    rolling = read_map(strategy, "rollingUpdate")
    return {
        "pool": read_pool(daemon_set),
        "type": read_text(strategy, "type"),
        "maxUnavailable": str(rolling.get("maxUnavailable", "")),
        "maxSurge": str(rolling.get("maxSurge", "")),
        "terminationGracePeriodSeconds": read_number(read_pod_spec(daemon_set), "terminationGracePeriodSeconds"),
    }
