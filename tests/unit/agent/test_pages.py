"""The pages of --listen, asked over HTTP of an agent that runs."""

import asyncio
import json
import socket
import subprocess
import urllib.error
import urllib.request

from genplug.agent import Agent
from genplug.observe.events import Event
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.outputs import check_output

CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x: {devices: [{glob: /dev/x*}]}
"""
LISTEN = ("127.0.0.1", 0)


async def got(agent: Agent, page: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """Return status and text of a page, asked from a thread: the loop must be free to answer."""

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{host}:{agent.listens_on}{page}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def test_ready_when_every_resource_has_a_stream(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        status, text = await got(agent, "/readyz?verbose")
        assert (status, text) == (200, "ready\n[+] a.io/x: 1 healthy, 0 unhealthy\n")


async def test_not_ready_without_a_kubelet_and_says_so(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        entries = record_events(agent)
        await node.kubelet.crash()
        await next_event(entries, Event.DISCONNECTED)
        status, text = await got(agent, "/readyz?verbose")
        assert status == 503
        assert "a.io/x: not registered" in text


async def test_a_refused_configuration_leaves_it_ready_and_is_shown(node: FakeNode) -> None:
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await node.kubelet.wait_registered("a.io/x")
        entries = record_events(agent)
        node.write_config(CONFIG.replace("glob", "golb"))
        await next_event(entries, Event.CONFIG_INVALID)
        status, text = await got(agent, "/readyz?verbose")
        assert status == 200
        assert "genplug.yaml:4:23: error[GP006]: unknown key 'golb'" in text
        metrics = (await got(agent, "/metrics"))[1]
        assert "genplug_config_last_reload_successful 0.0" in metrics


async def test_a_wrong_configuration_at_the_start_is_waited_out(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent("resources: [", listen=LISTEN) as agent:
        await next_event(record_events(agent), Event.CONFIG_INVALID)
        status, text = await got(agent, "/readyz?verbose")
        assert status == 503
        assert "no configuration is loaded" in text
        node.write_config(CONFIG)
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})


async def test_the_other_pages_answer(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, listen=LISTEN, node_name="node-a") as agent:
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        assert await got(agent, "/healthz") == (200, "ok\n")
        status = json.loads((await got(agent, "/statusz"))[1])
        check_output(status)
        assert (status["kind"], status["ready"], status["node"]) == ("Status", True, "node-a")
        assert status["resources"][0]["devices"][0]["paths"] == ["/dev/x0"]
        assert (await got(agent, "/elsewhere"))[0] == 404
        assert 'genplug_devices{resource="a.io/x",state="healthy"} 1.0' in (await got(agent, "/metrics"))[1]


async def test_of_hundreds_of_mistakes_the_first_ones_and_the_number_are_told(node: FakeNode) -> None:
    wrong = "".join(f"  a.io/x{number}: {{devices: [{{golb: /dev/x}}]}}\n" for number in range(100))
    async with node.run_agent(CONFIG.rsplit("\n", 2)[0] + "\n" + wrong, listen=LISTEN) as agent:
        refused = await next_event(record_events(agent), Event.CONFIG_INVALID)
    assert refused.text.count("error[") == 20
    assert refused.text.endswith("and 80 more; `genplug validate` prints them all")


def addresses() -> list[str]:
    """The addresses of this machine that are not loopback."""
    found = subprocess.run(["hostname", "-I"], check=True, capture_output=True, text=True).stdout.split()
    return [f"[{one}]" if ":" in one else one for one in found]


async def test_the_whole_status_is_told_on_this_host_only(node: FakeNode) -> None:
    async with node.run_agent(CONFIG, listen=("", 0)) as agent:
        await node.kubelet.wait_registered("a.io/x")
        assert (await got(agent, "/statusz"))[0] == 200
        for address in addresses():
            assert (await got(agent, "/healthz", address))[0] == 200
            status, text = await got(agent, "/statusz", address)
            assert (status, text) == (403, "/statusz is told to callers on this host only; see genplug status\n")


async def test_every_address_means_those_of_ip_version_6_too(node: FakeNode) -> None:
    assert socket.has_dualstack_ipv6()
    async with node.run_agent(CONFIG, listen=("", 0)) as agent:
        await node.kubelet.wait_registered("a.io/x")
        assert (await got(agent, "/statusz", "[::1]"))[0] == 200
