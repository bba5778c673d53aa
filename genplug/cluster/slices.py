"""The ResourceSlices of a driver on a node: list, watch, create, update, delete."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from genplug.allocation.published import PublishedDevice, PublishedResource, Taint
from genplug.allocation.slice_plan import (
    FIRST_GENERATION,
    CreateSlice,
    DeleteSlice,
    UpdateSlice,
    Write,
    find_dropped_fields,
)
from genplug.allocation.slices import ActualSlice, SliceScope, build_pool, read_slice, slice_document
from genplug.cluster.errors import ApiError, UnreachableError, read_status
from genplug.cluster.http import HttpClient, Request, build_path
from genplug.spec.limits import MAX_API_SLICES

_SUBJECT = "resourceslices"
_COLLECTION = build_path("apis", "resource.k8s.io", "v1", "resourceslices")
_PAGE_SLICES = 20
"""Slices of a page of a list: the event loop decodes a page of 64 devices in each slice in 4 ms."""
_WATCH_SECONDS = (300, 600)
"""The shortest and the longest time of a watch, chosen at random so that the agents do not watch again together."""
_NOT_FOUND = 404


class SliceList(Struct, frozen=True):
    """The slices by name, and the resource version from which a watch continues."""

    slices: Mapping[str, ActualSlice]
    resource_version: str


class SliceEvent(Struct, frozen=True):
    """An event of a watch: ``name`` has the state ``found``, None if it was deleted. A bookmark has an empty name."""

    name: str
    found: ActualSlice | None
    resource_version: str


class SliceClient:
    """Reads and writes the slices of a driver on a node."""

    def __init__(self, http: HttpClient, driver: str, node: str) -> None:
        self._http = http
        self._selector = f"spec.nodeName={node},spec.driver={driver}"

    async def list(self) -> SliceList:
        """Return all slices.

        Raises:
            AccountError, ApiError, UnreachableError: as for :meth:`HttpClient.request`.
        """
        slices: dict[str, ActualSlice] = {}
        query = {"fieldSelector": self._selector, "limit": str(_PAGE_SLICES)}
        # A page can be empty and not the last, so that their number needs a limit too.
        for _ in range(MAX_API_SLICES):
            page = await self._http.request(Request("list", _SUBJECT, "GET", _COLLECTION, query))
            metadata, items = _read_metadata(page), page.get("items") or []
            if not isinstance(items, list):
                raise UnreachableError(f"expected a list of ResourceSlices, found {type(items).__name__} in 'items'")
            for document in items:
                found = _read(document)
                slices[found.name] = found
                # The digest of a slice takes 0.7 ms.
                await asyncio.sleep(0)
            if len(slices) > MAX_API_SLICES:
                break
            if not metadata.get("continue"):
                return SliceList(slices, str(metadata.get("resourceVersion") or ""))
            query = query | {"continue": str(metadata["continue"])}
        raise UnreachableError(f"the driver has more than {MAX_API_SLICES} ResourceSlices on this node")

    async def write(self, write: Write, scope: SliceScope) -> dict[str, Any] | None:
        """Create, update or delete a slice; return it as the server has it, None after a deletion.

        Raises:
            AccountError, ApiError, UnreachableError: as for :meth:`HttpClient.request`.
        """
        match write:
            case DeleteSlice():
                await self._delete(write)
                return None
            case UpdateSlice():
                document = slice_document(
                    scope,
                    write.pool,
                    write.part,
                    write.generation,
                    uid=write.uid,
                    resource_version=write.resource_version,
                )
                path = f"{_COLLECTION}{build_path(write.name)}"
                request = Request("update", f"{_SUBJECT}/{write.name}", "PUT", path, document=document)
            case CreateSlice():
                document = slice_document(scope, write.pool, write.part, write.generation)
                request = Request("create", f"{_SUBJECT}/{write.name}", "POST", _COLLECTION, document=document)
        answer = await self._http.request(request)
        _read(answer)
        return answer

    async def has_taints(self, scope: SliceScope) -> bool:
        """Return whether the API server keeps the taints of devices, by the creation of a slice as a dry run.

        Raises:
            AccountError, ApiError, UnreachableError: as for :meth:`HttpClient.request`.
        """
        device = PublishedDevice("probe", "probe", {}, {}, (Taint(f"{scope.driver}/probe", "", "NoSchedule"),))
        pool = build_pool(PublishedResource(f"{scope.driver}/probe", (device,)), scope)
        document = slice_document(scope, pool, pool.slices[0], FIRST_GENERATION)
        subject = f"{_SUBJECT}/{pool.slices[0].name}"
        request = Request("create", subject, "POST", _COLLECTION, {"dryRun": "All"}, document)
        answer = await self._http.request(request)
        try:
            return not find_dropped_fields([device], answer)
        except ValueError as error:
            raise UnreachableError(
                f"the API server answered '{request.action}' with another object: {error}"
            ) from error

    @asynccontextmanager
    async def watch(self, resource_version: str) -> AsyncIterator[AsyncIterator[SliceEvent]]:
        """Open a watch that continues after a resource version; yield an iterator over its events.

        Raises:
            AccountError, UnreachableError: as for :meth:`HttpClient.request`.
            ApiError: also from the iterator, with the status 410 if changes were lost.
        """
        seconds = random.randint(*_WATCH_SECONDS)  # noqa: S311 - no secret
        query = {
            "watch": "1",
            "fieldSelector": self._selector,
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        request = Request("watch", _SUBJECT, "GET", _COLLECTION, query)
        async with self._http.watch(request, seconds) as documents:
            yield _read_events(documents, request.action)

    async def _delete(self, write: DeleteSlice) -> None:
        document = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": write.uid, "resourceVersion": write.resource_version},
        }
        path = f"{_COLLECTION}{build_path(write.name)}"
        try:
            await self._http.request(Request("delete", f"{_SUBJECT}/{write.name}", "DELETE", path, document=document))
        except ApiError as error:
            if error.status != _NOT_FOUND or error.is_path_unknown:
                raise


async def _read_events(documents: AsyncIterator[dict[str, Any]], action: str) -> AsyncIterator[SliceEvent]:
    async for event in documents:
        kind, document = event.get("type"), event.get("object")
        if not isinstance(document, dict):
            raise UnreachableError(f"expected an object in an event of '{action}', found {type(document).__name__}")
        if kind == "ERROR":
            raise read_status(action, document)
        if kind == "BOOKMARK":
            yield SliceEvent("", None, str(_read_metadata(document).get("resourceVersion") or ""))
            continue
        found = _read(document)
        yield SliceEvent(found.name, None if kind == "DELETED" else found, found.resource_version)


def _read_metadata(document: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = document.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise UnreachableError(f"expected an object in 'metadata', found {type(metadata).__name__}")
    return metadata


def _read(document: Mapping[str, Any]) -> ActualSlice:
    try:
        return read_slice(document)
    except ValueError as error:
        raise UnreachableError(f"the API server sent an object that is not a ResourceSlice: {error}") from error
