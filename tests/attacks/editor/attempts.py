"""A running agent that a configuration editor attacks, with a resource of another owner that must stay served."""

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
from msgspec import Struct, field

from genplug.agent import Agent
from genplug.observe.events import Event
from genplug.observe.log_format import JsonFormatter, TextFormatter
from genplug.struct_values import hide_in_repr
from genplug.testing.kubelet import AdmissionError
from genplug.testing.node.events import record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.http import get

VICTIM = "example.com/attacked"
BYSTANDER = "example.com/bystander"
PAGES = ("/", "/metrics", "/readyz?verbose", "/statusz")


class Outcome(Struct, frozen=True):
    """The result of an attempt: the error of a rejected configuration, and the answers to Allocate, as texts.

    ``healthy`` are the devices that pods could request.
    """

    rejection: str
    responses: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    healthy: frozenset[str] = frozenset()


@hide_in_repr("log")
class AttackedNode(Struct, frozen=True):
    """A node whose agent serves :data:`BYSTANDER`; ``log`` has the lines of the agent in both formats."""

    node: FakeNode
    agent: Agent
    log: io.StringIO = field(default_factory=io.StringIO)

    async def attempt(self, body: str, devices: int = 1) -> Outcome:
        """Add a resource with this body to the configuration, and request each of its devices, healthy or not.

        ``devices`` is the number of devices that the resource has at least. At most one attempt of a node is loaded.
        """
        assert not self.node.kubelet.messages(VICTIM)
        events = record_events(self.agent)
        self.node.write_config(build_attack(body))
        while (event := await events.get()).event not in {Event.CONFIG_INVALID, Event.CONFIG_LOADED}:
            pass
        if event.event is Event.CONFIG_INVALID:
            return Outcome(event.text)
        await self.node.kubelet.wait_for(lambda: len(self.node.kubelet.devices(VICTIM)) >= devices, 10)
        responses, refusals = [], []
        for device in sorted(self.node.kubelet.devices(VICTIM).ids):
            try:
                answer = await self.node.kubelet.plugin(VICTIM).allocate([[device]])
            except grpc.aio.AioRpcError as error:
                refusals.append(error.details() or "")
            else:
                responses.append(str(answer))
        return Outcome("", tuple(responses), tuple(refusals), self.node.kubelet.devices(VICTIM).healthy)

    async def check_bystander(self) -> None:
        """Assert that the agent is alive, and that the resource of the other owner can still be requested."""
        status, _ = await get(self.agent, "/healthz")
        assert status == 200
        try:
            allocation = await self.node.kubelet.admit(BYSTANDER, pod="bystander")
        except AdmissionError as error:
            raise AssertionError(f"the resource of another owner is not served: {error}") from error
        assert [device.host_path for device in allocation.response.devices] == ["/dev/other0"]

    async def collect_outputs(self) -> str:
        """Return the log, the pages and the CDI files of the agent as one text."""
        pages = [(await get(self.agent, page))[1] for page in PAGES]
        files = [path.read_text() for path in self.node.locate("/var/run/cdi").glob("genplug-*")]
        return "\n".join((self.log.getvalue(), *pages, *files))


def build_attack(body: str = "") -> str:
    """Return a configuration with the bystander, and with a resource of this body unless it is empty."""
    bystander = f"{CONFIG_HEADER}resources:\n  {BYSTANDER}: {{devices: [{{glob: /dev/other0}}]}}\n"
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    return f"{bystander}  {VICTIM}:\n{lines}" if body else bystander


@asynccontextmanager
async def run_attacked_agent(node: FakeNode, policy: Path | None = None) -> AsyncIterator[AttackedNode]:
    """Run an agent with the bystander; at the end, assert that it is still served.

    The devices ``/dev/x0`` and ``/dev/other0`` exist.
    """
    node.plug("/dev/x0")
    node.plug("/dev/other0")
    async with node.run_agent(build_attack(), policy=policy, listen=("127.0.0.1", 0)) as agent:
        await node.kubelet.wait_for_list(BYSTANDER, healthy={"other0"})
        attacked = AttackedNode(node, agent)
        with capture_log(attacked.log):
            yield attacked
            await attacked.check_bystander()


@contextmanager
def capture_log(stream: io.StringIO) -> Iterator[None]:
    """Write the lines of the log into a stream, as text and as JSON."""
    logger = logging.getLogger("genplug")
    level = logger.level
    handlers = [logging.StreamHandler(stream) for _ in range(2)]
    for handler, formatter in zip(handlers, (TextFormatter(), JsonFormatter()), strict=True):
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)


def quote(text: str) -> str:
    """Return a text as a YAML string."""
    return json.dumps(text)
