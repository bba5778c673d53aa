"""The tables of ``plan`` and ``status`` on large nodes: short, not wider than 120 columns, and true."""

import asyncio
import re

import pytest

from genplug.agent import Agent
from genplug.cli.main import main
from genplug.cli.output import MAX_TABLE_WIDTH, format_table
from genplug.observe.events import Event, LogEvent
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER, POLICY_HEADER

LISTEN = ("127.0.0.1", 0)
TOKENS = CONFIG_HEADER + "resources:\n  a.io/kvm: {devices: [{glob: /dev/kvm}], tokens: 110}\n"
REPLICAS = CONFIG_HEADER + "resources:\n  a.io/gpu: {devices: [{glob: '/dev/gpu*'}], replicas: 4}\n"
FUNCTIONS = CONFIG_HEADER + (
    "resources:\n"
    "  a.io/vf:\n"
    "    devices: [{glob: '/sys/bus/pci/devices/*', where: {driver: [iavf]}}]\n"
    "    allocate: {env: {VF: '${pci.address}'}}\n"
    "    health: {probes: [{file: {path: '/sys/bus/pci/devices/${pci.address}/state', equals: up}}]}\n"
)
DISKS = CONFIG_HEADER + "resources:\n  a.io/disk: {devices: [{glob: '/dev/sd*', type: block}]}\n"
NUMBER_OF_FUNCTIONS = 562


def plan(node: FakeNode, config: str, *flags: str) -> int:
    return main(["plan", "--config", str(node.write_config(config)), "--root", str(node.root), *flags])


async def run_status(agent: Agent, *arguments: str) -> int:
    return await asyncio.to_thread(main, ["status", "--address", f"127.0.0.1:{agent.http_port}", *arguments])


def plug_functions(node: FakeNode, *, driver: str) -> None:
    """Add the virtual functions of a network card; a function has no device node."""
    node.write(f"/sys/bus/pci/drivers/{driver}/bind", "")
    for number in range(NUMBER_OF_FUNCTIONS):
        path = f"/sys/bus/pci/devices/0000:{number >> 8:02x}:{number >> 3 & 31:02x}.{number & 7}"
        node.write(f"{path}/vendor", "0x8086")
        node.link(f"{path}/driver", f"/sys/bus/pci/drivers/{driver}")


async def wait_errors(entries: "asyncio.Queue[LogEvent]") -> None:
    """Wait until the probe of every function has an error."""
    devices: set[str] = set()
    while len(devices) < NUMBER_OF_FUNCTIONS:
        devices |= set((await next_event(entries, Event.PROBE_ERROR)).facts["devices"])  # type: ignore[call-overload]


def check_width(text: str) -> None:
    assert [line for line in text.splitlines() if len(line) > MAX_TABLE_WIDTH] == []


def test_tokens_of_a_pool_are_one_row_of_a_plan(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.plug("/dev/kvm", major=10, minor=232)
    assert plan(node, TOKENS) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["RESOURCE", "DEVICE", "STATE", "NODES", "REASON"]
    assert row.split("   ") == ["a.io/kvm", "110 × token", "healthy", "/dev/kvm (char 10:232)"]
    assert plan(node, TOKENS, "-o", "wide") == 0
    assert len(capsys.readouterr().out.splitlines()) == 111


def test_replicas_of_a_device_are_one_row_of_a_plan(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        node.plug(f"/dev/gpu{number}", major=240, minor=number)
    assert plan(node, REPLICAS) == 0
    rows = [re.split(r" {3,}", line)[1:3] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["4 × gpu0", "healthy"], ["4 × gpu1", "healthy"]]


def test_left_out_paths_with_the_same_reason_are_one_row(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    plug_functions(node, driver="vfio-pci")
    assert plan(node, FUNCTIONS) == 0
    text = capsys.readouterr().out
    check_width(text)
    assert len(text.splitlines()) < 20
    words = " ".join(text.split())
    assert "562 paths are found and left out; the reason is listed below" in words
    assert "/sys/bus/pci/devices/0000:00:00.0," in words
    assert "and 559 more" in words


def test_plan_names_the_policy_as_the_reason_for_a_resource_without_devices(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    node.plug("/dev/sda", kind="block", major=8, minor=0)
    assert plan(node, DISKS) == 0
    text = capsys.readouterr().out
    check_width(text)
    words = " ".join(text.split())
    assert "no device of this node matches" not in words
    assert "1 path is found and left out; the reason is" in words
    assert "/dev/sda refused by 'devices.block' of the default policy" in words


async def test_status_of_many_failing_devices_shows_the_commonest_reasons(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    plug_functions(node, driver="iavf")
    async with node.run_agent(FUNCTIONS, listen=LISTEN) as agent:
        await wait_errors(record_events(agent))
        assert await run_status(agent, "--wait") == 0
        text = capsys.readouterr().out
    check_width(text)
    assert len(text.splitlines()) < 20
    words = " ".join(text.split())
    assert "a.io/vf: probe state cannot check" in words
    assert "and 559 more" in words
    assert "(and 561 other errors)" in words


async def test_reason_that_many_devices_share_is_shown_once_with_their_number(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    plug_functions(node, driver="iavf")
    node.write("/sys/state", "down")
    config = FUNCTIONS.replace("/sys/bus/pci/devices/${pci.address}/state", "/sys/state")
    async with node.run_agent(config, listen=LISTEN) as agent:
        await node.kubelet.wait_for_list("a.io/vf", lambda devices: len(devices.unhealthy) == NUMBER_OF_FUNCTIONS)
        assert await run_status(agent) == 0
        text = capsys.readouterr().out
    check_width(text)
    words = " ".join(text.split())
    assert "562 × probe state: /sys/state is 'down', expected 'up'" in words
    assert len(text.splitlines()) < 10


async def test_warnings_of_a_probe_are_one_line(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    plug_functions(node, driver="iavf")
    node.write("/sys/state", "old")
    probe = "{file: {path: /sys/state, equals: new}, severity: warning, name: firmware}"
    config = FUNCTIONS[: FUNCTIONS.index("    health:")] + f"    health: {{probes: [{probe}]}}\n"
    async with node.run_agent(config, listen=LISTEN) as agent:
        await next_event(record_events(agent), Event.PROBE_WARNING)
        await node.kubelet.wait_for_list("a.io/vf", lambda devices: len(devices.healthy) == NUMBER_OF_FUNCTIONS)
        assert await run_status(agent, "--wait") == 0
        text = capsys.readouterr().out
    check_width(text)
    words = " ".join(text.split())
    assert re.search(r"a.io/vf: probe firmware warns about .* and 559 more: /sys/state is 'old', expected 'new'", words)
    assert "a.io/vf 562 0 0 562" in words


async def test_status_of_a_policy_that_refuses_all_is_not_ready(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    node.plug("/dev/x0")
    policy = node.directory / "p" / "policy.yaml"
    policy.parent.mkdir()
    policy.write_text(POLICY_HEADER)
    resources = (f"  a.io/{name}: {{devices: [{{glob: /dev/{name}*}}]}}\n" for name in "xyz")
    config = CONFIG_HEADER + "resources:\n" + "".join(resources)
    async with node.run_agent(config, policy=policy, listen=LISTEN) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTERED, times=3)
        policy.write_text(POLICY_HEADER + "resources: ['other.com/*']\n")
        await next_event(entries, Event.CONFIG_INVALID)
        assert await run_status(agent) == 4
        text = capsys.readouterr().out
        check_width(text)
        words = " ".join(text.split())
        assert "NOT READY" in words
        assert f"{policy} refuses 3 of 3 resources, removed at 20" in words
        assert ": a.io/x, a.io/y, a.io/z" in words
        assert "so what the policy allows of the configuration above remains active" in words
        assert agent.status.as_json()["config"]["withdrawn"] == ["a.io/x", "a.io/y", "a.io/z"]  # type: ignore[index]
        # The policy allows everything again.
        policy.write_text(POLICY_HEADER)
        await next_event(entries, Event.CONFIG_LOADED)
        assert await run_status(agent, "--wait") == 0


async def test_refused_allocation_is_shown_with_its_age_and_reason(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    node.plug("/dev/x0")
    node.write("/opt/lib/a", "")
    policy = node.directory / "policy.yaml"
    policy.write_text(POLICY_HEADER + "mounts: {allow: [/opt/**]}\n")
    mounts = "allocate: {mounts: [{hostPath: /opt/lib/b, containerPath: /opt/lib}]}"
    config = CONFIG_HEADER + f"resources:\n  a.io/x: {{devices: [{{glob: /dev/x*}}], {mounts}}}\n"
    async with node.run_agent(config, policy=policy, listen=LISTEN) as agent:
        entries = record_events(agent)
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        assert await run_status(agent) == 0
        assert "refused" not in capsys.readouterr().out
        with pytest.raises(Exception, match="/opt/lib/b"):
            await node.kubelet.admit("a.io/x", ids={"x0"})
        await next_event(entries, Event.ALLOCATION_REFUSED)
        assert await run_status(agent) == 0
        words = " ".join(capsys.readouterr().out.split())
    assert re.search(r"the last refused Allocate request was \d+s ago: .*/opt/lib/b", words)


async def test_devices_in_use_are_shown_with_their_containers(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    node.plug("/dev/x0")
    node.plug("/dev/x1")
    config = CONFIG_HEADER + "resources:\n  a.io/x: {devices: [{glob: /dev/x*}]}\n"
    async with node.run_agent(config, listen=LISTEN) as agent:
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0", "x1"})
        await node.kubelet.admit("a.io/x", ids={"x1"}, pod="trainer")
        assert await run_status(agent) == 0
        table = capsys.readouterr().out
        check_width(table)
        (row,) = [re.split(r" {3,}", line) for line in table.splitlines() if line.startswith("a.io/x ")]
        assert row == ["a.io/x", "2", "0", "1", "1", "used by default/trainer/main (x1)"]
        assert await run_status(agent, "-o", "wide") == 0
        lines = [re.split(r" {3,}", line) for line in capsys.readouterr().out.splitlines()]
    assert ["a.io/x", "2", "0", "1", "1", "yes", "1"] in [line[:7] for line in lines]
    ((_, health, _, user, path),) = [line for line in lines if line[0] == "x1"]
    assert (health, path) == ("healthy", "/dev/x1")
    assert user.startswith("default/trainer/")


async def test_further_containers_that_use_devices_are_counted(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        node.plug(f"/dev/x{number}")
    config = CONFIG_HEADER + "resources:\n  a.io/x: {devices: [{glob: /dev/x*}]}\n"
    async with node.run_agent(config, listen=LISTEN) as agent:
        await node.kubelet.wait_for_list("a.io/x", lambda devices: len(devices.healthy) == 8)
        for number in range(4):
            await node.kubelet.admit("a.io/x", ids={f"x{number}"}, pod=f"pod-{number}")
        await node.kubelet.admit("a.io/x", 2, ids={"x4", "x5"}, pod="pod-4")
        node.unplug("/dev/x5")
        await node.kubelet.wait_for_list("a.io/x", lambda devices: devices.unhealthy == {"x5"})
        assert await run_status(agent) == 0
        text = capsys.readouterr().out
    check_width(text)
    words = " ".join(text.split())
    # The unhealthy device is in use, and is not free.
    assert "a.io/x 7 1 6 2 /dev/x5 is gone" in words
    assert "used by default/pod-0/main (x0), default/pod-1/main (x1), default/pod-2/main (x2) and 2 more" in words


async def test_resource_that_is_not_registered_has_the_reason(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    node.plug("/dev/x0")
    config = CONFIG_HEADER + "resources:\n  a.io/x: {devices: [{glob: /dev/x*}]}\n"
    async with node.run_agent(config, listen=LISTEN) as agent:
        entries = record_events(agent)
        await next_event(entries, Event.REGISTERED)
        await node.kubelet.crash()
        await next_event(entries, Event.DISCONNECTED)
        assert await run_status(agent) == 4
        table = capsys.readouterr().out.partition("RESOURCE")[2]
        assert "not registered: " in table
        assert await run_status(agent, "-o", "wide") == 4
        heading, row, *_ = capsys.readouterr().out.partition("RESOURCE")[2].splitlines()
        assert heading.split()[-3:] == ["REGISTERED", "STREAMS", "REMARKS"]
        assert row.split()[5] == "no"


async def test_use_is_unknown_while_pod_resources_does_not_respond(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    node.plug("/dev/x0")
    config = CONFIG_HEADER + "resources:\n  a.io/x: {devices: [{glob: /dev/x*}]}\n"
    async with node.run_agent(config, listen=LISTEN) as agent:
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        agent.settings.pod_resources.unlink()
        assert await run_status(agent) == 0
        lines = [re.split(r" {3,}", line) for line in capsys.readouterr().out.splitlines()]
    assert ["a.io/x", "1", "0", "?", "?"] in lines


async def test_missing_devices_are_shown_with_the_expected_number(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        node.plug(f"/dev/x{number}")
    config = CONFIG_HEADER + "resources:\n  a.io/x: {devices: [{glob: /dev/x*}], replicas: 5, expect: {min: 3}}\n"
    async with node.run_agent(config, listen=LISTEN) as agent:
        entries = record_events(agent)
        changed = await next_event(entries, Event.DEVICES_CHANGED)
        assert "2 of 3 expected devices are healthy" in changed.text
        await next_event(entries, Event.REGISTERED)
        assert await run_status(agent) == 0
        assert "2 of 3 expected devices are healthy" in capsys.readouterr().out
        node.plug("/dev/x2")
        await next_event(entries, Event.DEVICES_CHANGED)
        assert await run_status(agent) == 0
        assert "expected devices" not in capsys.readouterr().out


def test_long_cells_continue_on_further_lines() -> None:
    table = format_table(("A", "B"), [("x", "one two three four"), (("y", "z"), "")], 16)
    assert table.splitlines() == ["A   B", "x   one two", "    three four", "y", "z"]
    assert format_table(("A", "B"), [("x", "one two three four")]).splitlines()[1] == "x   one two three four"


def test_words_are_kept_whole_while_other_columns_can_be_narrower() -> None:
    table = format_table(("ID", "REASON"), [("gpu-0000-3b-00-0-abcdef", "one two three four five")], 40)
    assert table.splitlines()[1:] == ["gpu-0000-3b-00-0-abcdef   one two three", "                          four five"]


def test_errors_of_a_plan_fit_the_width(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    policy = node.directory / "policy-with-a-name-that-is-rather-long.yaml"
    policy.write_text(POLICY_HEADER + "resources: ['other.com/*']\n")
    assert plan(node, TOKENS, "--policy", str(policy)) == 78
    text = capsys.readouterr().err
    check_width(text)
    assert "error[GP019]: the resource 'a.io/kvm' is refused by 'resources' of" in " ".join(text.split())


def test_plan_states_that_a_list_is_limited(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(64):
        node.plug(f"/dev/gpu{number}", major=240, minor=number)
    assert plan(node, REPLICAS.replace("replicas: 4", "replicas: 1000")) == 0
    printed = capsys.readouterr()
    assert "a.io/gpu: 14 of 64 devices are not listed" in " ".join(printed.err.split())
    assert printed.out.count("1000 × gpu") == 50
