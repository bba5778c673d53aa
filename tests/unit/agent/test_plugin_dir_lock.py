"""The lock of the device-plugins directory: what it waits for, and that a single process has it."""

import asyncio
from pathlib import Path

import pytest

from genplug.agent.plugin_dir_lock import PluginDirLock
from genplug.agent.settings import Settings
from genplug.observe.events import Event, EventLog, LogEvent


@pytest.fixture
def events() -> "asyncio.Queue[LogEvent]":
    return asyncio.Queue()


@pytest.fixture(autouse=True)
def _short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genplug.agent.plugin_dir_lock.LOCK_INTERVAL_SECONDS", 0.05)


def build_lock(directory: Path, events: "asyncio.Queue[LogEvent]") -> PluginDirLock:
    log = EventLog()
    log.listen(events.put_nowait)
    return PluginDirLock(Settings(config=(), kubelet_dir=directory, poll_seconds=60), log)


async def test_directory_is_acquired_with_the_sockets_that_a_killed_process_left(
    tmp_path: Path, events: "asyncio.Queue[LogEvent]"
) -> None:
    plugins = tmp_path / "device-plugins"
    plugins.mkdir()
    lock = build_lock(tmp_path, events)
    assert "has not been opened yet" in lock.error
    directory = await asyncio.wait_for(lock.acquire(), 10)
    assert directory.path == plugins
    assert lock.error == ""
    assert (await events.get()).event is Event.PLUGIN_DIR_ACQUIRED
    directory.close()


async def test_missing_directory_is_waited_for_and_logged_once(
    tmp_path: Path, events: "asyncio.Queue[LogEvent]"
) -> None:
    lock = build_lock(tmp_path, events)
    acquiring = asyncio.create_task(lock.acquire())
    said = await asyncio.wait_for(events.get(), 10)
    assert said.event is Event.PLUGIN_DIR_UNUSABLE
    assert lock.error == said.text
    await asyncio.sleep(0.15)
    assert events.empty()
    (tmp_path / "device-plugins").mkdir()
    directory = await asyncio.wait_for(acquiring, 10)
    directory.close()


async def test_directory_of_another_process_is_waited_for(tmp_path: Path, events: "asyncio.Queue[LogEvent]") -> None:
    (tmp_path / "device-plugins").mkdir()
    first = await build_lock(tmp_path, asyncio.Queue()).acquire()
    lock = build_lock(tmp_path, events)
    acquiring = asyncio.create_task(lock.acquire())
    said = await asyncio.wait_for(events.get(), 10)
    assert said.event is Event.PLUGIN_DIR_LOCKED
    assert repr(lock) == f"<PluginDirLock [{said.text}]>"
    first.close()
    directory = await asyncio.wait_for(acquiring, 10)
    assert repr(lock) == "<PluginDirLock [acquired]>"
    directory.close()
