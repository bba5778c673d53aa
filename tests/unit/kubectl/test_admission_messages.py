"""The texts of the kubelet and of genplug. Those marked as captured were returned by a kubelet of Kubernetes 1.37."""

import re

import pytest

from genplug.kubectl.admission_messages import RULES, Explanation, explain_refusal, explain_waiting, is_refusal

THING = "test.example/thing"
REFUSED = "Pod was rejected: Allocate failed due to {}, which is unexpected"
FAILED_PRECONDITION = REFUSED.format("rpc error: code = FailedPrecondition desc = {}")


def explain(message: str, reason: str = "UnexpectedAdmissionError") -> Explanation:
    explanation = explain_refusal(reason, message)
    assert explanation, f"no rule for {message}"
    assert not re.search(r"(?<!\$)\{", explanation.explanation + "".join(explanation.actions))
    assert explanation.actions
    return explanation


@pytest.mark.parametrize(
    ("cause", "text", "part"),
    [
        # Captured.
        (
            "limitPerContainer",
            (
                "test.example/thing cannot be allocated to a container: it requests 3, and share.maxPerContainer is 2 "
                "(/etc/genplug/genplug.yaml:15:3); request fewer in the container, or "
                "change the resource in the configuration"
            ),
            (
                "a container requests 3 test.example/thing, and share.maxPerContainer of the configuration permits 2 "
                "(/etc/genplug/genplug.yaml:15:3)"
            ),
        ),
        # Captured.
        (
            "mountSourceMissing",
            (
                "test.example/thing device null cannot be allocated to a container: the mount source "
                "/srv/firmware/a does not exist"
            ),
            "the source /srv/firmware/a of a mount for test.example/thing device null does not exist.",
        ),
        (
            "sameDevice",
            (
                "test.example/thing cannot be allocated to a container: a-0 and a-1 are the same device (/dev/a), and "
                "share.distinct is true (genplug.yaml:3:3); request fewer in the container, or "
                "change the resource in the configuration"
            ),
            "the kubelet chose a-0 and a-1, which are shares of the same device",
        ),
        (
            "deviceReplaced",
            (
                "test.example/thing device a cannot be allocated to a container: /dev/a is now char 1:3 and was "
                "char 1:5 when it was found"
            ),
            "it is now char 1:3 and was char 1:5",
        ),
        (
            "samePath",
            (
                "test.example/thing devices a and b cannot be allocated to a container: /dev/a and /dev/b both map to "
                "/dev/x in the container; set different container paths with 'as'"
            ),
            "the same path /dev/x",
        ),
        (
            "deviceGone",
            "test.example/thing device a cannot be allocated to a container: /dev/a does not exist",
            "/dev/a does not exist",
        ),
        (
            "policy",
            (
                "test.example/thing device a cannot be allocated to a container: the mount of /etc is refused by "
                "'mounts.allow' of /etc/genplug-policy/policy.yaml, which allows /srv/**"
            ),
            "the mount of /etc is refused by 'mounts.allow' of /etc/genplug-policy/policy.yaml, which allows /srv/**.",
        ),
        (
            "genplugRefused",
            "test.example/thing cannot be allocated to a container: '${serial}' refers to an attribute",
            "'${serial}' refers to an attribute",
        ),
    ],
)
def test_refusal_of_genplug_is_explained(cause: str, text: str, part: str) -> None:
    explanation = explain(FAILED_PRECONDITION.format(text))
    assert (explanation.cause, explanation.resource) == (cause, THING)
    assert explanation.explanation.startswith("genplug refused: ")
    assert part in explanation.explanation


def test_device_that_the_agent_removed_is_explained() -> None:
    text = f"{THING} has no device 'a' on this node: it was removed from the hardware or the configuration"
    explanation = explain(REFUSED.format(f"rpc error: code = NotFound desc = {text}"))
    assert (explanation.cause, explanation.resource) == ("unknownDevice", THING)


@pytest.mark.parametrize(
    ("cause", "text", "resource"),
    [
        # Captured.
        (
            "notEnoughDevices",
            f"requested number of devices unavailable for {THING}. Requested: 2, Available: 1",
            THING,
        ),
        ("noHealthyDevices", f"no healthy devices present; cannot allocate unhealthy devices {THING}", THING),
        (
            "previousDevicesUnhealthy",
            f"previously allocated devices are no longer healthy; cannot allocate unhealthy devices {THING}",
            THING,
        ),
        ("unregistered", f"cannot allocate unregistered device {THING}", THING),
        ("unregistered", f"can't allocate unregistered device {THING}", THING),
        ("agentEnded", "rpc error: code = Unavailable desc = error reading from server: EOF", ""),
        ("noResponse", "no containers return in allocation response &AllocateResponse{}", ""),
        ("preferredAllocation", "device plugin GetPreferredAllocation rpc failed with err: rpc error: code = X", ""),
        ("endpointStopped", "endpoint &{0xc000 test.example/thing} has been stopped", ""),
        ("unknownPlugin", f"unknown Device Plugin {THING}", THING),
        (
            "checkpoint",
            'failed to write checkpoint file "kubelet_internal_checkpoint": no space left on device',
            "",
        ),
        (
            "changedRequest",
            f'pod "1" container "main" changed request for resource "{THING}" from 1 to 2',
            THING,
        ),
        ("lessThanRequired", "unexpectedly allocated less resources than required. Requested: 2, Got: 1", ""),
        ("notEnoughCpus", "not enough cpus available to satisfy request: requested=4, available=2", ""),
        ("notEnoughMemory", "[memorymanager] failed to find the default preferred hint", ""),
        ("otherPlugin", "rpc error: code = Unknown desc = no such GPU", ""),
    ],
)
def test_refusal_of_the_kubelet_is_explained(cause: str, text: str, resource: str) -> None:
    explanation = explain(REFUSED.format(text))
    assert (explanation.cause, explanation.resource) == (cause, resource)
    assert "which is unexpected" not in explanation.explanation


@pytest.mark.parametrize(
    ("cause", "reason", "text"),
    [
        (
            "nodeFull",
            f"OutOf{THING}",
            f"Node didn't have enough resource: {THING}, requested: 1, used: 1, capacity: 1",
        ),
        ("nodeFull", "OutOfcpu", "Node didn't have enough resource: cpu, requested: 1, used: 1, capacity: 1"),
        ("topology", "TopologyAffinityError", "Resources cannot be allocated with Topology locality"),
        (
            "smtAlignment",
            "SMTAlignmentError",
            "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2",
        ),
        ("emptySharedPool", "EmptyPodSharedPoolError", "the pod has no shared CPUs"),
        (
            "nodeAffinity",
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (
            "taint",
            "TaintToleration",
            "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
        ),
        (
            "hostPort",
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ),
        ("nodeName", "NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name"),
        ("evicted", "Evicted", "The node had condition: [DiskPressure]. "),
        ("nodeShutdown", "NodeShutdown", "Pod was rejected as the node is shutting down."),
        ("sysctl", "SysctlForbidden", 'forbidden sysctl: "net.core.somaxconn" not allowlisted'),
        ("otherPredicate", "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"),
        ("otherPredicate", "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"),
    ],
)
def test_other_reason_is_explained(cause: str, reason: str, text: str) -> None:
    assert explain(f"Pod was rejected: {text}", reason).cause == cause


def test_text_of_another_reason_is_not_explained() -> None:
    assert explain_refusal("TopologyAffinityError", "a text that no kubelet has") is None
    assert explain_refusal("UnexpectedAdmissionError", "Pod was rejected: a text that no kubelet has") is None
    assert explain_refusal("DeadlineExceeded", "Pod was active on the node longer than the specified deadline") is None


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("UnexpectedAdmissionError", True),
        (f"OutOf{THING}", True),
        ("TopologyAffinityError", True),
        ("DeadlineExceeded", False),
        ("", False),
    ],
)
def test_refusals_have_certain_reasons(reason: str, expected: bool) -> None:  # noqa: FBT001
    assert is_refusal(reason) is expected


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        ("endpointMissing", f"endpoint not found in cache for a registered resource: {THING}"),
        (
            "preStart",
            "device plugin PreStartContainer rpc failed with err: rpc error: code = FailedPrecondition desc = x",
        ),
        ("cdiUnresolved", "failed to inject CDI devices: unresolvable CDI devices vendor.com/gpu=0"),
        ("cdiDisabled", "CDI devices ([a]) requested but CDI support is explicitly disabled"),
        ("nodeVanished", 'error gathering device information while adding custom device "/dev/a": no such file'),
    ],
)
def test_container_that_does_not_start_is_explained(cause: str, text: str) -> None:
    explanation = explain_waiting(text)
    assert explanation
    assert explanation.cause == cause


def test_groups_of_each_pattern_suffice_for_its_texts() -> None:
    for rule in RULES:
        groups = dict.fromkeys(re.compile(rule.pattern).groupindex, "x")
        for text in (rule.explanation, *rule.actions):
            assert text.format(**groups)
