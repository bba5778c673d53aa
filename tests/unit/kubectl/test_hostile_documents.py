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
from tests.support.kubectl import make_agent_pod, make_daemon_set, make_node, make_resource, make_status
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
