"""Responses to Allocate, GetPreferredAllocation and unknown calls (points 49 to 58, 60, 61, 63, 64 and 66)."""

import asyncio
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import grpc
import pytest

from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import DEVICE_PLUGIN, method_path
from genplug.observe.events import Event, LogEvent
from genplug.testing.kubelet import AdmissionError, PluginClient
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import MAJOR, FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.processes import count_descriptors, wait_until_at_most
from tests.support.resources import X_CONFIG, X, build_x_config, list_host_paths, plug_devices, write_policy
from tests.support.scans import limit_scans_to_one

FULL_CONFIG = CONFIG_HEADER + (
    "resources:\n"
    "  example.com/x:\n"
    "    devices: [{glob: /dev/x*, with: [/dev/ctl, /dev/aux]}]\n"
    "    allocate:\n"
    "      env: {ZONE: '${name|upper}', ALL: '${path}', COUNT: '${path|count}'}\n"
    "      mounts:\n"
    "      - {hostPath: '/opt/${name}', containerPath: '/opt/${name}', readOnly: true}\n"
    "      annotations: {example.com/z: '${index}', example.com/a: '${minor}'}\n"
)
"""A configuration in which a device brings environment variables, mounts, annotations and companions."""


@asynccontextmanager
async def run_plugin(node: FakeNode, config: str = X_CONFIG, devices: int = 3) -> AsyncIterator[PluginClient]:
    """Run the agent on a node with ``devices`` devices; give the kubelet's connection to it when all are listed."""
    plug_devices(node, *(f"x{number}" for number in range(devices)))
    async with node.run_agent(
        config, policy=write_policy(node, "mounts: {allow: [/opt]}\nannotations: {allow: [example.com/*]}\n")
    ):
        await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) >= devices)
        yield node.kubelet.plugin(X)


async def allocate_refused(client: PluginClient, *containers: Sequence[str]) -> tuple[grpc.StatusCode, str]:
    """Call Allocate, which has to fail, and return the code and text of its error."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.allocate(containers)
    return refused.value.code(), refused.value.details() or ""


async def test_49_unknown_id_returns_not_found_and_allocates_nothing(node: FakeNode) -> None:
    async with run_plugin(node) as client:
        for containers in ([["x0", "nosuch"]], [["x0"], ["nosuch"]], [[""]]):
            code, text = await allocate_refused(client, *containers)
            assert code is grpc.StatusCode.NOT_FOUND
            assert repr(containers[-1][-1]) in text
            assert X in text
        assert list_host_paths((await client.allocate([["x0"]])).container_responses[0]) == ["/dev/x0"]


async def test_50_unhealthy_device_is_refused_with_its_reason(node: FakeNode) -> None:
    async with run_plugin(node) as client:
        node.unplug("/dev/x1")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x2"}, unhealthy={"x1"})
        code, text = await allocate_refused(client, ["x0"], ["x1"])
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "x1" in text
    assert "/dev/x1 is gone" in text


async def test_50_vanished_device_is_refused_before_the_next_list(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_scans_to_one(monkeypatch)
    async with run_plugin(node) as client:
        # The scan that finds this device is the last.
        node.plug("/dev/x3")
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2", "x3"})
        node.unplug("/dev/x1")
        with pytest.raises(AdmissionError) as rejected:
            await node.kubelet.admit(X, ids={"x1"}, pod="late")
        assert "x1" in node.kubelet.devices(X).healthy
        assert rejected.value.reason == "UnexpectedAdmissionError"
        assert "code = FailedPrecondition" in rejected.value.message
        assert (
            "example.com/x device x1 cannot be allocated to a container: /dev/x1 does not exist"
            in rejected.value.message
        )
        # A refused request allocates nothing; the other devices are still available.
        assert (await allocate_refused(client, ["x0"], ["x1"]))[0] is grpc.StatusCode.FAILED_PRECONDITION
        await node.kubelet.admit(X, ids={"x0"}, pod="early")


async def test_51_repeated_allocate_of_a_device_returns_the_same_response(node: FakeNode) -> None:
    plug_devices(node, "ctl", "aux")
    for number in range(3):
        node.write(f"/opt/x{number}", "")
    async with run_plugin(node, FULL_CONFIG) as client:
        init = await node.kubelet.admit(X, ids={"x1"}, pod="pod", container="init")
        repeated = await client.allocate([["x1"]])
        assert repeated.container_responses[0] == init.response
    await node.kubelet.wait_disconnected(X)
    async with node.run_agent(policy=node.directory / "policy.yaml"):
        await node.kubelet.wait_for_list(X, healthy={"x0", "x1", "x2"})
        repeated = await node.kubelet.plugin(X).allocate([["x1"]])
    assert repeated.container_responses[0] == init.response
    assert list_host_paths(init.response) == ["/dev/x1", "/dev/ctl", "/dev/aux"]


async def test_52_repeated_id_in_a_request_counts_once(node: FakeNode) -> None:
    config = build_x_config("allocate: {env: {COUNT: '${path|count}', ALL: '${path}'}}")
    async with run_plugin(node, config) as client:
        once, twice = (await client.allocate([["x1"], ["x1", "x1"]])).container_responses
    assert once == twice
    assert dict(twice.envs) == {"COUNT": "1", "ALL": "/dev/x1"}
    assert list_host_paths(twice) == ["/dev/x1"]


async def test_53_empty_requests_return_as_many_empty_responses(node: FakeNode) -> None:
    config = build_x_config("allocate: {env: {ALL: '${path}'}}")
    async with run_plugin(node, config) as client:
        assert await client.allocate([]) == pb.AllocateResponse()
        assert await client.call_method("Allocate", b"") == b""
        empty = pb.ContainerAllocateResponse()
        assert list((await client.allocate([[], []])).container_responses) == [empty, empty]
        first, middle, last = (await client.allocate([[], ["x0"], []])).container_responses
        assert first == last == empty
        assert list_host_paths(middle) == ["/dev/x0"]


async def test_54_three_containers_get_responses_in_request_order(node: FakeNode) -> None:
    async with run_plugin(node) as client:
        responses = (await client.allocate([["x2"], ["x0"], ["x1", "x2"]])).container_responses
    assert [list_host_paths(response) for response in responses] == [["/dev/x2"], ["/dev/x0"], ["/dev/x1", "/dev/x2"]]


async def test_55_ids_in_any_order_produce_a_response_in_natural_order(node: FakeNode) -> None:
    plug_devices(node, "ctl", "aux")
    for number in range(12):
        node.write(f"/opt/x{number}", "")
    ids = ["x2", "x10", "x11", "x1"]
    shuffle = random.Random(5)
    async with run_plugin(node, FULL_CONFIG, devices=12) as client:
        responses = set()
        for _ in range(10):
            shuffle.shuffle(ids)
            request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)])
            responses.add(await client.call_method("Allocate", request.SerializeToString()))
    (response,) = responses
    (container,) = pb.AllocateResponse.FromString(response).container_responses
    ordered = ["x1", "x2", "x10", "x11"]
    assert list_host_paths(container) == [f"/dev/{name}" for name in (*ordered, "ctl", "aux")]
    assert [mount.host_path for mount in container.mounts] == [f"/opt/{name}" for name in ordered]
    assert dict(container.envs) == {
        "ZONE": "X1,X2,X10,X11",
        "ALL": "/dev/x1,/dev/x2,/dev/x10,/dev/x11",
        "COUNT": "4",
    }
    assert dict(container.annotations) == {"example.com/z": "1,2,10,11", "example.com/a": "3,4,12,13"}


async def test_56_devices_with_the_same_container_path_are_refused_in_a_container(node: FakeNode) -> None:
    config = build_x_config(source="nodes: [{path: '${path}', as: /dev/mine}]")
    async with run_plugin(node, config) as client:
        first, second = sorted(node.kubelet.devices(X))[:2]
        code, text = await allocate_refused(client, [first, second])
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        for part in (first, second, "/dev/mine", "'as'"):
            assert part in text
        alone = (await client.allocate([[first], [second]])).container_responses
        for response in alone:
            assert [device.container_path for device in response.devices] == ["/dev/mine"]
        assert len(alone) == 2
        assert list_host_paths(alone[0]) != list_host_paths(alone[1])


async def test_56_container_path_template_is_filled_in_for_each_device(node: FakeNode) -> None:
    config = build_x_config(source="nodes: [{path: '${path}', as: '/dev/mine${index}'}]")
    async with run_plugin(node, config) as client:
        (response,) = (await client.allocate([list(node.kubelet.devices(X))])).container_responses
    assert [(device.host_path, device.container_path) for device in response.devices] == [
        (f"/dev/x{number}", f"/dev/mine{number}") for number in range(3)
    ]


@pytest.mark.parametrize(
    ("nodes", "sent"),
    [
        ("nodes: [{path: '${path}'}]", "rw"),
        ("nodes: [{path: '${path}', permissions: r}]", "r"),
        ("nodes: [{path: '${path}', permissions: rwm}]", "rwm"),
        ("", "rw"),
    ],
)
async def test_57_permissions_are_sent_as_configured_or_rw_by_default(node: FakeNode, nodes: str, sent: str) -> None:
    node.plug("/dev/ctl")
    source = ", ".join(filter(None, (nodes, "with: [/dev/ctl]")))
    async with run_plugin(node, build_x_config(source=source), devices=1):
        allocation = await node.kubelet.admit(X)
    assert [device.permissions for device in allocation.response.devices] == [sent, "rw"]


@pytest.mark.parametrize("permissions", ["x", "''", "rwrw", "rwx", "RW", "null", "7"])
async def test_57_invalid_permissions_are_rejected_at_load(node: FakeNode, permissions: str) -> None:
    node.plug("/dev/x0")
    config = build_x_config(source=f"nodes: [{{path: '${{path}}', permissions: {permissions}}}]")
    async with node.run_agent(config) as agent:
        invalid = await next_event(record_events(agent), Event.CONFIG_INVALID)
        # The position of a quoted string is behind its quote.
        column = config.splitlines()[2].index(permissions + "}") + 1 + permissions.startswith("'")
        assert f"genplug.yaml:3:{column}: error" in invalid.text
        assert "permissions" in invalid.text
        assert not agent.status.is_ready


async def test_58_missing_mount_source_fails_allocate_and_is_not_created(node: FakeNode) -> None:
    config = build_x_config(
        "allocate: {mounts: [{hostPath: /opt/driver, containerPath: /usr/lib/driver},"
        " {hostPath: /opt/extra, containerPath: /opt/extra, optional: true}]}"
    )
    async with run_plugin(node, config) as client:
        with pytest.raises(AdmissionError, match="the mount source /opt/driver does not exist"):
            await node.kubelet.admit(X)
        assert not node.locate("/opt").exists()
        assert (await allocate_refused(client, ["x0"]))[0] is grpc.StatusCode.FAILED_PRECONDITION

        node.write("/opt/driver/lib.so", "")
        allocation = await node.kubelet.admit(X)
        [mount] = allocation.response.mounts
        assert (mount.host_path, mount.container_path, mount.read_only) == ("/opt/driver", "/usr/lib/driver", True)


async def test_60_hundred_concurrent_allocates_get_separate_responses(node: FakeNode) -> None:
    async with run_plugin(node, devices=100) as client:
        # The benchmarks measure the time that this takes.
        for _ in range(5):
            responses = await asyncio.gather(*(client.allocate([[f"x{number}"]]) for number in range(100)))
            paths = [list_host_paths(response.container_responses[0]) for response in responses]
            assert paths == [[f"/dev/x{number}"] for number in range(100)]


async def test_60_allocate_during_reload_uses_a_single_configuration(node: FakeNode) -> None:
    def build_named_config(name: str) -> str:
        allocate = f"allocate: {{env: {{NAME: {name}}}, annotations: {{example.com/name: {name}}}}}"
        return build_x_config(allocate, source=f"nodes: [{{path: '${{path}}', as: '/dev/{name}${{index}}'}}]")

    def find_names(response: pb.ContainerAllocateResponse) -> set[str]:
        paths = (device.container_path for device in response.devices)
        annotation = response.annotations["example.com/name"]
        return {response.envs["NAME"], annotation, *(path[len("/dev/") : -1] for path in paths)}

    async with run_plugin(node, build_named_config("a")) as client:
        ids = list(node.kubelet.devices(X))
        counts = {"a": 0, "b": 0}
        for reload in range(12):
            current = "ab"[reload % 2]
            node.write_config(build_named_config(current), how="rename")
            previous = counts[current]
            # Every call until the first response of the new configuration may run during the reload.
            async with asyncio.timeout(10):
                while counts[current] <= previous:
                    responses = await asyncio.gather(*(client.allocate([ids, ids[:1], ids[1:]]) for _ in range(4)))
                    for response in responses:
                        (name,) = set().union(*map(find_names, response.container_responses))
                        counts[name] += 1
        assert min(counts.values()) > 0
        assert node.kubelet.stream_count(X) == 1


async def test_allocation_is_logged_after_its_response(node: FakeNode) -> None:
    answered, was_answered = threading.Event(), []

    def wait_for_response(entry: LogEvent) -> None:
        if entry.event is Event.ALLOCATED:
            # The agent runs in this thread, and sends nothing meanwhile.
            was_answered.append(answered.wait(5))

    def allocate(socket: str) -> None:
        request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=["x0"])])
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                method_path(DEVICE_PLUGIN, "Allocate")
            )
            call(request.SerializeToString(), timeout=10)
        answered.set()

    plug_devices(node, "x0")
    async with node.run_agent(X_CONFIG) as agent:
        await node.kubelet.wait_for_list(X, lambda listed: len(listed.healthy) == 1)
        agent.event_log.listen(wait_for_response)
        await asyncio.to_thread(allocate, node.kubelet.plugin(X).socket)
    assert was_answered == [True]


async def test_61_cancelled_calls_leave_no_tasks_or_descriptors(node: FakeNode) -> None:
    async with run_plugin(node) as client:
        expected = await client.allocate([["x0"]])
        request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=["x0"])])
        descriptors, tasks = count_descriptors(), len(asyncio.all_tasks())
        for number in range(50):
            cancelled = asyncio.create_task(client.allocate([["x0"]]))
            for _ in range(number % 10):
                await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait([cancelled])
        late = 0
        for number in range(20):
            call = asyncio.create_task(client.call_method("Allocate", request.SerializeToString(), timeout=0.002))
            for _ in range(number):
                await asyncio.sleep(0)
            # Agent and kubelet run in this event loop: the deadline passes while the call is anywhere between them.
            time.sleep(0.005)  # noqa: ASYNC251
            [result] = await asyncio.gather(call, return_exceptions=True)
            late += isinstance(result, grpc.aio.AioRpcError) and result.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert late

        assert await client.allocate([["x0"]]) == expected
        await wait_until_at_most(lambda: len(asyncio.all_tasks()), tasks)
        await wait_until_at_most(count_descriptors, descriptors)
        assert (await node.kubelet.admit(X, 3)).ids == ("x0", "x1", "x2")
        assert node.kubelet.stream_count(X) == 1


MANY_IDS = [f"y{number}" for number in range(10_000)]


@pytest.mark.parametrize(
    ("available", "must_include", "size", "preferred"),
    [
        pytest.param(["x2", "x0", "x1"], [], 2, ["x0", "x1"], id="natural order"),
        pytest.param(["x2", "x0", "x1"], [], 0, [], id="size 0"),
        pytest.param(["x2", "x0", "x1"], [], -1, [], id="negative size"),
        pytest.param(["x2", "x0"], [], 5, ["x0", "x2"], id="more than available"),
        pytest.param([], [], 1, [], id="none available"),
        pytest.param(["x2", "x0", "x1"], ["x2"], 2, ["x0", "x2"], id="must include"),
        pytest.param(["x1", "x0"], ["x2"], 1, ["x0"], id="must include what is not available"),
        pytest.param(["x2", "x0", "x1"], ["x2", "x1"], 1, ["x1"], id="must include more than the size"),
        pytest.param(["x1", "nosuch", "x0"], ["nosuch"], 2, ["nosuch", "x0"], id="unknown ids"),
        pytest.param(["x1", "x1", "x0", "x0"], ["x1", "x1"], 2, ["x0", "x1"], id="repeats"),
        pytest.param([*MANY_IDS, "x1"], ["y9999"], 3, ["x1", "y0", "y9999"], id="10 000 available"),
    ],
)
async def test_63_preferred_allocation_is_a_valid_subset_for_any_request(
    node: FakeNode, available: list[str], must_include: list[str], size: int, preferred: list[str]
) -> None:
    async with run_plugin(node) as client:
        random.Random(1).shuffle(available)
        responses = [await client.get_preferred_allocation(available, must_include, size) for _ in range(2)]
    assert responses[0] == responses[1]
    (container,) = responses[0].container_responses
    assert sorted(container.deviceIDs) == preferred


async def test_63_preferred_allocation_answers_every_container_of_a_request(node: FakeNode) -> None:
    async with run_plugin(node) as client:
        assert await client.call_method("GetPreferredAllocation", b"") == b""
        first = pb.ContainerPreferredAllocationRequest(available_deviceIDs=["x1", "x0"], allocation_size=1)
        request = pb.PreferredAllocationRequest(container_requests=[first, pb.ContainerPreferredAllocationRequest()])
        response = await client.call_method("GetPreferredAllocation", request.SerializeToString())
    containers = pb.PreferredAllocationResponse.FromString(response).container_responses
    assert [list(container.deviceIDs) for container in containers] == [["x0"], []]


def name_devices(ids: Iterable[str]) -> set[str]:
    """Return the names of the devices of replica IDs."""
    return {device_id.partition("-r")[0] for device_id in ids}


async def test_64_packed_policy_allocates_replicas_of_a_single_device(node: FakeNode) -> None:
    async with run_plugin(node, build_x_config("replicas: 4, preferredAllocation: {policy: packed}")):
        assert node.kubelet.registrations[-1].get_preferred_allocation_available
        packed = await node.kubelet.admit(X, 3, pod="packed")
        assert len(name_devices(packed.ids)) == 1


async def test_64_spread_policy_allocates_replicas_of_different_devices(node: FakeNode) -> None:
    async with run_plugin(node, build_x_config("replicas: 4, preferredAllocation: {policy: spread}")):
        spread = await node.kubelet.admit(X, 3, pod="spread")
        assert name_devices(spread.ids) == {"x0", "x1", "x2"}


async def test_64_packed_policy_groups_devices_by_the_configured_template(node: FakeNode) -> None:
    async with run_plugin(node, build_x_config("preferredAllocation: {policy: packed, by: '${minor|default:0}'}")):
        assert (await node.kubelet.admit(X, 2)).ids == ("x0", "x1")


async def test_64_contiguous_policy_suggests_devices_with_consecutive_numbers(node: FakeNode) -> None:
    async with run_plugin(node, build_x_config("preferredAllocation: {policy: contiguous}"), devices=8):
        assert node.kubelet.registrations[-1].get_preferred_allocation_available
        assert (await node.kubelet.admit(X, 1, pod="a", ids={"x1"})).ids == ("x1",)
        assert (await node.kubelet.admit(X, 1, pod="b", ids={"x5"})).ids == ("x5",)
        # x0, x2 to x4, x6 and x7 are free.
        assert set((await node.kubelet.admit(X, 2, pod="c")).ids) == {"x6", "x7"}
        assert set((await node.kubelet.admit(X, 3, pod="d")).ids) == {"x2", "x3", "x4"}
        await node.kubelet.remove_pod("b")
        assert set((await node.kubelet.admit(X, 2, pod="e")).ids) == {"x0", "x5"}


async def test_64_contiguous_policy_counts_slices_over_devices(node: FakeNode) -> None:
    async with run_plugin(node, build_x_config("slices: 4, preferredAllocation: {policy: contiguous}"), devices=2):
        await node.kubelet.admit(X, 2, pod="a", ids={"x0-s0", "x0-s1"})
        await node.kubelet.admit(X, 1, pod="b", ids={"x1-s3"})
        # The slices x0-s2, x0-s3, x1-s0, x1-s1 and x1-s2 are free.
        assert set((await node.kubelet.admit(X, 4, pod="c")).ids) == {"x0-s2", "x0-s3", "x1-s0", "x1-s1"}


async def test_64_position_of_a_device_is_the_number_of_the_template(node: FakeNode) -> None:
    options = "preferredAllocation: {policy: contiguous, by: '${attr.position}'}"
    for number, position in enumerate(("0x10", "7", "none", "0x11", "0x0f")):
        node.write(f"/sys/dev/char/{MAJOR}:{number}/position", position)
    async with run_plugin(node, build_x_config(options), devices=5):
        assert set((await node.kubelet.admit(X, 3, pod="a")).ids) == {"x0", "x3", "x4"}
        assert set((await node.kubelet.admit(X, 2, pod="b")).ids) == {"x1", "x2"}


async def test_distinct_sharing_gives_a_container_each_device_once(node: FakeNode) -> None:
    async with run_plugin(node, build_x_config("replicas: 2, share: {distinct: true}")) as client:
        assert name_devices((await node.kubelet.admit(X, 3)).ids) == {"x0", "x1", "x2"}
        code, text = await allocate_refused(client, ["x1-r0", "x1-r1"])
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "x1-r0 and x1-r1 are the same device (/dev/x1), and share.distinct is true" in text
        assert "genplug.yaml:" in text
        # Two containers of a pod may have the same device.
        await client.allocate([["x1-r0"], ["x1-r1"]])


async def test_request_above_max_per_container_is_refused(node: FakeNode) -> None:
    async with run_plugin(node, build_x_config("share: {maxPerContainer: 2}")) as client:
        code, text = await allocate_refused(client, ["x0", "x1", "x2"])
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "it requests 3, and share.maxPerContainer is 2" in text
        await client.allocate([["x0", "x1"], ["x2"]])
        await client.allocate([["x0", "x1", "x1"]])


async def test_66_unknown_methods_are_unimplemented_and_unknown_fields_ignored(node: FakeNode) -> None:
    async with run_plugin(node) as client:
        for method in ("Deallocate", "allocate", ""):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.call_method(method)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

        # A request of a later version: an unknown integer field 99 and an unknown string field 98 on both levels.
        unknown_fields = b"\x98\x06\x07" + b"\x92\x06\x03new"
        container = pb.ContainerAllocateRequest(devices_ids=["x0"]).SerializeToString() + unknown_fields
        request = b"\x0a" + bytes([len(container)]) + container + unknown_fields
        assert pb.AllocateRequest.FromString(request).container_requests[0].devices_ids == ["x0"]
        response = pb.AllocateResponse.FromString(await client.call_method("Allocate", request))
        assert response == await client.allocate([["x0"]])
        assert await client.call_method("GetDevicePluginOptions", unknown_fields) == await client.call_method(
            "GetDevicePluginOptions"
        )
        assert await client.call_method("PreStartContainer", unknown_fields) == b""
        assert node.kubelet.stream_count(X) == 1


async def test_66_malformed_request_does_not_affect_later_calls(node: FakeNode) -> None:
    async with run_plugin(node) as client:
        for method in ("Allocate", "GetPreferredAllocation"):
            with pytest.raises(grpc.aio.AioRpcError):
                await client.call_method(method, b"\xff\xff\xff")
        assert list_host_paths((await client.allocate([["x0"]])).container_responses[0]) == ["/dev/x0"]


async def test_variables_of_kubevirt_and_the_sriov_plugin_are_written_once_for_all_resources(node: FakeNode) -> None:
    addresses = ("0000:af:02.0", "0000:3b:02.0")
    for address in addresses:
        node.write(f"/sys/devices/pci/{address}/vendor", "0x8086\n")
        node.link(f"/sys/bus/pci/devices/{address}", f"/sys/devices/pci/{address}")
    config = CONFIG_HEADER + (
        "defaults:\n"
        "  allocate:\n"
        "    env:\n"
        "      'PCI_RESOURCE_${resource}': '${pci.address}'\n"
        "      'PCIDEVICE_${resource}_INFO':\n"
        '        each: \'${pci.address|quote}:{"generic":{"deviceID":${pci.address|quote}}}\'\n'
        "        prefix: '{'\n"
        "        suffix: '}'\n"
        "resources:\n"
        "  intel.com/sriov_netdevice: {devices: [{glob: '/sys/bus/pci/devices/*'}], share: {overlap: true}}\n"
        "  'example.com/nic-${pci.vendor}':\n"
        "    {devices: [{glob: '/sys/bus/pci/devices/*'}], share: {overlap: true}, replicas: 2}\n"
    )
    async with node.run_agent(config):
        for resource, name, replicas in (
            ("intel.com/sriov_netdevice", "INTEL_COM_SRIOV_NETDEVICE", 1),
            ("example.com/nic-0x8086", "EXAMPLE_COM_NIC-0X8086", 2),
        ):
            listed = sorted((await node.kubelet.wait_for_list(resource)).healthy)
            assert len(listed) == 2 * replicas
            (response,) = (await node.kubelet.plugin(resource).allocate([listed])).container_responses
            assert response.envs[f"PCI_RESOURCE_{name}"] == "0000:3b:02.0,0000:af:02.0"
            info = json.loads(response.envs[f"PCIDEVICE_{name}_INFO"])
            assert info == {address: {"generic": {"deviceID": address}} for address in addresses}
            assert len(response.envs) == 2


async def test_rendered_name_of_a_variable_is_checked_as_a_literal_name(node: FakeNode) -> None:
    plug_devices(node, "x0", "ld_preload")
    config = CONFIG_HEADER + (
        "resources:\n"
        "  example.com/x:\n"
        "    devices: [{glob: '/dev/{x0,ld_preload}'}]\n"
        "    allocate: {env: {'${name}': '/opt/x.so', N1: a, 'N${index|default:1}': b}}\n"
    )
    async with node.run_agent(config) as agent:
        await node.kubelet.wait_for_list(X, lambda devices: len(devices) == 2)
        [reasons] = [device.reason for device in agent.status.resources[0].devices if device.reason]
    assert "the environment variable LD_PRELOAD is refused by 'env.allow'" in reasons
    assert "two entries of allocate.env have the name N1" in reasons
