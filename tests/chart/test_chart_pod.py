"""The agents' pods: what they may do, what they see, when they restart, and what is refused before any of it."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.chart import FUSE, HELMS, MINIMAL, Manifest, RenderError, agent, at, daemonsets, over, pod, render

pytestmark = pytest.mark.helm

RBAC = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
DIGEST = "sha256:" + "0a" * 32


def with_resource(**keys: Any) -> dict[str, Any]:
    return over(MINIMAL, {"config": {"resources": {FUSE: keys}}})


def default(values: Mapping[str, Any], **how: Any) -> Manifest:
    return daemonsets(render(values, **how))["default"]


def host_paths(daemonset: Manifest) -> dict[str, tuple[str, bool]]:
    """Return host path -> (path in the container, whether it is read-only)."""
    mounts = {mount["name"]: mount for mount in agent(daemonset)["volumeMounts"]}
    return {
        volume["hostPath"]["path"]: (mounts[volume["name"]]["mountPath"], mounts[volume["name"]].get("readOnly", False))
        for volume in pod(daemonset)["volumes"]
        if "hostPath" in volume
    }


def test_there_is_no_right_and_no_token_by_default() -> None:
    found = render(MINIMAL)
    assert not RBAC & {kind for kind, _ in found}
    assert found["ServiceAccount", "genplug"]["automountServiceAccountToken"] is False
    assert pod(found["DaemonSet", "genplug"])["automountServiceAccountToken"] is False
    assert found["Pod", "genplug-validate"]["spec"]["automountServiceAccountToken"] is False


def test_the_agent_is_root_and_nothing_else() -> None:
    daemonset = default(MINIMAL)
    assert agent(daemonset)["securityContext"] == {
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
    # In a user namespace of its own, root could not reach the kubelet's sockets.
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod(daemonset).keys()


def test_the_agent_sees_the_host_read_only_but_for_the_kubelets_sockets() -> None:
    assert host_paths(default(MINIMAL)) == {
        "/dev": ("/host/dev", True),
        "/sys": ("/host/sys", True),
        "/proc/driver": ("/host/proc/driver", True),
        "/var/lib/kubelet/device-plugins": ("/var/lib/kubelet/device-plugins", False),
        "/var/lib/kubelet/pod-resources": ("/var/lib/kubelet/pod-resources", True),
    }


def test_the_kubelets_directories_of_another_distribution_are_seen_where_the_agent_looks() -> None:
    settings = {"kubeletDir": "/var/lib/k0s/kubelet/", "devicePluginsDir": "/opt/kubelet/device-plugins"}
    seen = host_paths(default(over(MINIMAL, {"daemonset": settings})))
    assert seen["/opt/kubelet/device-plugins"] == ("/var/lib/kubelet/device-plugins", False)
    assert seen["/var/lib/k0s/kubelet/pod-resources"] == ("/var/lib/kubelet/pod-resources", True)
    assert len(seen) == 5


def test_directories_of_mounts_are_seen_read_only_below_host() -> None:
    settings = {"hostMounts": ["/usr/local", "/srv"], "cdiSpecDir": "/var/run/cdi"}
    seen = host_paths(default(over(MINIMAL, {"daemonset": settings})))
    assert seen["/usr/local"] == ("/host/usr/local", True)
    assert seen["/srv"] == ("/host/srv", True)
    assert seen["/var/run/cdi"] == ("/host/var/run/cdi", False)


def test_one_pool_can_be_privileged_and_the_others_stay_hardened() -> None:
    found = daemonsets(render(over(MINIMAL, {"pools": {"lab": {"daemonset": {"privileged": True}}, "edge": {}}})))
    assert {pool: agent(one)["securityContext"]["privileged"] for pool, one in found.items()} == {
        "default": False,
        "edge": False,
        "lab": True,
    }
    # The API server refuses a privileged container that may not escalate.
    assert "allowPrivilegeEscalation" not in agent(found["lab"])["securityContext"]
    assert agent(found["lab"])["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_agent_is_started_as_the_image_expects_and_knows_its_node() -> None:
    container = agent(default(over(MINIMAL, {"metrics": {"port": 9900}, "log": {"level": "debug", "format": "text"}})))
    assert "command" not in container
    command = "run --config /etc/genplug --root /host --log-format text --log-level debug"
    assert container["args"] == command.split()
    assert {"name": "GENPLUG_LISTEN", "value": ":9900"} in container["env"]
    (node,) = [one for one in container["env"] if one["name"] == "NODE_NAME"]
    assert node["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    (port,) = container["ports"]
    assert port["containerPort"] == 9900
    probes = {probe: container[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe")}
    assert probes == {
        "livenessProbe": {"path": "/healthz", "port": port["name"]},
        "readinessProbe": {"path": "/readyz", "port": port["name"]},
    }
    assert not {"startupProbe", "lifecycle"} & container.keys()


def test_a_rollout_never_has_two_agents_on_a_node_and_agents_go_before_what_waits_for_devices() -> None:
    daemonset = default(MINIMAL)
    assert daemonset["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0},
    }
    assert pod(daemonset)["priorityClassName"] == "system-node-critical"
    assert pod(daemonset)["tolerations"] == [{"operator": "Exists"}]
    # A throttled agent makes pods start late.
    assert "cpu" not in agent(daemonset)["resources"]["limits"]


OPEN = {"health": {"probes": [{"open": {"mode": "rw"}}]}}
EXEC = {"health": {"probes": [{"exec": {"command": ["/bin/true"]}}]}}
MOUNT = {"allocate": {"mounts": [{"hostPath": "/opt/x/lib", "containerPath": "/lib/x"}]}}
REFUSED: dict[str, tuple[dict[str, Any], list[tuple[dict[str, Any], str]]]] = {
    "open probe": (
        OPEN,
        [
            ({}, "Set {}daemonset.privileged to true"),
            (at(("daemonset", "privileged"), True), "Set {}policy.openProbe to true"),  # noqa: FBT003 - a value
            (at(("policy", "openProbe"), True), ""),  # noqa: FBT003 - a value
        ],
    ),
    "kernel log": (
        {"health": {"probes": [{"kernelLog": {"fail": "Xid"}}]}},
        [
            ({}, "Set {}daemonset.privileged to true"),
            (at(("daemonset", "privileged"), True), ""),  # noqa: FBT003 - a value
        ],
    ),
    "exec probe": (
        EXEC,
        [({}, "Add the program to {}policy.exec.allow"), (at(("policy", "exec", "allow"), ["/bin/true"]), "")],
    ),
    "preStart": (
        {"preStart": {"exec": {"command": ["/opt/reset"]}}},
        [({}, "Add the program to {}policy.exec.allow"), (at(("policy", "exec", "allow"), ["/opt/reset"]), "")],
    ),
    "inject: cdi": (
        {"allocate": {"inject": "cdi"}},
        [({}, "Set {}daemonset.cdiSpecDir"), (at(("daemonset", "cdiSpecDir"), "/var/run/cdi"), "")],
    ),
    "mount": (
        MOUNT,
        [
            ({}, "to {}daemonset.hostMounts"),
            # Only whole parts of a path count.
            (at(("daemonset", "hostMounts"), ["/opt/x/li"]), "to {}daemonset.hostMounts"),
            (at(("daemonset", "hostMounts"), ["/opt/x"]), "Add the path to {}policy.mounts.allow"),
            (at(("policy", "mounts", "allow"), ["/opt/x/**"]), ""),
        ],
    ),
}
"""What a configuration demands -> the settings in turn, each with what is still refused then."""


def check_refusals(case: str, location: str, helm: str) -> None:
    demand, steps = REFUSED[case]
    inside = tuple(location.split(".")[:-1])
    values = over(MINIMAL, at((*inside, "config", "resources", FUSE), demand)) if inside else with_resource(**demand)
    for settings, text in steps:
        values = over(values, at(inside, settings))
        if not text:
            render(values, helm=helm)
            continue
        with pytest.raises(RenderError) as refused:
            render(values, helm=helm)
        assert text.format(location) in str(refused.value)
        assert f"Resource {FUSE} in pool {inside[-1] if inside else 'default'}" in str(refused.value)


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_the_configuration_demands_and_the_pods_do_not_have_is_refused_with_the_switch(
    case: str, helm: str
) -> None:
    check_refusals(case, "", helm)


@pytest.mark.parametrize("case", REFUSED)
def test_the_switch_of_a_pool_is_named_as_the_pools(case: str) -> None:
    check_refusals(case, "pools.lab.", "helm4")


def test_what_one_node_demands_is_refused_too() -> None:
    values = over(MINIMAL, {"config": {"nodes": {"n1": {"resources": {FUSE: EXEC}}}}})
    with pytest.raises(RenderError, match=f"Resource {FUSE} on node n1 of pool default"):
        render(values)
    # What comes from the defaults counts too.
    with pytest.raises(RenderError, match=r"policy\.exec\.allow"):
        render(over(MINIMAL, {"config": {"defaults": EXEC}}))


def checksums(daemonset: Manifest) -> dict[str, str]:
    annotations = daemonset["spec"]["template"]["metadata"].get("annotations", {})
    return {key: value for key, value in annotations.items() if "checksum" in key}


def test_a_changed_configuration_restarts_nothing() -> None:
    before, after = default(MINIMAL), default(with_resource(tokens=5))
    assert checksums(before) == {}
    assert before == after


def test_a_changed_configuration_restarts_the_pods_of_its_pool_where_that_is_asked_for() -> None:
    asked = over(MINIMAL, {"rolloutOnConfigChange": True, "pools": {"lab": {}}})
    changed = over(asked, {"pools": {"lab": {"config": {"resources": {FUSE: {"tokens": 5}}}}}})
    node = over(asked, {"pools": {"lab": {"config": {"nodes": {"n1": {"resources": {FUSE: {"tokens": 5}}}}}}}})
    bounded = over(asked, {"pools": {"lab": {"policy": {"resources": ["*"]}}}})
    before = daemonsets(render(asked))
    assert all(checksums(daemonset) for daemonset in before.values())
    seen = [checksums(before["lab"])]
    for values in (changed, node, bounded):
        after = daemonsets(render(values))
        assert checksums(after["default"]) == checksums(before["default"])
        seen.append(checksums(after["lab"]))
    assert len({str(one) for one in seen}) == 4
    assert daemonsets(render(asked)) == before


def test_a_new_version_of_the_chart_alone_restarts_nothing() -> None:
    metadata = default(MINIMAL)["spec"]["template"]["metadata"]
    assert not {"helm.sh/chart", "app.kubernetes.io/version"} & metadata["labels"].keys()


def test_configmaps_are_mounted_as_directories_so_that_they_are_updated() -> None:
    daemonset = default(over(MINIMAL, {"policy": {"resources": ["*"]}}))
    mounts = {mount["name"]: mount for mount in agent(daemonset)["volumeMounts"]}
    assert mounts["config"] == {"name": "config", "mountPath": "/etc/genplug", "readOnly": True}
    assert not [mount for mount in mounts.values() if {"subPath", "subPathExpr"} & mount.keys()]
    for volume in pod(daemonset)["volumes"]:
        assert "items" not in volume.get("configMap", {})


def test_an_annotation_of_the_operators_own_takes_the_place_of_ours() -> None:
    own = {"kubectl.kubernetes.io/default-container": "other", "a.example/b": "c"}
    daemonset = default(over(MINIMAL, {"daemonset": {"podAnnotations": own}}))
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
def test_the_digest_wins_and_a_global_registry_takes_the_place_of_the_images(case: str) -> None:
    parts = case.split(" and ")
    image = {"tag": "edge"} if "tag" in parts else {}
    image |= {"digest": DIGEST} if "digest" in parts else {}
    image |= {"repository": "team/agent"} if "repository" in parts else {}
    registry = {"global": {"imageRegistry": "mirror.example:5000"}} if "registry" in parts else {}
    found = render(over(MINIMAL, {"image": image, "pools": {"lab": {}}, **registry}))
    images = {
        container["image"]
        for (kind, _), one in found.items()
        if kind in {"DaemonSet", "Pod"}
        for container in (pod(one) if kind == "DaemonSet" else one["spec"])["containers"]
    }
    assert images == {IMAGES[case]}


@pytest.mark.parametrize("helm", HELMS)
def test_what_is_off_by_default_is_not_there(helm: str) -> None:
    # Even where the cluster has every kind.
    found = render(MINIMAL, helm=helm, api_versions=["monitoring.coreos.com/v1"])
    assert set(found) == {
        ("ServiceAccount", "genplug"),
        ("ConfigMap", "genplug-config"),
        ("DaemonSet", "genplug"),
        ("Pod", "genplug-validate"),
    }
    assert found["Pod", "genplug-validate"]["metadata"]["annotations"]["helm.sh/hook"] == "test"
