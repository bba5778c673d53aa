"""A glob whose search exceeds a limit delays no other resource, and is visible in readiness, status and metrics."""

from genplug.observe.events import Event
from genplug.spec.limits import MAX_CANDIDATES
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.http import get

ENDLESS, OTHER, NEW = (f"example.com/{name}" for name in ("endless", "other", "new"))
OTHER_SPEC = f"  {OTHER}: {{devices: [{{glob: '/dev/other*'}}]}}\n"


async def test_endless_search_is_visible_and_delays_no_other_resource(node: FakeNode) -> None:
    for number in range(60):
        node.link(f"/sys/loop/l{number}", ".")
    node.plug("/dev/endless0")
    node.plug("/dev/other0")
    first = CONFIG_HEADER + "resources:\n" + f"  {ENDLESS}: {{devices: [{{glob: '/dev/endless*'}}]}}\n" + OTHER_SPEC
    glob = "/sys/loop/*/*/*/*/*/*/zz"
    async with node.run_agent(first, listen=("127.0.0.1", 0)) as agent:
        await node.kubelet.wait_for_list(ENDLESS, healthy={"endless0"})
        events = record_events(agent)
        node.write_config(
            first.replace("'/dev/endless*'", f"['/dev/endless*', '{glob}']") + OTHER_SPEC.replace("other", "new")
        )
        node.plug("/dev/new0")
        await node.kubelet.wait_for_list(NEW, healthy={"new0"})
        node.unplug("/dev/other0")
        await node.kubelet.wait_for_list(OTHER, unhealthy={"other0"})
        stalled = await next_event(events, Event.SCAN_STALLED)
        assert stalled.facts["resource"] == ENDLESS
        reason = f"the glob '{glob}' examines more than 200000 directory entries"
        assert reason in stalled.text
        # The last known devices are kept.
        assert node.kubelet.devices(ENDLESS).healthy == {"endless0"}
        code, text = await get(agent, "/readyz?verbose")
        assert code == 503
        assert f"[-] {ENDLESS}: scan stalled: {reason}" in text
        _, metrics = await get(agent, "/metrics")
        assert f'genplug_scan_stalled{{resource="{ENDLESS}"}} 1.0' in metrics

        node.write_config(first)
        await next_event(events, Event.SCAN_RESUMED)
        assert (await get(agent, "/readyz"))[0] == 200


async def test_resource_that_exceeds_the_candidates_of_a_node_delays_no_other_resource(node: FakeNode) -> None:
    for number in range(15):
        node.link(f"/sys/loop/l{number}", ".")
    node.plug("/dev/other0")
    many = "".join(
        f"  example.com/many{number}: {{devices: [{{glob: '/sys/loop/*/*/*', exclude: [/sys/**]}}]}}\n"
        for number in range(MAX_CANDIDATES // 15**3 + 1)
    )
    async with node.run_agent(CONFIG_HEADER + "resources:\n" + many + OTHER_SPEC) as agent:
        events = record_events(agent)
        await node.kubelet.wait_for_list(OTHER, healthy={"other0"})
        stalled = await next_event(events, Event.SCAN_STALLED)
        assert f"of all resources match more than {MAX_CANDIDATES} paths together" in stalled.text
        # An event scans a resource again: the others leave it no more than before.
        node.plug("/dev/other1")
        await node.kubelet.wait_for_list(OTHER, healthy={"other0", "other1"})
        assert len([status.resource for status in agent.status.scans if status.stalls]) == 1
