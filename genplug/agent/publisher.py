"""Publishes devices as ResourceSlices: runs the actions that :mod:`genplug.agent.publisher_decision` decides.

This module is imported only if a resource is served by Dynamic Resource Allocation.
"""

import asyncio
import random
import time
from collections.abc import Callable

from genplug.agent.publisher_actions import (
    Action,
    CloseWatch,
    ListSlices,
    Notice,
    OpenWatch,
    ProbeTaints,
    ReadNode,
    WriteSlice,
)
from genplug.agent.publisher_decision import decide
from genplug.agent.publisher_events import (
    ActionFailed,
    NodeRead,
    PublisherEvent,
    RegistrationChanged,
    SliceSeen,
    SlicesListed,
    SliceWritten,
    TaintsProbed,
    WantedChanged,
    WatchEnded,
    WatchOpened,
)
from genplug.agent.publisher_state import PublisherState, Registration
from genplug.agent.publisher_status import PublisherStatus, build_status
from genplug.agent.publisher_transitions import apply_event
from genplug.agent.wakeup import Wakeup
from genplug.allocation.published import PublishedResource
from genplug.allocation.slices import SliceScope, WantedPool, build_pool
from genplug.cluster.account import AccountError
from genplug.cluster.errors import ApiError, UnreachableError
from genplug.cluster.http import HttpClient
from genplug.cluster.node import get_node_uid
from genplug.cluster.slices import SliceClient
from genplug.observe.events import EventLog

_REQUEST_ERRORS = (AccountError, ApiError, UnreachableError)


class Publisher:
    """Keeps the ResourceSlices of a driver on a node equal to the published devices.

    ``publish`` returns the published resources, or None if no resource is served by Dynamic Resource Allocation. Its
    argument states whether the API server keeps taints. It is called at the start, after :meth:`mark_changed`, and when
    the API server drops taints. ``may_have_slices`` states that an earlier process may have published slices, which are
    deleted if there is no resource.
    """

    def __init__(  # noqa: PLR0913 - the parts that it connects
        self,
        http: HttpClient,
        driver: str,
        node: str,
        publish: Callable[[bool], tuple[PublishedResource, ...] | None],
        log: EventLog,
        *,
        may_have_slices: bool = False,
    ) -> None:
        self._state = PublisherState(may_have_slices=may_have_slices)
        self._http = http
        self._client = SliceClient(http, driver, node)
        self._driver, self._node = driver, node
        self._publish = publish
        self._log = log
        self._wakeup = Wakeup()
        self._is_changed = True
        self._watch: asyncio.Task[None] | None = None

    @property
    def status(self) -> PublisherStatus:
        """The present status."""
        return build_status(self._state, time.monotonic())

    @property
    def is_ready(self) -> bool:
        """Whether the slices were published once, and the kubelet has registered the driver."""
        return self._state.is_synced and self._state.registration is Registration.REGISTERED

    def mark_changed(self) -> None:
        """Compare the published devices with the slices soon."""
        self._is_changed = True
        self._wakeup.set()

    def set_registration(self, registration: Registration) -> None:
        """Follow the registration of the driver: nothing is written before the kubelet has registered it."""
        self._apply(RegistrationChanged(registration))

    async def run(self) -> None:
        """Publish until cancelled. The slices remain; the kubelet deletes them if the driver does not return.

        Raises:
            Exception: the watch failed by an internal error, or because the system has no memory or thread for it.
        """
        try:
            while True:
                self._check_watch()
                if self._is_changed:
                    self._is_changed = False
                    self._apply(WantedChanged(self._build_pools()))
                decision = decide(self._state, time.monotonic())
                self._state = decision.state
                if not self._state.is_watching:
                    self._close_watch()
                for notice in decision.notices:
                    self._emit(notice)
                if decision.action is None:
                    await self._wakeup.sleep_until(decision.due)
                else:
                    await self._perform(decision.action)
        finally:
            self._close_watch()
            self._http.close()

    def _build_pools(self) -> tuple[WantedPool, ...] | None:
        resources = self._publish(self._state.keeps_taints)
        if resources is None:
            return None
        # The names of the pools do not depend on the UID, which may not be known yet.
        scope = SliceScope(self._driver, self._node, "")
        previous = {pool.resource: pool for pool in self._state.pools or ()}
        return tuple(build_pool(resource, scope, previous.get(resource.resource)) for resource in resources)

    async def _perform(self, action: Action) -> None:
        try:
            match action:
                case ReadNode():
                    uid = await get_node_uid(self._http, self._node)
                    self._apply(NodeRead(SliceScope(self._driver, self._node, uid)))
                case ListSlices():
                    found = await self._client.list()
                    self._apply(SlicesListed(found.slices, found.resource_version))
                case OpenWatch(resource_version):
                    await self._open_watch(resource_version)
                case CloseWatch():
                    pass
                case WriteSlice(write, scope):
                    answer = await self._client.write(write, scope)
                    self._apply(SliceWritten(write, answer))
                case ProbeTaints(scope):
                    self._apply(TaintsProbed(await self._client.has_taints(scope)))
        except _REQUEST_ERRORS as error:
            self._apply(ActionFailed(action, error))

    async def _open_watch(self, resource_version: str) -> None:
        """Start the task of the watch; return when the watch is open or has failed."""
        self._close_watch()
        is_open = asyncio.Event()
        self._watch = asyncio.create_task(self._follow(resource_version, is_open), name="genplug-slices")
        self._watch.add_done_callback(lambda _watch: is_open.set())
        self._watch.add_done_callback(lambda _watch: self._wakeup.set())
        await is_open.wait()

    async def _follow(self, resource_version: str, is_open: asyncio.Event) -> None:
        try:
            async with self._client.watch(resource_version) as events:
                self._apply(WatchOpened())
                is_open.set()
                async for event in events:
                    self._apply(SliceSeen(event.name, event.found, event.resource_version))
            ended: PublisherEvent = WatchEnded()
        except _REQUEST_ERRORS as error:
            ended = WatchEnded(error) if is_open.is_set() else ActionFailed(OpenWatch(resource_version), error)
        self._apply(ended)

    def _check_watch(self) -> None:
        """Raise the error that ended the task of the watch, other than a failed request."""
        if self._watch is not None and self._watch.done():
            self._watch.result()

    def _close_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _apply(self, event: PublisherEvent) -> None:
        keeps_taints = self._state.keeps_taints
        self._state, notices = apply_event(self._state, event, time.monotonic(), random.random())  # noqa: S311 - no secret
        for notice in notices:
            self._emit(notice)
        if self._state.keeps_taints != keeps_taints:
            self._is_changed = True
        self._wakeup.set()

    def _emit(self, notice: Notice) -> None:
        self._log.emit(notice.event, notice.text, driver=self._driver, **notice.facts)
