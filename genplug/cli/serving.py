"""The process of the agent: log, signals and exit code.

The agent runs in a thread, and the main thread waits for signals. A file operation that hangs in the event loop of the
agent therefore does not delay the end of the process.
"""

import argparse
import asyncio
import gc
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from genplug.agent import Agent, Settings
from genplug.agent.agent import ListenError
from genplug.audit.limits import Limits, Sync
from genplug.capture.archive import open_root
from genplug.cli.malloc import limit_malloc_arenas, return_free_memory
from genplug.cli.options import format_address
from genplug.cli.output import print_message
from genplug.cli.run import HANDLED_SIGNALS
from genplug.health.workers.sessions import wait_for_kills
from genplug.kubelet.plugin_dir import PluginDirReplacedError
from genplug.observe.events import Event, EventLog
from genplug.observe.log_format import set_up_logging

STOP_SECONDS = 1.3
"""Seconds after a signal within which the agent stops by itself; otherwise the process ends without it."""
RELEASE_SECONDS = 0.2
"""Seconds within which the process then removes its sockets and releases its lock."""
KILL_SECONDS = 0.3
"""Seconds within which the processes of the programs that probes started are then found and killed."""
_RETRY_SECONDS = 1.0
"""Seconds before the thread of the agent is started again."""
_STARTUP_SECONDS = 5.0
"""Garbage collection is disabled for this time."""
_SWITCH_SECONDS = 0.0002
"""Seconds for which a thread that computes, such as a scan, may delay the event loop each time the loop continues.

The default of Python is 5 ms, and the loop continues about ten times for each call of the kubelet.
"""

_ENDED = 0
"""The notice that the agent has ended; other notices are the numbers of signals."""


def serve(arguments: argparse.Namespace) -> int:
    """Run an agent until SIGTERM or SIGINT, then end the process with its exit code."""
    os.umask(0o077)
    # The first collection takes 20 ms less without the objects of the modules; 500 of these are garbage (0.1 MiB).
    gc.freeze()
    limit_malloc_arenas()
    sys.setswitchinterval(_SWITCH_SECONDS)
    with open_root(arguments.root) as root:
        settings = Settings(
            config=tuple(map(Path, arguments.config)),
            root=root,
            kubelet_dir=Path(arguments.kubelet_dir),
            device_plugins_dir=Path(arguments.device_plugins_dir) if arguments.device_plugins_dir else None,
            pod_resources_dir=Path(arguments.pod_resources_dir) if arguments.pod_resources_dir else None,
            node_name=arguments.node_name,
            listen=arguments.listen,
            policy=arguments.policy,
            cdi_dir=arguments.cdi_dir,
            cdi_search_dirs=arguments.cdi_search_dirs,
            audit_dir=Path(arguments.audit_dir) if arguments.audit_dir else None,
            audit_limits=Limits(
                arguments.audit_max_size,
                arguments.audit_max_age,
                arguments.audit_keep,
                Sync(arguments.audit_fsync),
            ),
            audit_required=arguments.audit_required == "yes",
            dra_driver=arguments.dra_driver,
            account_dir=Path(arguments.service_account_dir),
        )
        is_text = arguments.log_format == "text" or (arguments.log_format == "auto" and sys.stderr.isatty())
        code = _AgentProcess(settings, "text" if is_text else "json", arguments.log_level).run()
    # The thread of a kill ends with the process.
    wait_for_kills(KILL_SECONDS)
    logging.shutdown()
    # The exit of the interpreter waits for all threads, and a thread may hang in a file operation.
    os._exit(code)


def _start_garbage_collection() -> None:
    gc.collect()
    return_free_memory()
    # Modules, configuration and inventory live long. Without them, a collection during an Allocate call is short.
    gc.freeze()
    gc.enable()


def _do_nothing(_number: int, _frame: object) -> None:
    """Handle a signal: the interpreter writes its number to the pipe of :class:`_AgentProcess`."""


class _AgentProcess:
    """Runs the agent in a thread, and passes signals to it."""

    def __init__(self, settings: Settings, style: str, level: str) -> None:
        self._settings = settings
        self._writer = set_up_logging(style, level, self._report_dropped)
        self._event_log = EventLog(lambda: self._writer.dropped)
        self._loop = asyncio.new_event_loop()
        # The interpreter writes the number of each signal, also of a signal just before the main thread waits.
        self._notices, self._notify = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._agent: Agent | None = None
        self._is_stopping = False
        self._code = 0

    def run(self) -> int:
        """Run the agent until a signal, and return the exit code."""
        signal.set_wakeup_fd(self._notify)
        for number in HANDLED_SIGNALS:
            signal.signal(number, _do_nothing)
        # Before the thread of the agent starts, because it and the programs that it runs inherit the mask.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
        while not self._start_thread():
            # The system cannot start a thread now (cgroup limit pids.max).
            if self._read_notices(_RETRY_SECONDS) & {signal.SIGTERM, signal.SIGINT}:
                return 0
        return self._code if self._wait() else self._release()

    def _start_thread(self) -> bool:
        thread = threading.Thread(target=self._run_loop, name="genplug-agent", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        return True

    def _wait(self) -> bool:
        """Return whether the agent has ended by itself."""
        deadline: float | None = None
        while deadline is None or time.monotonic() < deadline:
            notices = self._read_notices(None if deadline is None else max(deadline - time.monotonic(), 0))
            if _ENDED in notices:
                return True
            if signal.SIGHUP in notices:
                self._call(lambda agent: agent.reload())
            if notices & {signal.SIGTERM, signal.SIGINT}:
                self._is_stopping = True
                self._call(lambda agent: agent.stop())
                deadline = deadline or time.monotonic() + STOP_SECONDS
        return False

    def _read_notices(self, seconds: float | None) -> set[int]:
        """Return the notices that arrive first within a time; none if none arrives."""
        readable, _, _ = select.select((self._notices,), (), (), seconds)
        return set(os.read(self._notices, 1024)) if readable else set()

    def _call(self, function: Callable[[Agent], None]) -> None:
        """Call a function with the agent in its event loop."""
        if (agent := self._agent) is not None:
            # The loop is closed when the agent has ended.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function, agent)

    def _release(self) -> int:
        """Release what other processes need, without the event loop, which hangs; return the exit code."""
        text = f"the agent has not stopped within {STOP_SECONDS:g} s, because an operation hangs; the process ends"
        self._event_log.emit(Event.STOP_TIMED_OUT, text)
        if (agent := self._agent) is not None:
            # The directory of the kubelet may hang too.
            release = threading.Thread(target=agent.release_plugin_dir, name="genplug-release", daemon=True)
            with suppress(RuntimeError):
                release.start()
                release.join(RELEASE_SECONDS)
        return 0

    def _run_loop(self) -> None:
        try:
            self._code = self._loop.run_until_complete(self._run_agent())
        except BaseException as error:  # noqa: BLE001 - the process ends with the traceback in its log
            self._event_log.emit_failure("the agent failed. This is an internal error; please report it", error)
            self._code = 1
        finally:
            os.write(self._notify, bytes([_ENDED]))

    async def _run_agent(self) -> int:
        agent = self._agent = Agent(self._settings, self._event_log)
        if self._is_stopping:
            agent.stop()
        self._loop.call_later(_STARTUP_SECONDS, _start_garbage_collection)
        try:
            await agent.run()
        except PluginDirReplacedError:
            return 1
        except ListenError as error:
            address = format_address(self._settings.listen) if self._settings.listen else ""
            print_message("run", f"--listen {address}: {error}; use an address of this host and a free port")
            return 1
        return 0

    def _report_dropped(self, lines: int) -> None:
        text = f"{lines} lines of the log were dropped, because nothing read the log for some time"
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(lambda: self._event_log.emit(Event.LOG_LINES_DROPPED, text, lines=lines))
