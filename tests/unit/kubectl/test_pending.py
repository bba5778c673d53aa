"""Why a pod waits: one test for each cause, on objects as the API server returns them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from genplug.kubectl.analysis import Analysis, Cause
from genplug.kubectl.causes import find_similar
from genplug.kubectl.objects import decode_node, decode_pod
from genplug.kubectl.pending import analyze, build_use, list_relevant_nodes
from genplug.kubectl.pending_text import format_analysis
from genplug.kubectl.reasons import AgentReasons, DeviceFailure, ResourceReasons
from tests.support.kubectl import Object, make_node, make_pod

THING = "test.example/thing"
NOW = 1_795_800_600.0
TAINT = {"key": "dedicated", "value": "ml", "effect": "NoSchedule"}


def build_container(name: str = "main", **requests: int) -> Object:
    counts = {f"test.example/{resource}": str(count) for resource, count in requests.items()}
    return {"name": name, "resources": {"requests": counts, "limits": counts}}


def build_pending(*containers: Object, message: str = "0/1 nodes are available", **spec: Any) -> Object:
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]
    return make_pod("waiting", containers=containers, spec=spec, status={"phase": "Pending", "conditions": conditions})


def build_holder(name: str, node: str, *, priority: int = 0, namespace: str = "default", **requests: int) -> Object:
    return make_pod(
        name,
        namespace=namespace,
        node=node,
        containers=[build_container("main", **requests)],
        spec={"priority": priority},
    )


def build_node(name: str, things: int | None = None, healthy: int | None = None, **options: Any) -> Object:
    capacity = None if things is None else {THING: things}
    return make_node(name, capacity=capacity, allocatable=capacity if healthy is None else {THING: healthy}, **options)


def explain(
    pod: Object,
    nodes: Sequence[Object],
    pods: Sequence[Object] = (),
    agents: Mapping[str, AgentReasons] | None = None,
) -> Analysis:
    uses = [use for item in pods if (use := build_use(decode_pod(item)))]
    analysis = analyze(decode_pod(pod), [decode_node(node) for node in nodes], uses, agents)
    assert format_analysis(analysis, NOW).startswith("default/waiting: ")
    return analysis


def test_unknown_name_suggests_the_most_similar_resource() -> None:
    pod = build_pending(build_container(thng=1))
    analysis = explain(pod, [build_node("node-1", 3), build_node("node-2")])
    assert analysis.cause is Cause.UNKNOWN_RESOURCE
    assert (
        analysis.summary == "No node has the resource test.example/thng; did you mean test.example/thing, which "
        "node-1 has."
    )
    assert analysis.actions[0] == "correct the name in resources of the container main: test.example/thing"


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("example.com/gpus", ("example.com/gpu", "example.org/gpu")),
        ("EXAMPLE.com/GPU", ("example.com/gpu", "example.org/gpu")),
        ("example.or/gpu", ("example.org/gpu", "example.com/gpu")),
        ("other.net/infiniband", ("example.com/infiniband",)),
        ("other.net/gpus", ()),
        ("example.com/tty", ()),
    ],
)
def test_similar_names_do_not_count_a_common_domain(name: str, similar: tuple[str, ...]) -> None:
    found = find_similar(name, ["example.com/gpu", "example.com/infiniband", "example.org/gpu"])
    assert found == similar


def test_unknown_name_without_similar_names_lists_the_resources_of_the_nodes() -> None:
    pod = build_pending({"name": "main", "resources": {"requests": {"nvidia.com/gpu": "1"}}})
    analysis = explain(pod, [build_node("node-1", 3)])
    assert analysis.summary == f"No node has the resource nvidia.com/gpu; the nodes have {THING}."


def test_unknown_name_that_an_agent_has_shows_why_it_is_not_offered() -> None:
    reasons = ResourceReasons(notes=("not registered: nothing matches /dev/thing*",))
    agents = {"node-1": AgentReasons("node-1", "genplug/a", resources={THING: reasons})}
    analysis = explain(build_pending(build_container(thing=1)), [build_node("node-1")], agents=agents)
    assert analysis.cause is Cause.UNKNOWN_RESOURCE
    assert analysis.details == (
        f"node-1: the agent has {THING}, and does not offer it: not registered: nothing matches /dev/thing*",
    )


def test_resource_without_devices_shows_the_reason_of_the_agent() -> None:
    pod, nodes = build_pending(build_container(thing=1)), [build_node("node-1", 0), build_node("node-2", 0)]
    assert list_relevant_nodes(explain(pod, nodes)) == ("node-1", "node-2")
    agents = {
        "node-1": AgentReasons(
            "node-1", "genplug/a", resources={THING: ResourceReasons(notes=("nothing matches /dev/thing*",))}
        ),
        "node-2": AgentReasons("node-2", error="no agent of genplug runs on the node"),
    }
    analysis = explain(pod, nodes, agents=agents)
    assert analysis.cause is Cause.NO_DEVICES
    assert analysis.summary == (
        f"No node has a device of {THING}: node-1, node-2 report 0: nothing matches /dev/thing*."
    )
    assert analysis.details == ("node-2: no agent of genplug runs on the node",)


def test_resource_that_the_policy_refuses_is_named() -> None:
    agents = {"node-1": AgentReasons("node-1", "genplug/a", withdrawn=(THING,))}
    analysis = explain(build_pending(build_container(thing=1)), [build_node("node-1", 0)], agents=agents)
    assert "the policy of the agent genplug/a refuses the resource" in analysis.summary


def test_request_above_the_largest_node_adds_the_containers() -> None:
    pod = build_pending(build_container(thing=2), build_container("other", thing=2))
    analysis = explain(pod, [build_node("node-1", 3), build_node("node-2", 1)])
    assert analysis.cause is Cause.TOO_MANY
    assert analysis.summary == (
        f"The pod requests 4 {THING} (containers: main 2, other 2), and no node has more than 3 (node-1)."
    )


@pytest.mark.parametrize(
    ("cause", "node", "spec", "text", "action"),
    [
        (
            Cause.TAINT,
            {"taints": [TAINT]},
            {},
            "has the taint dedicated=ml:NoSchedule, which the pod does not tolerate",
            "add to tolerations of the pod: {key: dedicated, operator: Equal, value: ml, effect: NoSchedule}",
        ),
        (Cause.CORDONED, {"is_unschedulable": True}, {}, "is cordoned", "uncordon the node: kubectl uncordon node-1"),
        (
            Cause.NOT_READY,
            {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]},
            {},
            "is unreachable (taint node.kubernetes.io/unreachable:NoSchedule)",
            "check the kubelet of node-1: kubectl describe node node-1",
        ),
        (
            Cause.NODE_SELECTOR,
            {"labels": {"zone": "b"}},
            {"nodeSelector": {"zone": "a"}},
            "does not match nodeSelector: zone=a is required, and the node has 'b'",
            "correct nodeSelector of the pod, which requires zone=a",
        ),
        (
            Cause.NODE_AFFINITY,
            {},
            {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "gen", "operator": "Gt", "values": ["3"]}]}
                            ]
                        }
                    }
                }
            },
            "does not match the required nodeAffinity: gen>3 is required, and the node has no such label",
            "correct the required nodeAffinity of the pod, or the labels of node-1",
        ),
    ],
)
def test_excluded_node_is_named_with_its_reason(
    cause: Cause, node: Object, spec: Object, text: str, action: str
) -> None:
    analysis = explain(build_pending(build_container(thing=1), **spec), [build_node("node-1", 3, **node)])
    assert analysis.cause is cause
    assert analysis.summary == f"node-1 has 3 free {THING}, but it {text}."
    assert analysis.actions[0] == action


def test_excluded_nodes_are_counted_by_their_first_obstacle() -> None:
    nodes = [
        build_node("node-1", 3, taints=[TAINT]),
        build_node("node-2", 3, is_unschedulable=True, taints=[TAINT]),
        build_node("node-3", 1, taints=[TAINT]),
        build_node("node-4"),
    ]
    analysis = explain(build_pending(build_container(thing=2)), nodes)
    assert analysis.summary == (
        f"The 2 nodes with enough {THING} are excluded: 1 with a taint that the pod does not tolerate (node-1), "
        "1 cordoned (node-2)."
    )


def test_unhealthy_devices_are_named_with_reason_and_time() -> None:
    failure = DeviceFailure("thing1", "/dev/thing1 is gone", "2026-11-27T17:22:17Z")
    agents = {"node-1": AgentReasons("node-1", "genplug/a", resources={THING: ResourceReasons((failure,))})}
    analysis = explain(build_pending(build_container(thing=3)), [build_node("node-1", 3, 2)], agents=agents)
    assert analysis.cause is Cause.UNHEALTHY
    assert analysis.summary == (
        f"The pod requests 3 {THING}, and only 2 of 3 on node-1 are healthy: thing1: /dev/thing1 is gone "
        "(since 2026-11-27T17:22:17Z)."
    )
    assert analysis.actions == (
        "repair thing1 on node-1: /dev/thing1 is gone",
        f"see each device of node-1: kubectl exec --namespace genplug a -- genplug status -o wide {THING}",
        f"request at most 2 {THING} in a pod",
    )


def test_devices_in_use_are_listed_with_their_holders_and_the_nodes_that_are_excluded() -> None:
    nodes = [build_node("node-1", 3), build_node("node-2", 4, is_unschedulable=True)]
    pods = [build_holder("small", "node-1", thing=1), build_holder("large", "node-1", thing=2, namespace="ml")]
    analysis = explain(build_pending(build_container(thing=1)), nodes, pods)
    assert analysis.cause is Cause.IN_USE
    assert analysis.summary == (
        f"All 3 {THING} that the pod can use, on node-1, are in use: default/small (1, priority 0), "
        "ml/large (2, priority 0)."
    )
    assert analysis.details == ("node-2 has 4 free, but it is cordoned",)
    assert analysis.actions[:3] == (
        "wait until a pod that holds devices ends",
        "give the pod a priority class with a value above 0, so that it preempts a pod",
        "uncordon the node: kubectl uncordon node-2",
    )


def test_pods_with_a_lower_priority_can_be_preempted_unless_the_pod_never_preempts() -> None:
    nodes, pods = [build_node("node-1", 1)], [build_holder("low", "node-1", thing=1)]
    analysis = explain(build_pending(build_container(thing=1), priority=5), nodes, pods)
    assert analysis.actions[0] == "wait: the scheduler can preempt default/low, with a lower priority than 5"
    never = build_pending(build_container(thing=1), priority=5, preemptionPolicy="Never")
    assert explain(never, nodes, pods).actions[1] == (
        "let the pod preempt default/low: use a priority class without preemptionPolicy: Never"
    )


def test_pod_that_is_being_deleted_holds_its_devices_and_an_ended_pod_does_not() -> None:
    deleted = build_holder("deleted", "node-1", thing=1)
    deleted["metadata"]["deletionTimestamp"] = "2026-11-27T17:29:00Z"
    ended = build_holder("ended", "node-1", thing=1)
    ended["status"] = {"phase": "Failed"}
    nodes = [build_node("node-1", 1)]
    analysis = explain(build_pending(build_container(thing=1)), nodes, [deleted, ended])
    assert "default/deleted (1, priority 0, being deleted)" in analysis.summary
    assert "ended" not in analysis.summary
    assert analysis.actions[0] == "wait until default/deleted is deleted: the deletion has begun"
    assert explain(build_pending(build_container(thing=1)), nodes, [ended]).cause is None


def test_devices_reserved_for_a_pod_with_a_higher_priority_are_in_use() -> None:
    reserved = build_holder("preemptor", "", thing=1, priority=9)
    reserved["status"] = {"phase": "Pending", "nominatedNodeName": "node-1"}
    nodes = [build_node("node-1", 1)]
    analysis = explain(build_pending(build_container(thing=1)), nodes, [reserved])
    assert "default/preemptor (1, priority 9, reserved)" in analysis.summary
    higher = build_pending(build_container(thing=1), priority=10)
    assert explain(higher, nodes, [reserved]).cause is None


def test_shortage_of_another_resource_is_shown_with_the_free_devices() -> None:
    pod = build_pending({"name": "main", "resources": {"requests": {"cpu": "7500m", THING: "1"}}})
    other = make_pod("other", node="node-1", containers=[{"name": "a", "resources": {"requests": {"cpu": "1"}}}])
    analysis = explain(pod, [build_node("node-1", 3)], [other])
    assert analysis.cause is Cause.SHORTAGE
    assert analysis.summary == (f"node-1 has 3 free {THING}, but it has 7 of 8 cpu free, and the pod requests 7500m.")


def test_resources_on_different_nodes_have_no_common_node() -> None:
    nodes = [build_node("node-1", 3), make_node("node-2", capacity={"test.example/other": 1})]
    analysis = explain(build_pending(build_container(thing=1, other=1)), nodes)
    assert analysis.cause is Cause.NO_COMMON_NODE
    assert analysis.summary == (
        f"No node has all requested resources at the same time: {THING} on node-1, test.example/other on node-2."
    )


def test_cause_of_each_resource_is_shown() -> None:
    analysis = explain(build_pending(build_container(thing=4, thng=1)), [build_node("node-1", 3)])
    assert analysis.cause is Cause.UNKNOWN_RESOURCE
    assert analysis.details == (f"The pod requests 4 {THING}, and no node has more than 3 (node-1).",)


def test_rules_that_are_not_evaluated_are_named_with_the_message_of_the_scheduler() -> None:
    spread = [{"whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1, "topologyKey": "zone"}]
    pod = build_pending(build_container(thing=1), message="0/1 nodes are available", topologySpreadConstraints=spread)
    analysis = explain(pod, [build_node("node-1", 3)])
    assert analysis.cause is None
    assert analysis.not_evaluated == ("topology spread constraints",)
    assert analysis.summary == (
        "node-1 has all requested devices, so another rule of the pod prevents scheduling: topology spread "
        "constraints; the scheduler reports: 0/1 nodes are available"
    )


def test_missing_volume_precedes_the_devices() -> None:
    message = 'persistentvolumeclaim "data" not found'
    analysis = explain(build_pending(build_container(thing=4), message=message), [build_node("node-1", 3)])
    assert analysis.cause is Cause.VOLUME
    assert message in analysis.summary
    assert f"The pod requests 4 {THING}" in analysis.details[0]


@pytest.mark.parametrize(
    ("cause", "spec", "status", "summary"),
    [
        (
            Cause.GATED,
            {"schedulingGates": [{"name": "example.com/quota"}]},
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
            "The pod is not ready for scheduling: it has the scheduling gates example.com/quota.",
        ),
        (
            Cause.NO_SCHEDULER,
            {"schedulerName": "batch"},
            {},
            "No scheduler has examined the pod: no scheduler with the name batch responds.",
        ),
        (Cause.NO_SCHEDULER, {}, {}, "The scheduler has not examined the pod yet."),
        (
            Cause.NOT_WAITING,
            {"nodeName": "node-1"},
            {"phase": "Running"},
            "The pod does not wait: it runs on node-1.",
        ),
        (
            Cause.NOT_WAITING,
            {},
            {"phase": "Succeeded"},
            "The pod does not wait: it has ended, with the phase Succeeded.",
        ),
        (
            Cause.REFUSED,
            {"nodeName": "node-1"},
            {"phase": "Failed", "reason": "UnexpectedAdmissionError"},
            "The pod does not wait: it is Failed with the reason UnexpectedAdmissionError.",
        ),
        (
            Cause.CONTAINER,
            {"nodeName": "node-1"},
            {
                "phase": "Pending",
                "containerStatuses": [
                    {"name": "main", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
                ],
            },
            "The pod has its devices on node-1, and a container has not started: main: ErrImagePull: no such image.",
        ),
    ],
)
def test_pod_that_does_not_wait_for_a_node_is_described(
    cause: Cause, spec: Object, status: Object, summary: str
) -> None:
    pod = make_pod("waiting", containers=[build_container(thing=1)], spec=spec, status={"phase": "Pending", **status})
    analysis = explain(pod, [build_node("node-1", 3)])
    assert (analysis.cause, analysis.summary) == (cause, summary)


def test_table_has_the_first_holders_and_nodes() -> None:
    pods = [build_holder(f"holder-{number}", "node-0", thing=1) for number in range(7)]
    nodes = [build_node("node-0", 7), *(build_node(f"node-{number}", 0) for number in range(1, 25))]
    text = format_analysis(explain(build_pending(build_container(thing=1)), nodes, pods), NOW)
    assert "1 in use by default/holder-4 (priority 0, for 30m)" in text
    assert "default/holder-5 (priority" not in text
    assert "in use by 2 more pods" in text
    assert "and 5 more nodes; see -o json" in text
