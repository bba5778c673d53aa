"""An endpoint that is told to end at any moment of its beginning."""

import asyncio
import tempfile
from pathlib import Path

from genplug.kubelet.endpoint import Endpoint
from genplug.kubelet.latest_value import LatestValue
from genplug.kubelet.plugin_dir import PluginDir
from genplug.kubelet.registration import Registrar
from genplug.kubelet.servicer import ResourceBackend
from genplug.testing.kubelet.stand_in import KubeletStandIn
from tests.support.one_device import OneDevice

X = "example.com/x"


async def test_it_ends_cleanly_after_any_number_of_steps() -> None:
    # A gRPC server that is stopped between its own start's two steps makes C-core follow a null pointer: a failure of
    # this test is the end of the interpreter.
    with tempfile.TemporaryDirectory(prefix="gp", dir="/tmp") as name:
        async with KubeletStandIn(Path(name)) as kubelet:
            directory = PluginDir(kubelet.plugins_dir)
            reached = 0
            for turns in range(200):
                answers: LatestValue[ResourceBackend] = LatestValue(OneDevice("x0"))
                endpoint = Endpoint(X, answers, Registrar(kubelet.plugins_dir), lambda _: None)
                running = asyncio.create_task(endpoint.run(directory.list_sockets()))
                for _ in range(turns):
                    await asyncio.sleep(0)
                reached += bool(directory.list_sockets().own)
                endpoint.stop()
                await asyncio.wait_for(running, 10)
                assert not directory.list_sockets().own
            directory.close()
            assert 0 < reached < 200
