"""Reads the configuration when its files change, and hands the newest valid configuration to the device scanner.

Files are read in a thread with a deadline: a directory on a file system that does not respond delays reloads, and
nothing else.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from genplug.agent.blocking_calls import BlockingCalls
from genplug.agent.debounce import RECHECK_SECONDS, ReloadTimer
from genplug.agent.settings import Settings
from genplug.agent.wakeup import Wakeup
from genplug.config.diagnostics import ConfigInvalidError, format_diagnostics, summarize_diagnostic
from genplug.config.load import LoadedConfig, load
from genplug.config.policy import load_policy
from genplug.hardware.hung_paths import HangError, HungPaths
from genplug.hardware.inotify import DirectoryWatcher
from genplug.observe.events import Event, EventLog
from genplug.observe.status import ConfigStatus
from genplug.observe.text import join_names
from genplug.spec.diagnostic import Diagnostic, ErrorCode
from genplug.spec.model import Config
from genplug.spec.policy import Policy

MAX_SHOWN_ERRORS = 20
"""Errors of a configuration that the log and the status show."""
LOAD_SECONDS = 5.0
"""Seconds after which reading the configuration counts as hanging."""
UNREADABLE_RETRY_SECONDS = 2.0
"""Seconds after which files are read again that could not be read."""
MAX_HUNG_LOADS = 8
"""Reads that may hang before no further one is started. Each costs a thread."""


class ConfigReloader:
    """Follows the configuration files. ``submit`` gets each new valid configuration; :meth:`accept` makes it active."""

    def __init__(
        self, settings: Settings, watcher: DirectoryWatcher, event_log: EventLog, submit: Callable[[Config], None]
    ) -> None:
        self.status = ConfigStatus()
        self._settings = settings
        self._watcher = watcher
        self._event_log = event_log
        self._submit = submit
        self._calls = BlockingCalls(HungPaths(), MAX_HUNG_LOADS, self.reload)
        self._loaded: LoadedConfig | None = None
        """The newest valid configuration, which is not decoded again while its files are the same."""
        self._active: Config | None = None
        self._unrestricted: Config | None = None
        """The active configuration with the resources that a later policy forbids."""
        self._error = ""
        """What is wrong with the newest files, which may not be the active configuration."""
        self._public_errors: tuple[str, ...] = ()
        self._is_decided = asyncio.Event()
        self._timer = ReloadTimer(due=0.0)
        self._wakeup = Wakeup()

    def __repr__(self) -> str:
        active = self._active.sha256[:12] if self._active else "none"
        return f"<ConfigReloader [active: {active} | error: {self.status.error or 'none'} | {self._calls!r}]>"

    @property
    def active(self) -> Config | None:
        """The active configuration."""
        return self._active

    def reload(self) -> None:
        """Read the configuration now, whether or not an event was seen."""
        self._timer = ReloadTimer(due=0.0)
        self._wakeup.set()

    def accept(self, config: Config) -> None:
        """Record that a submitted configuration is active."""
        self._active = config
        if not config.withdrawn:
            self._unrestricted = config
        self._is_decided.set()
        self.status = ConfigStatus(
            config.files,
            config.sha256,
            time.time(),
            self._error,
            self._public_errors,
            policy=config.policy.name,
            resources=len(config.withdrawn) + sum(1 + len(resource.aliases) for resource in config.resources.values()),
            withdrawn=config.withdrawn,
            warnings=_summarize_warnings(config.warnings),
        )
        self._event_log.emit(
            Event.CONFIG_LOADED,
            f"a configuration of {len(config.resources)} resource(s) is active",
            files=config.files,
            policy=config.policy.name,
            config_sha256=config.sha256[:12],
        )
        self._log_warnings(config.warnings)
        if config.policy.unsafe:
            self._event_log.emit(
                Event.POLICY_UNSAFE,
                f"{config.policy.name} allows device nodes with which a container can gain control of the node: "
                f"{', '.join(config.policy.unsafe)}",
                policy=config.policy.name,
                unsafe=config.policy.unsafe,
            )

    def reject(self, config: Config, error: str) -> None:
        """Record that a submitted configuration cannot become active; its policy counts nevertheless."""
        self._is_decided.set()
        self._report_error("the configuration was rejected", error, ("it conflicts with the devices of the node",))
        if self._unrestricted is not None and self._active is not None and config.policy != self._active.policy:
            self._submit(self._restrict(self._unrestricted, config.policy, config.warnings))

    async def run(self) -> None:
        """Follow the files until cancelled."""
        self.reload()
        while True:
            if self._timer.due <= time.monotonic():
                await self._read()
            await self._wakeup.sleep_until(self._timer.due)

    async def _read(self) -> None:
        # Events from here on may concern what this read misses.
        self._timer = self._timer.after_read(time.monotonic(), self._settings.rescan_seconds)
        try:
            loaded = await self._load()
        except ConfigInvalidError as error:
            directories = error.directories
            if any(diagnostic.code is ErrorCode.UNREADABLE for diagnostic in error.diagnostics):
                # No event reports that the system has a file descriptor or memory again.
                self._timer = self._timer.no_later_than(time.monotonic() + UNREADABLE_RETRY_SECONDS)
            await self._apply_policy()
            locations = tuple(
                f"{diagnostic.location}: {diagnostic.code.value}" for diagnostic in error.diagnostics[:MAX_SHOWN_ERRORS]
            )
            self._report_error(self._name_rejected(error.diagnostics), _summarize(error.diagnostics), locations)
        except HangError as error:
            self._report_error("the configuration cannot be read", str(error))
            return
        else:
            self._loaded, directories = loaded, loaded.directories
            self._apply(loaded.config)
        await self._watch(directories)

    async def _load(self) -> LoadedConfig:
        """Return the configuration, also a late one, unless another read is requested before it is there.

        Raises:
            ConfigInvalidError: it is not valid.
            HangError: the read hangs.
        """
        settings = self._settings
        call = self._calls.start(
            partial(
                load,
                settings.config,
                settings.node_name,
                settings.policy,
                self._loaded,
                driver=settings.dra_driver,
            )
        )
        if not await call.wait(LOAD_SECONDS):
            paths = ", ".join(map(str, (*settings.config, *filter(None, (settings.policy,)))))
            cause = "the file system does not respond, or the node is busy"
            reason = f"reading {paths} has not returned within {LOAD_SECONDS:g} s: {cause}"
            self._report_error("the configuration cannot be read", reason)
            await self._apply_policy()
            call.done.add_done_callback(lambda _: self._wakeup.set())
            await self._wakeup.sleep_until(time.monotonic() + settings.rescan_seconds)
            if not call.done.done():
                self._calls.give_up(call, LOAD_SECONDS)
                raise HangError(reason)
        return call.done.result()

    def _apply(self, config: Config) -> None:
        active, self._error, self._public_errors = self._active, "", ()
        if active is not None and (active.sha256, active.policy) == (config.sha256, config.policy):
            self.status = replace(
                self.status, error="", public_errors=(), warnings=_summarize_warnings(config.warnings)
            )
            self._event_log.emit(Event.CONFIG_UNCHANGED, "the configuration files match the active configuration")
            if config.warnings != active.warnings:
                # For example, a file was added that the agent ignores.
                self._active = replace(active, warnings=config.warnings)
                self._log_warnings(config.warnings)
            return
        self._submit(config)

    async def _apply_policy(self) -> None:
        """Apply a changed policy even if the configuration beside it cannot be used."""
        if self._active is None or self._unrestricted is None:
            return
        try:
            loaded = await self._calls.run(
                partial(load_policy, self._settings.policy), LOAD_SECONDS, "reading the policy"
            )
        except (ConfigInvalidError, HangError):
            # The active policy is kept; the error is reported with those of the configuration.
            return
        if loaded.policy != self._active.policy:
            self._is_decided.clear()
            # A resource that an earlier policy forbade returns if this policy allows it.
            self._submit(self._restrict(self._unrestricted, loaded.policy, loaded.warnings))
            # The next report is only correct under the new policy.
            await self._is_decided.wait()

    def _restrict(self, config: Config, policy: Policy, warnings: Iterable[Diagnostic]) -> Config:
        """Return a configuration under a newer policy; of ``warnings``, those about the policy replace the previous."""
        file = str(self._settings.policy)
        new = (warning for warning in warnings if warning.location.file == file)
        kept = (warning for warning in config.warnings if warning.location.file != file)
        return replace(config.restricted_by(policy), warnings=(*new, *kept))

    async def _watch(self, directories: Iterable[Path]) -> None:
        def on_change(_directory: Path, _names: frozenset[str]) -> None:
            self._timer = self._timer.after_event(time.monotonic())
            self._wakeup.set()

        wanted = frozenset(directories)
        try:
            # A directory that responds now can be watched without blocking.
            await self._calls.run(lambda: [directory.exists() for directory in wanted], LOAD_SECONDS, "stat")
        except HangError:
            self._timer = self._timer.no_later_than(time.monotonic() + RECHECK_SECONDS)
            return
        if self._watcher.set("config", wanted, on_change, contents=True):
            # Changes made before the watch was installed produce no event.
            self._timer = self._timer.no_later_than(time.monotonic() + RECHECK_SECONDS)

    def _log_warnings(self, warnings: Sequence[Diagnostic]) -> None:
        if warnings:
            self._event_log.emit(
                Event.CONFIG_WARNING,
                f"the active configuration has {len(warnings)} warning(s):\n{_summarize(warnings)}",
                warnings=tuple(f"{warning.location}: {warning.code.value}" for warning in warnings),
            )

    def _name_rejected(self, errors: Sequence[Diagnostic]) -> str:
        """Return which files are rejected: the configuration, the policy or both, and whether they can be read."""
        policy = str(self._settings.policy)
        are_of_policy = {error.location.file == policy for error in errors}
        if are_of_policy == {True, False}:
            return "the configuration and the policy were rejected"
        subject = "policy" if are_of_policy == {True} else "configuration"
        is_unreadable = all(error.code is ErrorCode.UNREADABLE for error in errors)
        return f"the {subject} cannot be read" if is_unreadable else f"the {subject} was rejected"

    def _report_error(
        self, summary: str, error: str, public_errors: tuple[str, ...] = ("the files cannot be read",)
    ) -> None:
        self._error, self._public_errors = error, public_errors
        if error == self.status.error:
            return
        self.status = replace(self.status, error=error, public_errors=public_errors)
        effect = _describe_effect(self._active)
        self._event_log.emit(Event.CONFIG_INVALID, f"{summary}; {effect}:\n{error}", errors=public_errors)


def _describe_effect(active: Config | None) -> str:
    """Return what remains active while the newest files are invalid."""
    if active is None:
        return "nothing is offered until it is fixed"
    if active.withdrawn:
        names = join_names(active.withdrawn)
        return f"{active.policy.name} refuses {names} of the active configuration: they are removed, the rest is kept"
    return "the last good configuration is kept"


def _summarize_warnings(warnings: Sequence[Diagnostic]) -> tuple[str, ...]:
    return tuple(map(summarize_diagnostic, warnings[:MAX_SHOWN_ERRORS]))


def _summarize(errors: Sequence[Diagnostic]) -> str:
    """Return the first errors and the number of the others, for the log and the status."""
    text = format_diagnostics(errors[:MAX_SHOWN_ERRORS])
    left = len(errors) - MAX_SHOWN_ERRORS
    return text + (f"\nand {left} more; `genplug validate` prints them all" if left > 0 else "")
