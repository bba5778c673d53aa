"""Dynamic Resource Allocation: what the chart renders for the pools that use it, and only for them."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest

from genplug.allocation.device_class import build_device_classes
from genplug.cli.doctor import parse_agent_arguments
from genplug.cli.plan import configure
from genplug.config.load import load_text
from tests.chart.test_chart_notes import render_notes
from tests.chart.test_chart_pod import get_host_paths
from tests.support.chart import (
    HELMS,
    MINIMAL,
    Manifest,
    Manifests,
    RenderError,
    get_agent,
    get_daemonsets,
    get_pod_spec,
    load_yaml,
    merge_values,
    nest_value,
    render,
)

# In CI, where the tools are required, the other tests of the chart fail without it.
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the dev extra")
pytestmark = pytest.mark.helm

THING = "vendor.example/thing"
NAME = "genplug-dra.devices"
SERVED = nest_value(("config", "resources", THING), {"serve": "dra", "devices": [{"glob": "/dev/thing*"}]})
LAB: dict[str, Any] = {"pools": {"lab": SERVED}}
"""A pool with a resource that DRA serves, beside the pool default without DRA."""


def render_lab(*files: dict[str, Any], **options: Any) -> Manifests:
    return render(MINIMAL, LAB, *files, **options)


def list_classes(manifests: Manifests) -> dict[str, Manifest]:
    """Return the DeviceClasses by name, without labels."""
    classes = {name: dict(manifest) for (kind, name), manifest in manifests.items() if kind == "DeviceClass"}
    for name, manifest in classes.items():
        manifest["metadata"] = {"name": name}
    return classes


def test_chart_without_dra_renders_nothing_for_it() -> None:
    kinds = {"ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "DeviceClass"}
    never = {"dra": {"enabled": "never"}}
    for found in (render(MINIMAL), render(MINIMAL, never)):
        assert not kinds & {kind for kind, _ in found}
    assert kinds <= {kind for kind, _ in render_lab()}


def test_role_has_the_verbs_that_the_agent_uses_and_no_others() -> None:
    found = render_lab()
    assert found["ClusterRole", NAME]["rules"] == [
        {
            "apiGroups": ["resource.k8s.io"],
            "resources": ["resourceslices"],
            "verbs": ["list", "watch", "create", "update", "delete"],
        },
        {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
    ]
    binding = found["ClusterRoleBinding", NAME]
    assert binding["roleRef"]["name"] == NAME
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "genplug", "namespace": "devices"}]


def test_token_and_directories_are_mounted_in_pools_with_dra_only() -> None:
    daemonsets = get_daemonsets(render_lab())
    tokens = {pool: get_pod_spec(found)["automountServiceAccountToken"] for pool, found in daemonsets.items()}
    assert tokens == {"default": False, "lab": True}
    without, paths = (get_host_paths(daemonsets[pool]) for pool in ("default", "lab"))
    assert dict(paths.items() - without.items()) == {
        "/var/lib/kubelet/plugins_registry": ("/var/lib/kubelet/plugins_registry", False),
        "/var/lib/kubelet/plugins/genplug.io": ("/var/lib/kubelet/plugins/genplug.io", False),
        "/var/run/cdi": ("/host/var/run/cdi", False),
    }
    assert without.items() < paths.items()


def test_directories_of_another_kubelet_have_the_same_path_in_the_container() -> None:
    settings = {"pools": {"lab": {"daemonset": {"kubeletDir": "/var/lib/k0s/kubelet/", "cdiSpecDir": "/etc/cdi"}}}}
    daemonset = get_daemonsets(render_lab(settings, {"dra": {"driverName": "d.example"}}))["lab"]
    paths = get_host_paths(daemonset)
    for path in ("/var/lib/k0s/kubelet/plugins_registry", "/var/lib/k0s/kubelet/plugins/d.example"):
        assert paths[path] == (path, False)
    assert "/var/run/cdi" not in paths
    arguments = get_agent(daemonset)["args"]
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    # In the environment, so that `kubectl exec ... genplug plan` prints DeviceClasses of this driver.
    assert {"name": "GENPLUG_DRA_DRIVER", "value": "d.example"} in get_agent(daemonset)["env"]
    assert parse_agent_arguments(arguments[1:]) is not None
    # The other sockets of the kubelet remain at the default paths in the container.
    assert options["--kubelet-dir"] == "/var/lib/k0s/kubelet"
    assert options["--device-plugins-dir"] == paths["/var/lib/kubelet/device-plugins"][0]
    assert options["--pod-resources-dir"] == paths["/var/lib/k0s/kubelet/pod-resources"][0]


def test_agent_without_resources_of_dra_knows_the_name_of_its_former_driver() -> None:
    [daemonset] = get_daemonsets(render(MINIMAL, {"dra": {"driverName": "d.example"}})).values()
    assert {"name": "GENPLUG_DRA_DRIVER", "value": "d.example"} in get_agent(daemonset)["env"]


def test_resource_of_a_single_node_turns_dra_on_for_its_pool() -> None:
    node = nest_value(("pools", "lab", "config", "nodes", "lab-7", "defaults"), {"serve": "dra"})
    values = merge_values(merge_values(MINIMAL, LAB), nest_value(("pools", "lab", "config", "resources", THING), None))
    for found, expected in ((render(values), False), (render(values, node), True)):
        assert get_pod_spec(get_daemonsets(found)["lab"])["automountServiceAccountToken"] is expected


def test_existing_configmap_needs_an_explicit_setting() -> None:
    pool = {"config": {"existingConfigMap": "mine", "resources": None}}
    for dra, expected in (({}, False), ({"dra": {"enabled": "always"}}, True)):
        daemonset = get_daemonsets(render(MINIMAL, {"pools": {"lab": {**pool, **dra}}}))["lab"]
        assert get_pod_spec(daemonset)["automountServiceAccountToken"] is expected


@pytest.mark.parametrize("helm", HELMS)
def test_dra_is_rejected_before_kubernetes_1_34_dra_24(helm: str) -> None:
    with pytest.raises(RenderError, match=rf"(?s)Pool lab .*`serve: dra` is set for {THING}, but Kubernetes v1\.33\.9"):
        render_lab(helm=helm, kube_version="1.33.9")
    with pytest.raises(RenderError, match=r"(?s)because pools\.lab\.dra\.enabled is always.*to auto, or upgrade"):
        render(MINIMAL, {"pools": {"lab": {"dra": {"enabled": "always"}}}}, helm=helm, kube_version="1.33.9")
    assert render_lab(helm=helm, kube_version="1.34.0-gke.1")
    assert render(MINIMAL, helm=helm, kube_version="1.33.9")


def test_device_classes_are_those_of_the_plan() -> None:
    aliases = ["old.example/Thing_.A", "vendor.example/other"]
    own = nest_value(("pools", "lab", "config", "resources", THING, "aliases"), aliases)
    found = list_classes(render_lab(own, {"dra": {"driverName": "d.example"}}))
    text = f"""
        apiVersion: genplug.io/v1alpha1
        kind: DevicePluginConfig
        resources:
          {THING}: {{serve: dra, aliases: {json.dumps(aliases)}, devices: [{{glob: /dev/thing*}}]}}
    """
    resource = load_text(text, "plan.yaml").resources[THING]
    assert list(found) == sorted(found)
    assert found == {manifest["metadata"]["name"]: manifest for manifest in build_device_classes(resource, "d.example")}
    assert set(found) == {"thing.vendor.example", "thing.a.old.example", "other.vendor.example"}


def test_device_classes_are_those_of_the_values() -> None:
    settings: dict[str, Any] = {"names": {THING: "thing"}, "extendedResourceNames": False}
    (found,) = list_classes(render_lab({"dra": {"deviceClasses": settings}})).values()
    assert found["metadata"]["name"] == "thing"
    assert "extendedResourceName" not in found["spec"]
    assert not list_classes(render_lab({"dra": {"deviceClasses": {"create": False}}}))
    template = nest_value(("pools", "lab", "config", "resources"), {THING: None, "vendor.example/${driver}": {}})
    template["pools"]["lab"]["config"]["resources"]["vendor.example/${driver}"] = SERVED["config"]["resources"][THING]
    assert not list_classes(render_lab(template))
    assert ("ClusterRole", NAME) in render_lab(template)


def test_name_of_different_resources_in_two_pools_has_a_class_for_both() -> None:
    resource = {"serve": "dra", "aliases": [THING], "devices": [{"glob": "/dev/other*"}]}
    edge = nest_value(("pools", "edge", "config", "resources", "vendor.example/other"), resource)
    (expression,) = [
        selector["cel"]["expression"]
        for selector in list_classes(render_lab(edge))["thing.vendor.example"]["spec"]["selectors"]
    ]
    assert expression.endswith(f'.resource in ["vendor.example/other","{THING}"]')


def test_two_device_classes_with_one_name_are_rejected() -> None:
    aliases = nest_value(("pools", "lab", "config", "resources", THING, "aliases"), ["vendor.example/Thing"])
    with pytest.raises(
        RenderError, match=r"have the same name, thing\.vendor\.example\. Set dra\.deviceClasses\.names"
    ):
        render_lab(aliases)
    names = {"vendor.example/Thing": "capital.vendor.example"}
    assert len(list_classes(render_lab(aliases, {"dra": {"deviceClasses": {"names": names}}}))) == 2


def test_policy_denies_slices_of_other_nodes_and_drivers_dra_18() -> None:
    found = render_lab({"serviceAccount": {"name": "mine"}, "dra": {"driverName": "d.example"}})
    policy = found["ValidatingAdmissionPolicy", NAME]["spec"]
    assert policy["failurePolicy"] == "Fail"
    (condition,) = policy["matchConditions"]
    assert condition["expression"] == 'request.userInfo.username == "system:serviceaccount:devices:mine"'
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert rule["resources"] == ["resourceslices"]
    # Each verb of the role that writes is an operation that the policy checks.
    verbs = {verb.upper() for verb in found["ClusterRole", NAME]["rules"][0]["verbs"]} - {"LIST", "WATCH"}
    assert verbs == set(rule["operations"])
    assert {validation["reason"] for validation in policy["validations"]} == {"Forbidden"}
    assert [validation["expression"] for validation in policy["validations"]] == [
        'variables.node != ""',
        'variables.node == "" || variables.spec.?nodeName.orValue("") == variables.node',
        'variables.spec.driver == "d.example"',
    ]
    binding = found["ValidatingAdmissionPolicyBinding", NAME]["spec"]
    assert binding == {"policyName": NAME, "validationActions": ["Deny"]}


def test_account_of_other_pods_does_not_get_the_permissions() -> None:
    account: dict[str, Any] = {"serviceAccount": {"create": False}}
    with pytest.raises(
        RenderError, match=r"(?s)the pools lab have .* ServiceAccount is `default`.*serviceAccount\.create"
    ):
        render_lab(account)
    assert render(MINIMAL, account)
    account["serviceAccount"]["name"] = "mine"
    assert render_lab(account)["ClusterRoleBinding", NAME]["subjects"][0]["name"] == "mine"


def test_network_policy_lets_pools_with_dra_connect_to_the_api_server() -> None:
    enabled: dict[str, Any] = {"networkPolicy": {"enabled": True}}
    policy = render_lab(enabled)["NetworkPolicy", "genplug-dra"]["spec"]
    assert policy["podSelector"]["matchExpressions"] == [
        {"key": "genplug.io/pool", "operator": "In", "values": ["lab"]}
    ]
    assert policy["egress"] == [{"ports": [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]}]
    enabled["networkPolicy"]["apiServer"] = {"ports": [6444], "to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]}
    assert render_lab(enabled)["NetworkPolicy", "genplug-dra"]["spec"]["egress"] == [
        {"ports": [{"port": 6444, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]}
    ]
    assert ("NetworkPolicy", "genplug-dra") not in render(MINIMAL, enabled)
    assert ("NetworkPolicy", "genplug-dra") not in render_lab()


def test_notes_state_the_order_of_an_uninstallation_dra_24(tmp_path: Path) -> None:
    notes = render_notes(merge_values(MINIMAL, LAB), tmp_path)
    assert notes.index("kubectl get resourceclaims -A") < notes.index("helm uninstall genplug -n devices")
    assert "Terminating" not in render_notes(MINIMAL, tmp_path)


def test_pod_in_the_notes_has_a_claim_if_dra_serves_all_resources(tmp_path: Path) -> None:
    (text,) = re.findall(r"<<END\n(.*?)\n *END\n", render_notes(SERVED, tmp_path), re.DOTALL)
    template, pod = (load_yaml(document) for document in text.split("---\n"))
    for manifest in (template, pod):
        assert kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    (request,) = template["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"] == {"deviceClassName": "thing.vendor.example"}
    assert pod["spec"]["resourceClaims"][0]["resourceClaimTemplateName"] == template["metadata"]["name"]


def test_notes_state_what_an_existing_configmap_needs_for_dra(tmp_path: Path) -> None:
    def render_pool(**dra: str) -> str:
        pool: dict[str, Any] = {"config": {"existingConfigMap": "mine"}, "dra": dra}
        return render_notes(merge_values(MINIMAL, {"pools": {"lab": pool}}), tmp_path)

    warning, classes = "pools.lab.dra.enabled auto means never", "creates no DeviceClass"
    found = {
        enabled: (warning in notes, classes in notes)
        for enabled in ("auto", "never", "always")
        if (notes := render_pool(enabled=enabled))
    }
    assert found == {"auto": (True, False), "never": (False, False), "always": (False, True)}
    assert warning in render_pool()
    (command,) = re.findall(r"exec ds/genplug-lab -- genplug (plan .*)", render_pool(enabled="always"))
    assert parse_plan(command.split()).config == ["/etc/genplug"]
    assert "auto means never" not in render_notes(MINIMAL, tmp_path)


def parse_plan(words: list[str]) -> argparse.Namespace:
    """Return the options of a command ``genplug plan``."""
    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args(words[1:])


def test_notes_warn_that_the_admission_policy_does_not_restrict_claims(tmp_path: Path) -> None:
    policy: dict[str, Any] = {"admissionPolicy": {"enabled": True, "resources": {THING: ["lab"]}}}
    text = "admissionPolicy.resources does not restrict claims"
    assert text in render_notes(merge_values(merge_values(MINIMAL, LAB), policy), tmp_path)
    assert text not in render_notes(merge_values(MINIMAL, policy), tmp_path)
    policy["admissionPolicy"]["enabled"] = False
    assert text not in render_notes(merge_values(merge_values(MINIMAL, LAB), policy), tmp_path)
