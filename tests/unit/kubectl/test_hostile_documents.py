"""Documents of any shape: what kubectl and agents print is input, and never ends a command with a traceback."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.cli.output import format_json
from genplug.kubectl.agent_status import decode_agent_status
from genplug.kubectl.discovery import Cluster, build_pools
from genplug.kubectl.fleet import build_fleet
from genplug.kubectl.fleet_document import build_document
from genplug.kubectl.fleet_text import format_fleet
from genplug.kubectl.objects import decode_config_map, decode_daemon_set, decode_node, decode_pod
from genplug.kubectl.pending import analyze, build_use
from genplug.kubectl.pending_text import build_document as build_pending_document
from genplug.kubectl.pending_text import format_analysis
from genplug.kubectl.reasons import decode_reasons
from genplug.kubectl.refusal import analyze_refusal, build_refusal_document, format_refusal, list_facts
from genplug.kubectl.workloads import analyze_creation, decode_workload, find_owned, list_create_errors
from tests.support.kubectl import make_agent_pod, make_daemon_set, make_node, make_pod, make_resource, make_status
from tests.support.outputs import check_output

ATOMS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just([]) | st.just({})
)


@st.composite
def damage(draw: st.DrawFn, document: dict[str, Any]) -> Any:
    """Return a document in which any values are replaced or removed."""

    def change(value: Any) -> Any:
        if draw(st.integers(0, 9)) == 0:
            return draw(ATOMS)
        if isinstance(value, dict):
            return {key: change(inner) for key, inner in value.items() if draw(st.integers(0, 19))}
        if isinstance(value, list):
            return [change(inner) for inner in value]
        return value

    changed = change(document)
    return changed if isinstance(changed, dict) else {}


@given(
    damage(make_node("node-1", capacity={"a.io/x": 2}, taints=[{"key": "a", "effect": "NoSchedule"}])),
    damage(make_daemon_set(pod_spec={"tolerations": [{"key": "a", "operator": "Exists"}]})),
    damage(make_agent_pod("node-1", waiting=("CrashLoopBackOff", "back-off"))),
    damage(make_status("node-1", [make_resource("a.io/x", healthy=1, unhealthy=1, used=1)])),
)
@settings(max_examples=60, deadline=None)
def test_damaged_documents_result_in_a_valid_status(node: Any, daemon_set: Any, pod: Any, status: Any) -> None:
    decode_config_map(node)
    nodes = {"node-1": decode_node(node)}
    agent = decode_pod(pod)
    pools = build_pools([decode_daemon_set(daemon_set)], [agent], nodes)
    answers = {(agent.namespace, agent.name): decode_agent_status(status)}
    fleet = build_fleet(Cluster(pools, nodes, ""), answers)
    check_output(build_document(fleet))
    assert format_json(build_document(fleet)).replace("\n", "").isprintable()
    for is_wide in (False, True):
        format_fleet(fleet, is_wide=is_wide)


WAITING = make_pod(
    "waiting",
    containers=[{"name": "main", "resources": {"requests": {"a.io/x": "2", "cpu": "1"}}}],
    spec={
        "nodeSelector": {"zone": "a"},
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "b", "operator": "Gt", "values": ["1"]}]}]
                }
            }
        },
        "tolerations": [{"key": "a", "operator": "Gt", "value": "1"}],
    },
    status={"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1"}]},
)
REFUSED = make_pod(
    "refused",
    node="node-1",
    status={
        "phase": "Failed",
        "reason": "UnexpectedAdmissionError",
        "message": "cannot allocate unregistered device a.io/x",
        "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "x", "message": "y"}}}],
    },
)


@given(
    damage(make_node("node-1", capacity={"a.io/x": 2}, taints=[{"key": "a", "effect": "NoSchedule"}])),
    damage(WAITING),
    damage(make_pod("holder", node="node-1", containers=WAITING["spec"]["containers"])),
    damage(make_status("node-1", [make_resource("a.io/x", healthy=1, unhealthy=1)])),
)
@settings(max_examples=60, deadline=None)
def test_damaged_documents_are_explained(node: Any, waiting: Any, holder: Any, status: Any) -> None:
    agents = {"node-1": decode_reasons("node-1", "genplug/agent", status)}
    uses = [use for use in [build_use(decode_pod(holder))] if use is not None]
    analysis = analyze(decode_pod(waiting), [decode_node(node)], uses, agents)
    check_output(build_pending_document([analysis]))
    assert format_analysis(analysis, 0).replace("\n", "").isprintable()


@given(
    damage(make_node("node-1", capacity={"a.io/x": 2})),
    damage(REFUSED),
    damage(make_status("node-1", [make_resource("a.io/x")])),
)
@settings(max_examples=60, deadline=None)
def test_damaged_documents_of_a_refused_pod_are_explained(node: Any, refused: Any, status: Any) -> None:
    refusal = analyze_refusal(decode_pod(refused))
    list(list_facts(refusal, decode_node(node), decode_reasons("node-1", "genplug/agent", status)))
    check_output(build_refusal_document(refusal))
    assert format_refusal(refusal).replace("\n", "").isprintable()


@given(damage(make_daemon_set()), damage({"reason": "FailedCreate", "message": "no", "involvedObject": {"uid": "a"}}))
@settings(max_examples=60, deadline=None)
def test_damaged_workload_is_explained(item: Any, event: Any) -> None:
    workload = decode_workload(item)
    find_owned(workload.uid, [item])
    errors = list_create_errors([event], ["a"]) or ["no"]
    check_output(build_pending_document([analyze_creation(workload, errors, [decode_pod(item)])]))
