"""SecurityContextConstraints admit the agent pods on OpenShift and permit nothing that the pods do not use."""

import pytest

from tests.support.chart import (
    HELMS,
    MINIMAL,
    Manifest,
    RenderError,
    get_agent,
    get_daemonsets,
    get_pod_spec,
    merge_values,
    render,
)

pytestmark = pytest.mark.helm

ENABLED = merge_values(MINIMAL, {"securityContextConstraints": {"create": True}})
OPENSHIFT = ["security.openshift.io/v1"]


def find_constraints(manifests: dict[tuple[str, str], Manifest]) -> Manifest:
    (constraints,) = [manifest for (kind, _), manifest in manifests.items() if kind == "SecurityContextConstraints"]
    return constraints


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("is_privileged", [False, True])
def test_constraints_permit_what_the_agent_pod_requests(helm: str, is_privileged: bool) -> None:  # noqa: FBT001
    own = {"type": "Localhost", "localhostProfile": "genplug.json"}
    pools = {
        "lab": {"daemonset": {"privileged": is_privileged}},
        "log": {"daemonset": {"kernelLog": "always", "seccompProfile": own}},
    }
    found = render(merge_values(ENABLED, {"pools": pools}), helm=helm, api_versions=OPENSHIFT)
    constraints = find_constraints(found)
    for daemonset in get_daemonsets(found).values():
        spec, security = get_pod_spec(daemonset), get_agent(daemonset)["securityContext"]
        assert constraints["users"] == [f"system:serviceaccount:devices:{spec['serviceAccountName']}"]
        sources = {source for volume in spec["volumes"] for source in volume if source != "name"}
        assert sources <= set(constraints["volumes"])
        assert constraints["allowHostDirVolumePlugin"] is True
        assert constraints["allowPrivilegedContainer"] >= security["privileged"]
        assert constraints["readOnlyRootFilesystem"] is security["readOnlyRootFilesystem"] is True
        assert constraints["requiredDropCapabilities"] == ([] if is_privileged else security["capabilities"]["drop"])
    assert constraints["allowedCapabilities"] == ["SYSLOG"]
    profiles = ["*"] if is_privileged else ["localhost/genplug.json", "runtime/default"]
    assert constraints["seccompProfiles"] == profiles


def test_constraints_forbid_privileged_containers_unless_a_pool_is_privileged() -> None:
    constraints = find_constraints(render(ENABLED, api_versions=OPENSHIFT))
    assert (constraints["allowedCapabilities"], constraints["seccompProfiles"]) == ([], ["runtime/default"])
    permissions = [key for key, value in constraints.items() if key.startswith("allow") and value]
    assert permissions == ["allowHostDirVolumePlugin"]


@pytest.mark.parametrize("helm", HELMS)
def test_constraints_are_rejected_on_a_cluster_without_their_api(helm: str) -> None:
    with pytest.raises(RenderError, match=r"does not have the API security\.openshift\.io/v1: expected OpenShift"):
        render(ENABLED, helm=helm)
    forced = merge_values(ENABLED, {"securityContextConstraints": {"force": True}})
    assert find_constraints(render(forced, helm=helm))["metadata"]["name"] == "genplug.devices"


def test_test_pod_uses_the_account_that_the_constraints_admit() -> None:
    found = render(ENABLED, api_versions=OPENSHIFT)
    account = found["Pod", "genplug-validate"]["spec"]["serviceAccountName"]
    assert find_constraints(found)["users"] == [f"system:serviceaccount:devices:{account}"]
