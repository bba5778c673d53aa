"""The HTTP endpoints of ``--listen``, requested from a running agent."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from concurrent.futures import Future

import pytest

from genplug.agent import Agent
from genplug.observe.events import Event, EventLog
from genplug.observe.http import StatusServer, StatusSource, wait_for_loop
from genplug.observe.metrics import Metrics
from genplug.observe.status import ConfigStatus, Status
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.network import outside_addresses
from tests.support.outputs import check_output

CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x: {devices: [{glob: /dev/x*}]}
"""
LISTEN = ("127.0.0.1", 0)


def request(port: int | None, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """Return the status code and the text of a response."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def get(agent: Agent, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """Request an endpoint from a thread, because the event loop must be free to respond."""
    return await asyncio.to_thread(request, agent.http_port, path, host)


async def test_agent_is_ready_when_every_resource_has_a_stream(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        assert await get(agent, "/readyz?verbose") == (200, "ready\n[+] a.io/x: 1 healthy, 0 unhealthy\n")


async def test_agent_without_a_kubelet_is_not_ready(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        log_events = record_events(agent)
        await node.kubelet.crash()
        await next_event(log_events, Event.DISCONNECTED)
        code, text = await get(agent, "/readyz?verbose")
        assert code == 503
        assert "a.io/x: not registered" in text


async def test_agent_remains_ready_when_the_configuration_becomes_invalid(node: FakeNode) -> None:
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await node.kubelet.wait_registered("a.io/x")
        log_events = record_events(agent)
        node.write_config(CONFIG.replace("glob", "golb"))
        await next_event(log_events, Event.CONFIG_INVALID)
        code, text = await get(agent, "/readyz?verbose")
        assert code == 200
        assert "[!] the newest configuration is invalid, so the previous configuration remains active:\n" in text
        assert "genplug.yaml:4:23: error[GP006]: unknown key 'golb'" in text
        metrics = (await get(agent, "/metrics"))[1]
        assert "genplug_config_last_reload_successful 0.0" in metrics


async def test_agent_with_an_invalid_configuration_waits_for_a_valid_configuration(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent("resources: [", listen=LISTEN) as agent:
        await next_event(record_events(agent), Event.CONFIG_INVALID)
        code, text = await get(agent, "/readyz?verbose")
        assert code == 503
        assert "no configuration is loaded" in text
        node.write_config(CONFIG)
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})


async def test_endpoints_respond_with_health_status_and_metrics(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, listen=LISTEN, node_name="node-a") as agent:
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        assert await get(agent, "/healthz") == (200, "ok\n")
        status = json.loads((await get(agent, "/statusz"))[1])
        check_output(status)
        assert (status["kind"], status["ready"], status["node"]) == ("Status", True, "node-a")
        assert status["resources"][0]["devices"][0]["paths"] == ["/dev/x0"]
        assert 'genplug_devices{resource="a.io/x",state="healthy"} 1.0' in (await get(agent, "/metrics"))[1]
        code, text = await get(agent, "/elsewhere")
        assert code == 404
        assert "/healthz, /readyz, /readyz?verbose, /metrics and /statusz" in text


def fail_on_failure(path: str, error: Exception) -> None:
    pytest.fail(f"the response to a request for {path} failed: {error!r}")


async def do_nothing() -> None:
    """Do not read the use of devices."""


async def test_health_fails_while_the_event_loop_is_blocked() -> None:
    status = Status("1.2.3", None, ConfigStatus(), "", ())
    source = StatusSource(lambda: status, do_nothing)
    server = StatusServer(*LISTEN, source, Metrics(lambda: status, EventLog()), fail_on_failure)
    responses: list[tuple[int, str]] = []
    client = threading.Thread(target=lambda: responses.append(request(server.port, "/healthz")))
    client.start()
    # This blocks the loop until the client has its response.
    client.join()
    server.close()
    assert responses[0][0] == 503
    assert "the event loop has not run a task within 2 s" in responses[0][1]


async def test_error_of_an_invalid_configuration_is_cut_after_twenty_errors(node: FakeNode) -> None:
    wrong = "".join(f"  a.io/x{number}: {{devices: [{{golb: /dev/x}}]}}\n" for number in range(100))
    async with node.run_agent(CONFIG.rsplit("\n", 2)[0] + "\n" + wrong, listen=LISTEN) as agent:
        invalid = await next_event(record_events(agent), Event.CONFIG_INVALID)
    assert invalid.text.count("error[") == 20
    assert invalid.text.endswith("and 80 more; `genplug validate` prints them all")


SECRET_CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x:
    devices: [{glob: /dev/x*}]
    allocate: {env: {DB_PASSWORD: hunter2, "wrong name": hunter2}}
"""


@pytest.mark.network
@pytest.mark.parametrize("first", [CONFIG, None])
async def test_clients_on_other_hosts_receive_codes_and_locations_of_errors_only(
    node: FakeNode, first: str | None
) -> None:
    async with node.run_agent(first or SECRET_CONFIG, listen=("", 0)) as agent:
        log_events = record_events(agent)
        if first is not None:
            await node.kubelet.wait_registered("a.io/x")
            node.write_config(SECRET_CONFIG)
        await next_event(log_events, Event.CONFIG_INVALID)
        assert "hunter2" in (await get(agent, "/readyz?verbose"))[1]
        for address in outside_addresses():
            for path in ("/readyz?verbose", "/statusz", "/metrics", "/healthz", "/", "/readyz"):
                assert "hunter2" not in (await get(agent, path, address))[1]
            text = (await get(agent, "/readyz?verbose", address))[1]
            assert "genplug.yaml:6:" in text
            assert "GP016" in text
            assert "wrong name" not in text


@pytest.mark.network
async def test_clients_on_other_hosts_receive_no_reasons_of_endpoints(node: FakeNode) -> None:
    node.kubelet.faults.refuse_register("refused because of hunter2")
    node.plug("/dev/x0")
    async with node.run_agent(CONFIG, listen=("", 0)) as agent:
        await next_event(record_events(agent), Event.REGISTRATION_FAILED)
        assert "hunter2" in (await get(agent, "/readyz?verbose"))[1]
        for address in outside_addresses():
            code, text = await get(agent, "/readyz?verbose", address)
            assert code == 503
            assert "[-] a.io/x: not registered" in text
            assert "hunter2" not in text


async def test_forwarded_request_of_another_client_is_not_local(node: FakeNode) -> None:
    async with node.run_agent(CONFIG, listen=LISTEN) as agent:
        await node.kubelet.wait_registered("a.io/x")
        url = f"http://127.0.0.1:{agent.http_port}/statusz"

        def request_forwarded() -> int:
            try:
                forwarded = urllib.request.Request(url, headers={"X-Forwarded-For": "192.0.2.1"})
                with urllib.request.urlopen(forwarded, timeout=10) as response:
                    return int(response.status)
            except urllib.error.HTTPError as error:
                return error.code

        assert await asyncio.to_thread(request_forwarded) == 403


@pytest.mark.network
async def test_status_is_refused_to_clients_that_do_not_use_a_loopback_address(node: FakeNode) -> None:
    async with node.run_agent(CONFIG, listen=("", 0)) as agent:
        await node.kubelet.wait_registered("a.io/x")
        assert (await get(agent, "/statusz"))[0] == 200
        addresses = outside_addresses()
        assert addresses
        for address in addresses:
            assert (await get(agent, "/healthz", address))[0] == 200
            code, text = await get(agent, "/statusz", address)
            assert (code, text) == (
                403,
                "/statusz responds only to clients on the same host; run 'genplug status' there\n",
            )


@pytest.mark.ipv6
async def test_empty_host_listens_on_ipv6_addresses_too(node: FakeNode) -> None:
    async with node.run_agent(CONFIG, listen=("", 0)) as agent:
        await node.kubelet.wait_registered("a.io/x")
        assert (await get(agent, "/statusz", "[::1]"))[0] == 200
        assert (await get(agent, "/statusz", "127.0.0.1"))[0] == 200


async def test_cancellation_ends_the_wait_for_the_loop_although_its_call_has_returned() -> None:
    call: Future[None] = Future()
    waiting = asyncio.create_task(wait_for_loop(call))
    await asyncio.sleep(0)
    # The result and the cancellation arrive in the same turn of the event loop.
    call.set_result(None)
    asyncio.get_running_loop().call_soon(waiting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiting
