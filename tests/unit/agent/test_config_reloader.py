"""The configuration reloader: what it submits, and what it reports of files that are wrong, slow or do not respond."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from genplug.agent.config_reloader import ConfigReloader
from genplug.agent.settings import Settings
from genplug.config.load import load
from genplug.hardware.inotify import DirectoryWatcher
from genplug.observe.events import Event, EventLog, LogEvent
from genplug.spec.model import Config
from genplug.testing.node.config_files import write_in_place
from tests.support.configs import render_config

CONFIG = render_config("devices: [{glob: /dev/x*}]")
POLICY = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\n"


class Following:
    """A reloader that runs, what it submitted, and what it wrote to the log."""

    def __init__(self, settings: Settings, watcher: DirectoryWatcher) -> None:
        self.submitted: asyncio.Queue[Config] = asyncio.Queue()
        self.events: asyncio.Queue[LogEvent] = asyncio.Queue()
        log = EventLog()
        log.listen(self.events.put_nowait)
        self.reloader = ConfigReloader(settings, watcher, log, self.submitted.put_nowait)

    async def accepted(self) -> Config:
        """Accept the next configuration and return it."""
        config = await asyncio.wait_for(self.submitted.get(), 10)
        self.reloader.accept(config)
        return config

    async def next(self, event: Event) -> LogEvent:
        async with asyncio.timeout(10):
            while (found := await self.events.get()).event is not event:
                pass
        return found


@asynccontextmanager
async def following(config: Path, **settings: Any) -> AsyncIterator[Following]:
    with closing(DirectoryWatcher()) as watcher:
        made = Following(Settings(config=(config,), **settings), watcher)
        running = asyncio.create_task(made.reloader.run())
        try:
            yield made
        finally:
            running.cancel()
            await asyncio.wait([running])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config" / "genplug.yaml"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def slow_down(monkeypatch: pytest.MonkeyPatch, gate: threading.Event) -> None:
    """Make reads of the configuration wait for a gate, and shorten their deadline."""

    def load_slowly(*arguments: Any, **options: Any) -> Any:
        gate.wait()
        return load(*arguments, **options)

    monkeypatch.setattr("genplug.agent.config_reloader.load", load_slowly)
    monkeypatch.setattr("genplug.agent.config_reloader.LOAD_SECONDS", 0.1)


async def test_each_changed_configuration_is_submitted(config: Path) -> None:
    async with following(config.parent) as made:
        first = await made.accepted()
        write_in_place(config, CONFIG.replace("/dev/x*", "/dev/y*"))
        second = await made.accepted()
        assert second.sha256 != first.sha256
        assert made.reloader.status.sha256 == second.sha256
        assert (await made.next(Event.CONFIG_LOADED)).facts["config_sha256"] == first.sha256[:12]


async def test_invalid_configuration_is_reported_and_the_active_one_kept(config: Path) -> None:
    async with following(config.parent) as made:
        active = await made.accepted()
        write_in_place(config, CONFIG.replace("glob", "golb"))
        said = await made.next(Event.CONFIG_INVALID)
        assert "the configuration was rejected; the last good configuration is kept" in said.text
        assert made.reloader.status.sha256 == active.sha256
        assert "unknown key 'golb'" in made.reloader.status.error
        write_in_place(config, CONFIG)
        await made.next(Event.CONFIG_UNCHANGED)
        assert made.reloader.status.error == ""


async def test_changed_policy_is_submitted_beside_an_invalid_configuration(config: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy" / "policy.yaml"
    policy.parent.mkdir()
    policy.write_text(POLICY)
    async with following(config.parent, policy=policy) as made:
        active = await made.accepted()
        write_in_place(config, CONFIG.replace("glob", "golb"))
        await made.next(Event.CONFIG_INVALID)
        write_in_place(policy, POLICY + "devices: {deny: [/dev/x0]}\n")
        restricted = await made.accepted()
        assert restricted.sha256 == active.sha256
        assert restricted.policy != active.policy
        # The newest configuration is still wrong.
        assert "unknown key 'golb'" in made.reloader.status.error


async def test_warnings_of_a_changed_policy_replace_those_of_the_previous_policy(config: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy" / "policy.yaml"
    policy.parent.mkdir()
    policy.write_text(POLICY + "devices: {deny: ['/dev/a.*']}\n")
    async with following(config.parent, policy=policy) as made:
        await made.accepted()
        assert "'/dev/a.*'" in str(made.reloader.status.warnings)
        write_in_place(config, CONFIG.replace("glob", "golb"))
        await made.next(Event.CONFIG_INVALID)
        write_in_place(policy, POLICY + "devices: {deny: ['/dev/b.*']}\n")
        await made.accepted()
        (warning,) = made.reloader.status.warnings
        assert "'/dev/b.*'" in warning
        write_in_place(policy, POLICY)
        await made.accepted()
        assert made.reloader.status.warnings == ()


async def test_the_policy_of_a_rejected_configuration_is_submitted(config: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy" / "policy.yaml"
    policy.parent.mkdir()
    policy.write_text(POLICY)
    async with following(config.parent, policy=policy) as made:
        active = await made.accepted()
        write_in_place(policy, POLICY + "devices: {deny: [/dev/x0]}\n")
        write_in_place(config, CONFIG.replace("/dev/x*", "/dev/y*"))
        rejected = await asyncio.wait_for(made.submitted.get(), 10)
        made.reloader.reject(rejected, "two resources claim a node")
        restricted = await made.accepted()
        assert (restricted.sha256, restricted.policy) == (active.sha256, rejected.policy)
        assert made.reloader.status.error == "two resources claim a node"


async def test_read_that_does_not_return_is_reported_and_used_when_it_does(
    config: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_down(monkeypatch, gate)
    async with following(config.parent) as made:
        said = await made.next(Event.CONFIG_INVALID)
        assert "the configuration cannot be read; nothing is offered until it is fixed" in said.text
        assert f"reading {config.parent} has not returned within 0.1 s" in made.reloader.status.error
        assert made.submitted.empty()
        gate.set()
        await made.accepted()
        assert made.reloader.status.error == ""


async def test_requested_reload_does_not_wait_for_a_read_that_hangs(
    config: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_down(monkeypatch, gate)
    async with following(config.parent) as made:
        await made.next(Event.CONFIG_INVALID)
        monkeypatch.setattr("genplug.agent.config_reloader.load", load)
        made.reloader.reload()
        await made.accepted()
        assert not gate.is_set()
        assert "1 of at most 8 hang" in repr(made.reloader)


async def test_reads_that_hang_are_limited(
    config: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_down(monkeypatch, gate)
    monkeypatch.setattr("genplug.agent.config_reloader.MAX_HUNG_LOADS", 1)
    async with following(config.parent) as made:
        await made.next(Event.CONFIG_INVALID)
        made.reloader.reload()
        said = await made.next(Event.CONFIG_INVALID)
        assert "1 file operations hang, and no further thread is started" in said.text
        gate.set()
        await made.accepted()
