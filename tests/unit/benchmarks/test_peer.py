"""Rounds with a plugin that lacks almost everything: missing values, not an error."""

import sys
from pathlib import Path

import pytest

from benchmarks.agent import node
from benchmarks.peer import Plugin, Rounds, check_start, measure_round
from benchmarks.ratios import APPEARS, KUBELET, SECOND, START, UNITS, VANISHES

STATIC_PLUGIN = """
import signal, sys, threading
from concurrent.futures import ThreadPoolExecutor
import grpc
from genplug.kubelet.api import genplug_deviceplugin_v1beta1_pb2 as pb
from genplug.kubelet.api.services import DEVICE_PLUGIN, REGISTRATION, method_path

ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())

def list_devices(request, context):
    yield pb.ListAndWatchResponse(devices=[pb.Device(ID=str(n), health="Healthy") for n in range(8)])
    ended.wait()

methods = {
    "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(lambda *_: b""),
    "ListAndWatch": grpc.unary_stream_rpc_method_handler(
        list_devices, response_serializer=pb.ListAndWatchResponse.SerializeToString
    ),
}
server = grpc.server(ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(DEVICE_PLUGIN, methods),))
server.add_insecure_port(f"unix:{sys.argv[1]}/static.sock")
server.start()
with grpc.insecure_channel(f"unix:{sys.argv[1]}/kubelet.sock") as channel:
    request = pb.RegisterRequest(version="v1beta1", endpoint="static.sock", resource_name="example.com/static")
    channel.unary_unary(method_path(REGISTRATION, "Register"))(request.SerializeToString())
ended.wait()
server.stop(None)
"""
"""A plugin with eight devices that never change, without Allocate, and without a second registration."""
FAST = Rounds(calls=10, settle=0, min_pause=0, max_pause=0, max_wait=0.2)


async def test_round_has_no_value_for_what_a_plugin_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "plugin.py"
    script.write_text(STATIC_PLUGIN)
    plugin = Plugin("static", (sys.executable, str(script), "{plugins}"))
    async with node(1, 8) as shared:
        await check_start(plugin, shared, FAST)
        starts = shared.fake.kubelet.starts
        taken = await measure_round(plugin, shared, FAST, 0)
        # Each of the first three lists that did not arrive leads to another start; a step starts the kubelet itself.
        assert shared.fake.kubelet.starts - starts == 4 + 1
    allocate = {name for name in UNITS if "Allocate" in name}
    assert {name for name, value in taken.items() if value is None} == {APPEARS, VANISHES, SECOND, KUBELET}
    assert UNITS.keys() - taken.keys() == allocate
    assert taken[START] is not None
    assert "static: Allocate failed: StatusCode.UNIMPLEMENTED" in capsys.readouterr().err


async def test_plugin_that_ends_at_once_is_an_error_with_its_output() -> None:
    plugin = Plugin("broken", ("sh", "-c", "echo no such flag; exit 3"))
    async with node(1, 8) as shared:
        with pytest.raises(
            RuntimeError, match=r"(?s)ended with 3 and did not list 8 .* registered nothing.*no such flag"
        ):
            await check_start(plugin, shared, FAST)
