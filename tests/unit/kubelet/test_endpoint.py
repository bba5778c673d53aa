"""An endpoint that is told to end at any moment of its beginning."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from genplug.allocation.container_edits import ContainerEdits
from genplug.allocation.offer import Listed, Options
from genplug.allocation.prestart import ProgramRun
from genplug.kubelet.endpoint import Endpoint
from genplug.kubelet.latest_value import Latest
from genplug.kubelet.plugin_dir import HeldFolder
from genplug.kubelet.registration import Registrar
from genplug.kubelet.servicer import Answers
from genplug.testing.kubelet.stand_in import KubeletStandIn

X = "example.com/x"


class OneDevice:
    """A resource with one device, which nobody asks for here."""

    listed = (Listed("x0", healthy=True),)
    options = Options()

    def allocate(self, ids: Sequence[str]) -> ContainerEdits:
        raise NotImplementedError(ids)

    def starts(self, ids: Sequence[str]) -> Sequence[ProgramRun]:
        raise NotImplementedError(ids)

    def prefer(self, available: Sequence[str], must_include: Sequence[str], size: int) -> Sequence[str]:
        raise NotImplementedError(available, must_include, size)


async def test_it_ends_cleanly_after_any_number_of_steps() -> None:
    # A gRPC server that is stopped between its own start's two steps makes C-core follow a null pointer: a failure of
    # this test is the end of the interpreter.
    with tempfile.TemporaryDirectory(prefix="gp", dir="/tmp") as name:
        async with KubeletStandIn(Path(name)) as kubelet:
            folder = HeldFolder(kubelet.plugins_dir)
            reached = 0
            for turns in range(200):
                answers: Latest[Answers] = Latest(OneDevice())
                endpoint = Endpoint(X, answers, Registrar(kubelet.plugins_dir), lambda _: None)
                running = asyncio.create_task(endpoint.run(folder.look()))
                for _ in range(turns):
                    await asyncio.sleep(0)
                reached += bool(folder.look().own)
                endpoint.stop()
                await asyncio.wait_for(running, 10)
                assert not folder.look().own
            folder.close()
            assert 0 < reached < 200
