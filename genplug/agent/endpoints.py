"""The endpoints of a node: one for each offered resource, kept after its removal until no pod uses the resource."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from msgspec.structs import replace

from genplug.agent.alias_pools import GRACE_POLLS
from genplug.agent.settings import Settings
from genplug.allocation.offer import ResourceOffer, build_offer
from genplug.kubelet.client import CallError
from genplug.kubelet.endpoint import Endpoint
from genplug.kubelet.latest_value import LatestValue
from genplug.kubelet.plugin_dir import PluginDirListing
from genplug.kubelet.pod_resources import list_devices_in_use
from genplug.kubelet.registration import Registrar
from genplug.kubelet.reports import EndpointStatus, InternalErrorCaught, Report
from genplug.kubelet.servicer import ResourceBackend
from genplug.observe.events import Event, EventLog
from genplug.spec.model import Resource

RESTART_SECONDS = 1.0
"""Seconds before an endpoint that failed by an internal error is replaced."""
REMOVED = "removed from the configuration"
"""Why the endpoint of a resource ends, if the resource is not served in another way."""


class Endpoints:
    """Serves offers. Nothing is served before :meth:`start`.

    ``build_backend`` returns what an endpoint serves for an offer; ``clean_up`` is awaited before the endpoint of a
    removed resource ends.
    """

    def __init__(
        self,
        settings: Settings,
        event_log: EventLog,
        build_backend: Callable[[ResourceOffer], ResourceBackend],
        report: Callable[[Report], None],
        clean_up: Callable[[str], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._event_log = event_log
        self._build_backend = build_backend
        self._report = report
        self._clean_up = clean_up
        self._tasks: asyncio.TaskGroup | None = None
        self._registrar: Registrar | None = None
        self._listing: PluginDirListing | None = None
        self._offers: dict[str, ResourceOffer] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._draining: dict[str, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        parts = [f"{name}: {endpoint.status.phase}" for name, endpoint in self._endpoints.items()]
        parts += [f"{name}: draining" for name in self._draining]
        return f"<Endpoints [{' | '.join(parts)}]>"

    @property
    def offers(self) -> Mapping[str, ResourceOffer]:
        """The newest offer of each resource, removed resources included."""
        return self._offers

    def is_removed(self, name: str) -> bool:
        """Return whether a resource is removed, and waits for its last pod."""
        return name in self._draining

    def status(self, name: str) -> EndpointStatus | None:
        """Return the status of the endpoint of a resource, None before it is served."""
        return self._endpoints[name].status if name in self._endpoints else None

    def start(self, tasks: asyncio.TaskGroup, registrar: Registrar) -> None:
        """Serve from now on; ``tasks`` runs the endpoints. Endpoints of an earlier call have ended."""
        self._tasks, self._registrar, self._listing = tasks, registrar, None
        self._endpoints.clear()
        removed, self._draining = tuple(self._draining), {}
        for name in removed:
            self._draining[name] = tasks.create_task(self._drain(name), name=f"drain {name}")

    def stop(self) -> None:
        """End every endpoint: streams are closed, calls in progress answered, sockets removed."""
        for drain in self._draining.values():
            drain.cancel()
        for endpoint in self._endpoints.values():
            endpoint.stop()

    def on_directory_listing(self, listing: PluginDirListing) -> None:
        """Give the endpoints a listing of the kubelet's directory, and serve what is not served yet."""
        self._listing = listing
        for endpoint in self._endpoints.values():
            endpoint.on_directory_listing(listing)
        for name, offer in self._offers.items():
            if name not in self._endpoints:
                self._serve(offer)

    def publish(self, offer: ResourceOffer) -> None:
        """Serve an offer from now on. A resource that was removed is back."""
        name = offer.resource.name
        self.keep(name)
        if self._offers.get(name) == offer:
            return
        self._offers[name] = offer
        if name in self._endpoints:
            self._endpoints[name].update(self._build_backend(offer))
        else:
            self._serve(offer)

    def keep(self, name: str) -> None:
        """Keep the endpoint of a resource that was removed and is configured again."""
        if (drain := self._draining.pop(name, None)) is not None:
            drain.cancel()

    def remove(self, resource: Resource, cause: str = REMOVED) -> None:
        """Offer nothing of a resource from now on, and end its endpoint when no pod uses it.

        Containers start again without ``preStart``: the empty offer does not have their devices, and kubelets call
        PreStartContainer for the containers of claims with ``limits`` too (docs/internals/kubelet-contract.md §7.2).
        """
        name = resource.name
        text = f"{name}: {cause}; its list is empty, its endpoint remains until no pod uses it"
        self._event_log.emit(Event.RESOURCE_REMOVED, text, resource=name)
        self.publish(build_offer(replace(resource, pre_start=None), ()))
        if self._tasks is None:
            del self._offers[name]
        else:
            self._draining[name] = self._tasks.create_task(self._drain(name), name=f"drain {name}")

    def _serve(self, offer: ResourceOffer) -> None:
        if self._tasks is None or self._registrar is None or self._listing is None:
            return
        name = offer.resource.name
        backend: LatestValue[ResourceBackend] = LatestValue(self._build_backend(offer))
        endpoint = self._endpoints[name] = Endpoint(name, backend, self._registrar, self._report)
        self._tasks.create_task(self._run_endpoint(endpoint, self._listing), name=f"endpoint {name}")

    async def _run_endpoint(self, endpoint: Endpoint, listing: PluginDirListing) -> None:
        """Run an endpoint until it is stopped; if it fails, replace it, so that it ends no other endpoint."""
        name = endpoint.resource
        try:
            await endpoint.run(listing)
        except Exception as error:  # noqa: BLE001 - an error of one resource must not end the other resources
            self._report(InternalErrorCaught(name, "the endpoint", error))
            await asyncio.sleep(RESTART_SECONDS)
            if self._endpoints.get(name) is endpoint:
                del self._endpoints[name]
                if name in self._offers:
                    self._serve(self._offers[name])

    async def _drain(self, name: str) -> None:
        await self._wait_unused(name)
        await self._clean_up(name)
        self._event_log.emit(Event.RESOURCE_DRAINED, f"{name}: no pod uses it; its endpoint ends", resource=name)
        self._endpoints.pop(name).stop()
        del self._offers[name], self._draining[name]

    async def _wait_unused(self, name: str) -> None:
        known_error, misses = "", 0
        # A kubelet that has started reports only static pods until it has listed those of the API server.
        while misses < GRACE_POLLS:
            # Wait first: the kubelet reports a pod only some time after its admission.
            await asyncio.sleep(self._settings.drain_seconds)
            try:
                used = await list_devices_in_use(self._settings.pod_resources)
            except CallError as error:
                if str(error) != known_error:
                    known_error = str(error)
                    text = f"{name}: the pods that use it are unknown, so its endpoint remains: {error}"
                    self._event_log.emit(Event.POD_RESOURCES_UNAVAILABLE, text, resource=name)
                continue
            misses = 0 if used.get(name) else misses + 1
