"""The agent pods: permissions, mounts, restarts, and the settings that a configuration requires."""

from collections.abc import Mapping
from typing import Any

import pytest

from genplug.config.load import load_text
from genplug.config.privileges import build_security_context, find_needs
from tests.support.chart import (
    FUSE,
    HELMS,
    MINIMAL,
    Manifest,
    RenderError,
    get_agent,
    get_daemonsets,
    get_pod_spec,
    merge_values,
    nest_value,
    render,
)

pytestmark = pytest.mark.helm

RBAC = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
DIGEST = "sha256:" + "0a" * 32


def build_values(**keys: Any) -> dict[str, Any]:
    return merge_values(MINIMAL, {"config": {"resources": {FUSE: keys}}})


def render_default_daemonset(values: Mapping[str, Any], **options: Any) -> Manifest:
    return get_daemonsets(render(values, **options))["default"]


def get_host_paths(daemonset: Manifest) -> dict[str, tuple[str, bool]]:
    """Return host path -> (path in the container, whether it is read-only)."""
    mounts = {mount["name"]: mount for mount in get_agent(daemonset)["volumeMounts"]}
    return {
        volume["hostPath"]["path"]: (mounts[volume["name"]]["mountPath"], mounts[volume["name"]].get("readOnly", False))
        for volume in get_pod_spec(daemonset)["volumes"]
        if "hostPath" in volume
    }


def test_agent_has_no_rbac_and_no_token_by_default() -> None:
    found = render(MINIMAL)
    assert not RBAC & {kind for kind, _ in found}
    assert found["ServiceAccount", "genplug"]["automountServiceAccountToken"] is False
    assert get_pod_spec(found["DaemonSet", "genplug"])["automountServiceAccountToken"] is False
    assert found["Pod", "genplug-validate"]["spec"]["automountServiceAccountToken"] is False


def test_agent_is_root_without_privileges_by_default() -> None:
    daemonset = render_default_daemonset(MINIMAL)
    assert get_agent(daemonset)["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": False,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
        "seLinuxOptions": {"type": "container_device_plugin_t"},
    }
    # In a user namespace (hostUsers: false), root could not access the kubelet's sockets.
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & get_pod_spec(daemonset).keys()


def test_host_directories_are_read_only_except_the_plugin_directory() -> None:
    assert get_host_paths(render_default_daemonset(MINIMAL)) == {
        "/dev": ("/host/dev", True),
        "/sys": ("/host/sys", True),
        "/proc/driver": ("/host/proc/driver", True),
        "/proc/devices": ("/host/proc/devices", True),
        "/run/udev/data": ("/host/run/udev/data", True),
        "/var/lib/kubelet/device-plugins": ("/var/lib/kubelet/device-plugins", False),
        "/var/lib/kubelet/pod-resources": ("/var/lib/kubelet/pod-resources", True),
    }


def test_kubelet_directories_of_another_distribution_are_mounted_at_the_default_paths() -> None:
    settings = {"kubeletDir": "/var/lib/k0s/kubelet/", "devicePluginsDir": "/opt/kubelet/device-plugins"}
    paths = get_host_paths(render_default_daemonset(merge_values(MINIMAL, {"daemonset": settings})))
    assert paths["/opt/kubelet/device-plugins"] == ("/var/lib/kubelet/device-plugins", False)
    assert paths["/var/lib/k0s/kubelet/pod-resources"] == ("/var/lib/kubelet/pod-resources", True)
    assert len(paths) == 7


def test_directory_of_pod_resources_can_be_set_without_the_directory_of_the_kubelet() -> None:
    settings = {"podResourcesDir": "/run/kubelet/pods"}
    paths = get_host_paths(render_default_daemonset(merge_values(MINIMAL, {"daemonset": settings})))
    assert paths["/run/kubelet/pods"] == ("/var/lib/kubelet/pod-resources", True)
    assert paths["/var/lib/kubelet/device-plugins"] == ("/var/lib/kubelet/device-plugins", False)
    assert len(paths) == 7


def test_host_mounts_are_read_only_below_host() -> None:
    settings = {"hostMounts": ["/usr/local", "/srv"], "cdiSpecDir": "/var/run/cdi"}
    paths = get_host_paths(render_default_daemonset(merge_values(MINIMAL, {"daemonset": settings})))
    assert paths["/usr/local"] == ("/host/usr/local", True)
    assert paths["/srv"] == ("/host/srv", True)
    assert paths["/var/run/cdi"] == ("/host/var/run/cdi", False)


def test_cdi_directories_are_read_only_except_the_directory_of_the_agent() -> None:
    settings = {"cdiSearchDirs": ["/etc/cdi", "/var/run/cdi"], "cdiSpecDir": "/var/run/cdi"}
    daemonset = render_default_daemonset(merge_values(MINIMAL, {"daemonset": settings}))
    paths = get_host_paths(daemonset)
    assert paths["/etc/cdi"] == ("/host/etc/cdi", True)
    assert paths["/var/run/cdi"] == ("/host/var/run/cdi", False)
    assert {"name": "GENPLUG_CDI_SEARCH_DIRS", "value": "/etc/cdi:/var/run/cdi"} in get_agent(daemonset)["env"]
    assert len(paths) == 9


def test_directory_of_the_audit_log_is_writable_and_known_to_the_command() -> None:
    daemonset = render_default_daemonset(merge_values(MINIMAL, {"daemonset": {"auditDir": "/srv/audit"}}))
    assert get_host_paths(daemonset)["/srv/audit"] == ("/var/log/genplug", False)
    assert {"name": "GENPLUG_AUDIT_DIR", "value": "/var/log/genplug"} in get_agent(daemonset)["env"]
    without = render_default_daemonset(MINIMAL)
    assert "/var/log/genplug" not in [mount["mountPath"] for mount in get_agent(without)["volumeMounts"]]
    assert "GENPLUG_AUDIT_DIR" not in [variable["name"] for variable in get_agent(without)["env"]]


def test_privileged_pool_leaves_other_pools_unprivileged() -> None:
    found = get_daemonsets(
        render(merge_values(MINIMAL, {"pools": {"lab": {"daemonset": {"privileged": True}}, "edge": {}}}))
    )
    assert {pool: get_agent(daemonset)["securityContext"]["privileged"] for pool, daemonset in found.items()} == {
        "default": False,
        "edge": False,
        "lab": True,
    }
    # The API server rejects a privileged container with allowPrivilegeEscalation: false.
    assert "allowPrivilegeEscalation" not in get_agent(found["lab"])["securityContext"]
    assert get_agent(found["lab"])["securityContext"]["readOnlyRootFilesystem"] is True


OPEN = {"health": {"probes": [{"open": {"mode": "rw"}}]}}
LOG_PROBE = {"health": {"probes": [{"kernelLog": {"fail": "Xid"}}]}}


@pytest.mark.parametrize(
    ("values", "added"),
    [
        ({}, {"default": [], "lab": []}),
        ({"pools": {"lab": {"config": {"resources": {FUSE: LOG_PROBE}}}}}, {"default": [], "lab": ["SYSLOG"]}),
        ({"config": {"nodes": {"n1": {"resources": {FUSE: LOG_PROBE}}}}}, {"default": ["SYSLOG"], "lab": ["SYSLOG"]}),
        (
            {"config": {"defaults": LOG_PROBE}, "pools": {"lab": {"config": {"defaults": {"health": None}}}}},
            {"default": ["SYSLOG"], "lab": []},
        ),
        ({"pools": {"lab": {"daemonset": {"kernelLog": "always"}}}}, {"default": [], "lab": ["SYSLOG"]}),
    ],
)
@pytest.mark.parametrize("helm", HELMS)
def test_capability_syslog_is_added_for_kernel_log_probes_only(
    values: Mapping[str, Any], added: Mapping[str, list[str]], helm: str
) -> None:
    found = get_daemonsets(render(MINIMAL, {"pools": {"lab": {}}}, values, helm=helm))
    contexts = {pool: get_agent(daemonset)["securityContext"] for pool, daemonset in found.items()}
    assert {pool: context["capabilities"].get("add", []) for pool, context in contexts.items()} == added
    assert {context["privileged"] for context in contexts.values()} == {False}


@pytest.mark.parametrize("resource", [{}, LOG_PROBE, OPEN], ids=["nothing", "kernel log", "open"])
def test_security_context_is_what_genplug_computes(resource: Mapping[str, Any]) -> None:
    values = merge_values(build_values(**resource), {"policy": {"openProbe": True}})
    values["daemonset"] = {"privileged": resource is OPEN}
    found = render(values)
    config = load_text(found["ConfigMap", "genplug-config"]["data"]["genplug.yaml"], "genplug.yaml", None)
    assert get_agent(found["DaemonSet", "genplug"])["securityContext"] == build_security_context(find_needs(config))


def test_profiles_of_seccomp_and_apparmor_can_be_selected() -> None:
    own = {"type": "Localhost", "localhostProfile": "genplug.json"}
    values = merge_values(MINIMAL, {"daemonset": {"seccompProfile": own}})
    assert get_agent(render_default_daemonset(values))["securityContext"]["seccompProfile"] == own
    values = merge_values(
        MINIMAL, {"daemonset": {"appArmorProfile": {"type": "Localhost", "localhostProfile": "genplug"}}}
    )
    context = get_agent(render_default_daemonset(values, kube_version="1.30.0"))["securityContext"]
    assert context["appArmorProfile"] == {"type": "Localhost", "localhostProfile": "genplug"}
    # Kubernetes before 1.30 has an annotation instead of the field.
    daemonset = render_default_daemonset(values, kube_version="1.29.4")
    assert "appArmorProfile" not in get_agent(daemonset)["securityContext"]
    annotation = "container.apparmor.security.beta.kubernetes.io/genplug"
    assert daemonset["spec"]["template"]["metadata"]["annotations"][annotation] == "localhost/genplug"


def test_agent_has_arguments_port_probes_and_node_name() -> None:
    container = get_agent(
        render_default_daemonset(
            merge_values(MINIMAL, {"metrics": {"port": 9900}, "log": {"level": "debug", "format": "text"}})
        )
    )
    assert "command" not in container
    command = "run --config /etc/genplug --root /host --log-format text --log-level debug"
    assert container["args"] == command.split()
    assert {"name": "GENPLUG_LISTEN", "value": ":9900"} in container["env"]
    (node,) = [variable for variable in container["env"] if variable["name"] == "NODE_NAME"]
    assert node["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    (port,) = container["ports"]
    assert port["containerPort"] == 9900
    probes = {probe: container[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe")}
    assert probes == {
        "livenessProbe": {"path": "/healthz", "port": port["name"]},
        "readinessProbe": {"path": "/readyz", "port": port["name"]},
    }
    assert not {"startupProbe", "lifecycle"} & container.keys()


def test_daemonset_has_a_rolling_update_a_priority_and_tolerations_by_default() -> None:
    daemonset = render_default_daemonset(MINIMAL)
    assert daemonset["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0},
    }
    assert get_pod_spec(daemonset)["priorityClassName"] == "system-node-critical"
    assert get_pod_spec(daemonset)["tolerations"] == [{"operator": "Exists"}]
    # A throttled agent would delay the start of pods.
    assert "cpu" not in get_agent(daemonset)["resources"]["limits"]


EXEC = {"health": {"probes": [{"exec": {"command": ["/bin/true"]}}]}}
MOUNT = {"allocate": {"mounts": [{"hostPath": "/opt/x/lib", "containerPath": "/lib/x"}]}}
READ_ETC = {"policy": {"read": {"allow": ["/sys/**", "/etc/x*/**"]}}}
EXTRA_MOUNT = {
    "daemonset": {
        "extraVolumes": [{"name": "x", "hostPath": {"path": "/etc/x"}}],
        "extraVolumeMounts": [{"name": "x", "mountPath": "/host/etc/x", "readOnly": True}],
    }
}
REQUIREMENTS: dict[str, tuple[dict[str, Any], list[tuple[dict[str, Any], str]]]] = {
    "open probe": (
        OPEN,
        [
            ({}, "Set {}daemonset.privileged to true"),
            (nest_value(("daemonset", "privileged"), True), "Set {}policy.openProbe to true"),  # noqa: FBT003 - a value
            (nest_value(("policy", "openProbe"), True), ""),  # noqa: FBT003 - a value
        ],
    ),
    "kernel log": (
        {"health": {"probes": [{"kernelLog": {"fail": "Xid"}}]}},
        [
            ({}, ""),
            (nest_value(("daemonset", "kernelLog"), "never"), "Set {}daemonset.kernelLog to auto"),
            (nest_value(("daemonset", "privileged"), True), ""),  # noqa: FBT003 - a value
        ],
    ),
    "dynamic resource allocation": (
        {"serve": "dra"},
        [
            ({}, ""),
            (nest_value(("dra", "enabled"), "never"), "Set {}dra.enabled to auto"),
            (nest_value(("dra", "enabled"), "always"), ""),
        ],
    ),
    "file hidden by the device cgroup": (
        {"devices": [{"glob": "/dev/x*", "attributes": {"id": {"path": "/sys/class/kfd/kfd/*/name"}}}]},
        [
            ({}, "Set {}daemonset.privileged to true"),
            (nest_value(("daemonset", "privileged"), True), ""),  # noqa: FBT003 - a value
        ],
    ),
    "file probe": (
        {"health": {"probes": [{"file": {"path": "/etc/x/${name}", "equals": "ok"}}]}},
        [
            (READ_ETC, "to {}daemonset.hostMounts"),
            (nest_value(("daemonset", "hostMounts"), ["/etc/x"]), ""),
        ],
    ),
    "limit of a file probe": (
        {"health": {"probes": [{"file": {"path": "/sys/x", "equalsFile": "/etc/x/limit"}}]}},
        [(READ_ETC, "to {}daemonset.hostMounts"), (nest_value(("daemonset", "hostMounts"), ["/etc/x/limit"]), "")],
    ),
    "attribute": (
        {"devices": [{"glob": "/dev/x*", "attributes": {"id": {"path": ["/sys/x", "/etc/x*/id"]}}}]},
        [
            (READ_ETC, "to {}daemonset.hostMounts"),
            (nest_value(("daemonset", "hostMounts"), ["/etc/x"]), "to {}daemonset.hostMounts"),
            (nest_value(("daemonset", "hostMounts"), ["/etc"]), ""),
        ],
    ),
    "device outside of /dev": (
        {"devices": [{"glob": ["/dev/x*", "/etc/x/*"], "type": "file"}]},
        [(READ_ETC, "to {}daemonset.hostMounts"), (EXTRA_MOUNT, "")],
    ),
    "companion outside of /dev": (
        {"devices": [{"glob": "/dev/x*", "with": ["/etc/x/y"]}]},
        [(READ_ETC, "to {}daemonset.hostMounts"), (EXTRA_MOUNT, "")],
    ),
    "socket": (
        {"health": {"probes": [{"unixSocket": {"path": "/etc/x/sock"}}]}},
        [
            (nest_value(("policy", "unixSocket", "allow"), ["/etc/**"]), "to {}daemonset.hostMounts"),
            (nest_value(("daemonset", "hostMounts"), ["/etc/x"]), ""),
        ],
    ),
    "exec probe": (
        EXEC,
        [({}, "Add the program to {}policy.exec.allow"), (nest_value(("policy", "exec", "allow"), ["/bin/true"]), "")],
    ),
    "preStart": (
        {"preStart": {"exec": {"command": ["/opt/reset"]}}},
        [({}, "Add the program to {}policy.exec.allow"), (nest_value(("policy", "exec", "allow"), ["/opt/reset"]), "")],
    ),
    "inject: cdi": (
        {"allocate": {"inject": "cdi"}},
        [({}, "Set {}daemonset.cdiSpecDir"), (nest_value(("daemonset", "cdiSpecDir"), "/var/run/cdi"), "")],
    ),
    "CDI devices": (
        {"allocate": {"cdiDevices": ["vendor.example/gpu=all"]}},
        [
            ({}, "Set {}daemonset.cdiSearchDirs"),
            (nest_value(("daemonset", "cdiSearchDirs"), ["/etc/cdi"]), "Add them to {}policy.cdi.allow"),
            (nest_value(("policy", "cdi", "allow"), ["vendor.example/gpu=*"]), ""),
        ],
    ),
    "annotations": (
        {"allocate": {"annotations": {"vendor.example/gpu": "x"}}},
        [
            ({}, "Add them to {}policy.annotations.allow"),
            (nest_value(("policy", "annotations", "allow"), ["vendor.example/*"]), ""),
        ],
    ),
    "mount": (
        MOUNT,
        [
            ({}, "to {}daemonset.hostMounts"),
            # A directory whose name is a prefix is not a parent.
            (nest_value(("daemonset", "hostMounts"), ["/opt/x/li"]), "to {}daemonset.hostMounts"),
            (nest_value(("daemonset", "hostMounts"), ["/opt/x"]), "Add the path to {}policy.mounts.allow"),
            (nest_value(("policy", "mounts", "allow"), ["/opt/x/**"]), ""),
        ],
    ),
}
"""Case -> a resource with requirements, and the settings to add in turn, each with the error that remains."""


def check_requirements(case: str, prefix: str, helm: str) -> None:
    resource, steps = REQUIREMENTS[case]
    path = tuple(prefix.split(".")[:-1])
    values = (
        merge_values(MINIMAL, nest_value((*path, "config", "resources", FUSE), resource))
        if path
        else build_values(**resource)
    )
    for settings, text in steps:
        values = merge_values(values, nest_value(path, settings))
        if not text:
            render(values, helm=helm)
            continue
        with pytest.raises(RenderError) as error:
            render(values, helm=helm)
        assert text.format(prefix) in str(error.value)
        assert f"Resource {FUSE} in pool {path[-1] if path else 'default'}" in str(error.value)


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("case", REQUIREMENTS)
def test_missing_requirement_is_rejected_with_the_value_to_set(case: str, helm: str) -> None:
    check_requirements(case, "", helm)


@pytest.mark.parametrize("case", REQUIREMENTS)
def test_missing_requirement_of_a_pool_is_rejected_with_the_value_of_the_pool(case: str) -> None:
    check_requirements(case, "pools.lab.", "helm4")


def test_missing_requirement_of_a_node_or_of_the_defaults_is_rejected() -> None:
    values = merge_values(MINIMAL, {"config": {"nodes": {"n1": {"resources": {FUSE: EXEC}}}}})
    with pytest.raises(RenderError, match=f"Resource {FUSE} on node n1 of pool default"):
        render(values)
    with pytest.raises(RenderError, match=r"policy\.exec\.allow"):
        render(merge_values(MINIMAL, {"config": {"defaults": EXEC}}))


def get_checksums(daemonset: Manifest) -> dict[str, str]:
    annotations = daemonset["spec"]["template"]["metadata"].get("annotations", {})
    return {key: value for key, value in annotations.items() if "checksum" in key}


def test_changed_configuration_does_not_change_the_pod_template() -> None:
    before, after = render_default_daemonset(MINIMAL), render_default_daemonset(build_values(tokens=5))
    assert get_checksums(before) == {}
    assert before == after


def test_rollout_on_config_change_changes_the_template_of_the_affected_pool_only() -> None:
    enabled = merge_values(MINIMAL, {"rolloutOnConfigChange": True, "pools": {"lab": {}}})
    changed = merge_values(enabled, {"pools": {"lab": {"config": {"resources": {FUSE: {"tokens": 5}}}}}})
    node = merge_values(
        enabled, {"pools": {"lab": {"config": {"nodes": {"n1": {"resources": {FUSE: {"tokens": 5}}}}}}}}
    )
    bounded = merge_values(enabled, {"pools": {"lab": {"policy": {"resources": ["*"]}}}})
    before = get_daemonsets(render(enabled))
    assert all(get_checksums(daemonset) for daemonset in before.values())
    variants = [get_checksums(before["lab"])]
    for values in (changed, node, bounded):
        after = get_daemonsets(render(values))
        assert get_checksums(after["default"]) == get_checksums(before["default"])
        variants.append(get_checksums(after["lab"]))
    assert len({str(variant) for variant in variants}) == 4
    assert get_daemonsets(render(enabled)) == before


def test_pod_template_contains_no_chart_version() -> None:
    metadata = render_default_daemonset(MINIMAL)["spec"]["template"]["metadata"]
    assert not {"helm.sh/chart", "app.kubernetes.io/version"} & metadata["labels"].keys()


def test_configmaps_are_mounted_as_directories() -> None:
    daemonset = render_default_daemonset(merge_values(MINIMAL, {"policy": {"resources": ["*"]}}))
    mounts = {mount["name"]: mount for mount in get_agent(daemonset)["volumeMounts"]}
    assert mounts["config"] == {"name": "config", "mountPath": "/etc/genplug", "readOnly": True}
    assert not [mount for mount in mounts.values() if {"subPath", "subPathExpr"} & mount.keys()]
    for volume in get_pod_spec(daemonset)["volumes"]:
        assert "items" not in volume.get("configMap", {})


def test_operator_annotation_overrides_the_chart_annotation() -> None:
    own = {"kubectl.kubernetes.io/default-container": "other", "a.example/b": "c"}
    daemonset = render_default_daemonset(merge_values(MINIMAL, {"daemonset": {"podAnnotations": own}}))
    assert daemonset["spec"]["template"]["metadata"]["annotations"] == own


IMAGES = {
    "": "docker.io/genplug/genplug:0.1.0",
    "tag": "docker.io/genplug/genplug:edge",
    "digest": f"docker.io/genplug/genplug@{DIGEST}",
    "tag and digest": f"docker.io/genplug/genplug@{DIGEST}",
    "registry": "mirror.example:5000/genplug/genplug:0.1.0",
    "registry and digest": f"mirror.example:5000/genplug/genplug@{DIGEST}",
    "registry and repository": "mirror.example:5000/team/agent:0.1.0",
}


@pytest.mark.parametrize("case", IMAGES)
def test_image_name_prefers_the_digest_and_the_global_registry(case: str) -> None:
    parts = case.split(" and ")
    image = {"tag": "edge"} if "tag" in parts else {}
    image |= {"digest": DIGEST} if "digest" in parts else {}
    image |= {"repository": "team/agent"} if "repository" in parts else {}
    registry = {"global": {"imageRegistry": "mirror.example:5000"}} if "registry" in parts else {}
    found = render(merge_values(MINIMAL, {"image": image, "pools": {"lab": {}}, **registry}))
    images = {
        container["image"]
        for (kind, _), manifest in found.items()
        if kind in {"DaemonSet", "Pod"}
        for container in (get_pod_spec(manifest) if kind == "DaemonSet" else manifest["spec"])["containers"]
    }
    assert images == {IMAGES[case]}


@pytest.mark.parametrize("helm", HELMS)
def test_minimal_values_render_the_default_objects_only(helm: str) -> None:
    # Also if the cluster has the CustomResourceDefinitions.
    found = render(MINIMAL, helm=helm, api_versions=["monitoring.coreos.com/v1"])
    assert set(found) == {
        ("ServiceAccount", "genplug"),
        ("ConfigMap", "genplug-config"),
        ("DaemonSet", "genplug"),
        ("Pod", "genplug-validate"),
    }
    assert found["Pod", "genplug-validate"]["metadata"]["annotations"]["helm.sh/hook"] == "test"
