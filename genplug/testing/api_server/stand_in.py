"""A stand-in for the API server of Kubernetes: ResourceSlices, ResourceClaims and Nodes over HTTP/1.1 and TLS.

    async with ApiServerStandIn() as server:
        server.add_node("node-1")
        environment, account = server.environment, server.write_account(directory)
        ...                                     # start a driver with these
        await server.wait_for_slices(lambda slices: len(slices) == 2)
        server.wipe_slices("node-1")            # as the kubelet does at its start

docs/how-to/test-a-dra-driver.md lists what the stand-in does not imitate. It uses one event loop and does not poll.
"""
# ruff: noqa: ASYNC109 - a test passes its timeout with the wait

import asyncio
import copy
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

from genplug.testing.api_server.certificates import build_server_context, create_certificates
from genplug.testing.api_server.connection import Exchange, serve_connection
from genplug.testing.api_server.faults import ApiFaults, DroppedConnectionError
from genplug.testing.api_server.kinds import CLAIMS, NODES, SLICES, Kind, Target, find_target
from genplug.testing.api_server.records import ApiRequest
from genplug.testing.api_server.statuses import ApiStatusError, UnknownPathError, forbidden_option
from genplug.testing.api_server.store import Document, Selector, Store
from genplug.testing.condition import Condition

FIRST_WITH_V1 = (1, 34)
"""The first version with ``resource.k8s.io/v1``."""
FIRST_WITH_TAINTS = (1, 36)
"""The first version that keeps the taints of devices by default."""
FIRST_WITH_POOL_SELECTOR = (1, 37)
"""The first version with the field selector ``spec.pool.name``."""
_WATCH_SECONDS = 1800.0
"""How long a watch lasts without ``timeoutSeconds``; the API server chooses 30 to 60 minutes."""
_UNKNOWN = Target(Kind("", "", "", ""))
"""The target of a path that the server never serves."""
_METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class ApiServerStandIn:
    """An API server with one user.

    ``version`` determines whether the server has ``resource.k8s.io/v1``, and whether it keeps the taints of devices,
    which ``keeps_taints`` overrides. With ``tls``, the server has a certificate of a certificate authority of its own,
    for ``names``, or for ``host``, ``localhost`` and ``kubernetes.default.svc``; the program ``openssl`` makes both.
    """

    def __init__(
        self,
        *,
        version: tuple[int, int] = (1, 37),
        keeps_taints: bool | None = None,
        tls: bool = True,
        host: str = "127.0.0.1",
        names: Collection[str] = (),
    ) -> None:
        self.version = version
        self.host = host
        self.port = 0
        """The port; chosen at the first start, and the same after further starts."""
        self.tls = tls
        self._names = tuple(dict.fromkeys(names or (host, "localhost", "kubernetes.default.svc")))
        self.token = secrets.token_hex(16)
        """The token that requests need; :meth:`rotate_token` replaces it."""
        self.faults = ApiFaults()
        self._requests: list[ApiRequest] = []
        self._condition = Condition()
        self._store = Store(self._condition.notify_all)
        self._store.keeps_taints = version >= FIRST_WITH_TAINTS if keeps_taints is None else keeps_taints
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._ended_watches = 0
        self._bookmarks = 0
        self.watches = 0
        """The number of open watches."""
        self.accepted = 0
        """The number of connections since the first start."""
        self._files = AsyncExitStack()
        self._directory: Path | None = None
        self._accounts: list[Path] = []

    def __repr__(self) -> str:
        state = f"on {self.url}" if self.is_running else "stopped"
        slices = ", ".join(
            f"{document['metadata']['name']} ({document['spec']['pool']['name']}, generation "
            f"{document['spec']['pool']['generation']}, {len(document['spec'].get('devices') or ())} devices)"
            for document in self.slices()
        )
        last = ", ".join(f"{request.verb} {request.resource} {request.code}" for request in self._requests[-5:])
        version = ".".join(map(str, self.version))
        return f"<ApiServerStandIn {version} {state}; slices: {slices or 'none'}; last requests: {last or 'none'}>"

    @property
    def url(self) -> str:
        """The URL of the server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables by which a pod finds the server."""
        return {"KUBERNETES_SERVICE_HOST": self.host, "KUBERNETES_SERVICE_PORT": str(self.port)}

    @property
    def is_running(self) -> bool:
        """Whether the server accepts connections."""
        return self._server is not None

    @property
    def requests(self) -> tuple[ApiRequest, ...]:
        """All requests that were answered, in the order of the answers."""
        return tuple(self._requests)

    async def start(self) -> None:
        """Listen. Objects, tokens and certificates are those of before."""
        if self.is_running:
            raise RuntimeError("the server is already running; stop it first")
        directory = self._get_directory()
        context = build_server_context(directory) if self.tls else None
        self._server = await asyncio.start_server(self._accept, self.host, self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        self._condition.notify_all()

    async def stop(self) -> None:
        """End all connections, and refuse further connections."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._condition.notify_all()

    async def restart(self) -> None:
        """Stop and start again. The changes of before are forgotten, so that watches cannot continue."""
        await self.stop()
        self._store.expire()
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.faults.clear()
        await self.stop()
        await self._files.aclose()

    def write_account(self, directory: Path) -> Path:
        """Write the files of a service account, ``token``, ``ca.crt`` and ``namespace``; return the directory.

        :meth:`rotate_token` writes the token again.
        """
        directory.mkdir(parents=True, exist_ok=True)
        if self.tls:
            (directory / "ca.crt").write_bytes((self._get_directory() / "ca.crt").read_bytes())
        (directory / "namespace").write_text("default")
        self._accounts.append(directory)
        self._write_tokens()
        return directory

    def rotate_token(self) -> str:
        """Replace the token; the previous token is refused from now on."""
        self.token = secrets.token_hex(16)
        self._write_tokens()
        return self.token

    def slices(self, *, driver: str = "", node: str = "") -> list[Document]:
        """Return the slices, in order of their names, of all drivers and nodes or of one."""
        fields = {"spec.driver": driver, "spec.nodeName": node}
        selected = {path: value for path, value in fields.items() if value}
        return copy.deepcopy(self._store.select(Selector(Target(SLICES), selected)))

    def put_slice(self, document: Mapping[str, Any], manager: str = "kubectl-edit") -> Document:
        """Create or replace a slice, as another client does; return it as the server has it.

        Raises:
            ApiStatusError: the slice is invalid.
        """
        return self._put(SLICES, document, manager)

    def edit_slice(self, name: str, change: Callable[[Document], object], manager: str = "kubectl-edit") -> Document:
        """Change a slice, as another client does: ``change`` gets the document and changes it."""
        document = copy.deepcopy(self._store.get(Target(SLICES, name=name)))
        change(document)
        return self._put(SLICES, document, manager)

    def delete_slice(self, name: str) -> None:
        """Delete a slice, as another client does."""
        self._store.delete(Target(SLICES, name=name))

    def wipe_slices(self, node: str, driver: str = "") -> int:
        """Delete the slices of a node, as the kubelet does; return their number.

        The kubelet deletes those of all drivers when it starts, and those of a driver 30 seconds after the driver is
        not connected any more.
        """
        fields = {"spec.nodeName": node} | ({"spec.driver": driver} if driver else {})
        return len(self._store.delete_all(Selector(Target(SLICES), fields)))

    def put_claim(self, document: Mapping[str, Any]) -> Document:
        """Create or replace a ResourceClaim; return it as the server has it, with its UID."""
        return self._put(CLAIMS, document, "kube-scheduler")

    def delete_claim(self, namespace: str, name: str) -> None:
        """Delete a ResourceClaim."""
        self._store.delete(Target(CLAIMS, namespace, name))

    def add_node(self, name: str) -> str:
        """Create a Node; return its UID."""
        return str(self._put(NODES, {"metadata": {"name": name}}, "kubelet")["metadata"]["uid"])

    def remove_node(self, name: str) -> None:
        """Delete a Node, and what it owns, as the garbage collector does."""
        node = self._store.delete(Target(NODES, name=name))
        uid = node["metadata"]["uid"]
        for document in self.slices():
            if any(owner["uid"] == uid for owner in document["metadata"].get("ownerReferences") or ()):
                self.delete_slice(document["metadata"]["name"])

    def end_watches(self) -> None:
        """End all open watches, as a server does after some minutes."""
        self._ended_watches += 1
        self._condition.notify_all()

    def expire_watches(self) -> None:
        """Forget all changes and end all watches: a watch from an earlier resource version gets the error 410."""
        self._store.version += 1
        self._store.expire()
        self.end_watches()

    def send_bookmarks(self) -> None:
        """Send a bookmark to all open watches that accept bookmarks."""
        self._bookmarks += 1
        self._condition.notify_all()

    async def wait_for(self, predicate: Callable[[], bool], timeout: float = 30) -> None:
        """Wait until a predicate about this server holds; it is evaluated after every change and request.

        Raises:
            TimeoutError: the predicate did not hold within ``timeout`` seconds.
        """
        await self._condition.wait_for(predicate, timeout, lambda: repr(self))

    async def wait_for_slices(
        self, predicate: Callable[[list[Document]], bool] = bool, timeout: float = 30
    ) -> list[Document]:
        """Wait until a predicate about all slices holds; return the slices.

        Raises:
            TimeoutError: the predicate did not hold within ``timeout`` seconds.
        """
        await self.wait_for(lambda: predicate(self.slices()), timeout)
        return self.slices()

    def _put(self, kind: Kind, document: Mapping[str, Any], manager: str) -> Document:
        metadata = document["metadata"]
        target = Target(kind, metadata.get("namespace", "default") if kind.is_namespaced else "", metadata["name"])
        is_known = any(found["metadata"]["name"] == target.name for found in self._store.select(Selector(target)))
        write = self._store.update if is_known else self._store.create
        return copy.deepcopy(write(target, dict(document), manager))

    def _get_directory(self) -> Path:
        if self._directory is None:
            self._directory = Path(self._files.enter_context(tempfile.TemporaryDirectory(prefix="api")))
            if self.tls:
                create_certificates(self._directory, self._names)
        return self._directory

    def _write_tokens(self) -> None:
        for directory in self._accounts:
            # Replaced and not written, so that a reader never gets a part.
            (directory / "token.new").write_text(self.token)
            (directory / "token.new").replace(directory / "token")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type
        self._connections.add(task)
        self.accepted += 1
        self._condition.notify_all()
        try:
            with suppress(asyncio.CancelledError):
                await serve_connection(reader, writer, self._handle)
        finally:
            self._connections.discard(task)

    async def _handle(self, exchange: Exchange) -> bool:
        """Answer a request; return whether the connection continues."""
        request = exchange.request
        target = find_target(request.path) or _UNKNOWN
        verb, name = _find_verb(request.method, request.query, target), target.name
        try:
            self._authorize(exchange, target)
            await self.faults.apply(verb, target.kind.plural, name)
            if verb in ("list", "watch") and "sendInitialEvents" in request.query:
                raise forbidden_option(verb)
            if verb == "watch":
                selector = self._read_selector(request.query, target)
                self._record(exchange, verb, target, name, 200)
                return await self._watch(exchange, selector)
            code, document = self._process(verb, target, exchange)
            name = document.get("metadata", {}).get("name", name)
            await self.faults.apply(verb, target.kind.plural, name, is_late=True)
            body, content_type, headers = json.dumps(document).encode(), "application/json", {}
        except (ApiStatusError, ValueError) as failed:
            error = failed if isinstance(failed, ApiStatusError) else ApiStatusError(400, str(failed))
            code, body, content_type, headers = error.code, error.body, error.content_type, error.headers
        except DroppedConnectionError as dropped:
            self._record(exchange, verb, target, name, 0)
            await exchange.abort(dropped.raw)
            return False
        self._record(exchange, verb, target, name, code)
        await exchange.respond(code, body, content_type, headers)
        return True

    def _authorize(self, exchange: Exchange, target: Target) -> None:
        """Raise an error for a request without the token, or to a path that this version does not serve."""
        if exchange.request.headers.get("authorization") != f"Bearer {self.token}":
            raise ApiStatusError(401, "Unauthorized")
        if target == _UNKNOWN or (target.kind.group and self.version < FIRST_WITH_V1):
            raise UnknownPathError

    def _process(self, verb: str, target: Target, exchange: Exchange) -> tuple[int, Document]:
        request = exchange.request
        manager = request.query.get("fieldManager") or request.headers.get("user-agent", "unknown").split("/")[0]
        is_dry_run = request.query.get("dryRun") == "All"
        match verb:
            case "get":
                return 200, self._store.get(target)
            case "list":
                return 200, self._list(self._read_selector(request.query, target), request.query)
            case "create":
                document = _read_body(exchange, required=True)
                return 201, self._store.create(target, document, manager, is_dry_run=is_dry_run)
            case "update":
                document = _read_body(exchange, required=True)
                return 200, self._store.update(target, document, manager, is_dry_run=is_dry_run)
            case "delete":
                conditions = _read_body(exchange).get("preconditions") or {}
                deleted = self._store.delete(target, conditions.get("uid"), conditions.get("resourceVersion"))
                details = {"name": target.name, "kind": target.kind.plural, "uid": deleted["metadata"]["uid"]}
                return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success", "details": details}
            case "deletecollection":
                deleted_all = self._store.delete_all(self._read_selector(request.query, target))
                return 200, self._build_list(target.kind, deleted_all, str(self._store.version))
            case _:
                raise ApiStatusError(405, "the server does not allow this method on the requested resource")

    def _list(self, selector: Selector, query: Mapping[str, str]) -> Document:
        """Return a page of a list.

        A page continues after the name in ``continue``, and has the resource version of the first page.
        """
        items = self._store.select(selector)
        version = str(self._store.version)
        if after := unquote(query.get("continue", "")):
            version, _, name = after.partition("/")
            if int(version) < self._store.oldest:
                message = "The provided continue parameter is too old to display a consistent list result."
                raise ApiStatusError(410, message, reason="Expired")
            items = [document for document in items if document["metadata"]["name"] > name]
        limit = int(query.get("limit") or 0) or len(items)
        page = self._build_list(selector.target.kind, items[:limit], version)
        if rest := len(items) - limit if limit < len(items) else 0:
            last = items[limit - 1]["metadata"]["name"]
            page["metadata"] |= {"continue": quote(f"{version}/{last}"), "remainingItemCount": rest}
        return page

    def _build_list(self, kind: Kind, items: list[Document], version: str) -> Document:
        return {
            "kind": f"{kind.kind}List",
            "apiVersion": kind.api_version,
            "metadata": {"resourceVersion": version},
            "items": items,
        }

    async def _watch(self, exchange: Exchange, selector: Selector) -> bool:
        """Send the changes of the selected objects; return whether the connection continues.

        Without a resource version, and after the version 0, the objects are sent first as created.
        """
        query = exchange.request.query
        seconds = float(query.get("timeoutSeconds") or _WATCH_SECONDS)
        requested = int(query.get("resourceVersion") or 0)
        version, initial = requested or self._store.version, [] if requested else self._store.select(selector)
        await exchange.start_stream()
        self.watches += 1
        self._condition.notify_all()
        closed = asyncio.ensure_future(exchange.wait_closed())
        sending = asyncio.ensure_future(self._send_changes(exchange, selector, version, initial))
        try:
            await asyncio.wait((closed, sending), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if closed.done():
                return False
        finally:
            for task in (closed, sending):
                task.cancel()
            await asyncio.gather(closed, sending, return_exceptions=True)
            self.watches -= 1
            self._condition.notify_all()
        if query.get("allowWatchBookmarks") == "true":
            await exchange.send_part(self._encode_bookmark(selector.target.kind))
        await exchange.end_stream()
        return True

    async def _send_changes(
        self, exchange: Exchange, selector: Selector, version: int, initial: list[Document]
    ) -> None:
        query = exchange.request.query
        ended, bookmarks = self._ended_watches, self._bookmarks
        for document in initial:
            await exchange.send_part(_encode_event("ADDED", document))
        while ended == self._ended_watches:
            seen = self._state
            try:
                changes = self._store.changes_after(version)
            except ApiStatusError as error:
                await exchange.send_part(_encode_event("ERROR", error.document))
                return
            for change in changes:
                version = change.version
                if selector.matches(change.kind, change.document):
                    await exchange.send_part(_encode_event(change.type, change.document))
            if bookmarks != self._bookmarks:
                bookmarks = self._bookmarks
                if query.get("allowWatchBookmarks") == "true":
                    await exchange.send_part(self._encode_bookmark(selector.target.kind))
            await self._condition.wait_for(partial(self._has_changed, seen))

    @property
    def _state(self) -> tuple[int, int, int]:
        """The state on which watches depend."""
        return self._store.version, self._ended_watches, self._bookmarks

    def _has_changed(self, seen: tuple[int, int, int]) -> bool:
        return seen != self._state

    def _encode_bookmark(self, kind: Kind) -> bytes:
        metadata = {"resourceVersion": str(self._store.version), "creationTimestamp": None}
        return _encode_event("BOOKMARK", {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata})

    def _read_selector(self, query: Mapping[str, str], target: Target) -> Selector:
        known = ["metadata.name", "metadata.namespace", *target.kind.selectable]
        if self.version < FIRST_WITH_POOL_SELECTOR and "spec.pool.name" in known:
            known.remove("spec.pool.name")
        fields = {}
        for part in filter(None, query.get("fieldSelector", "").split(",")):
            path, _, value = part.partition("=")
            if path not in known:
                message = f'field label not supported: "{path}"'
                raise ApiStatusError(400, message)
            fields[path] = value.removeprefix("=")
        return Selector(target, fields)

    def _record(self, exchange: Exchange, verb: str, target: Target, name: str, code: int) -> None:
        user_agent = exchange.request.headers.get("user-agent", "")
        request = ApiRequest(verb, target.kind.plural, target.namespace, name, code, time.monotonic(), user_agent)
        self._requests.append(request)
        self._condition.notify_all()


def _find_verb(method: str, query: Mapping[str, str], target: Target) -> str:
    if method == "GET":
        if target.name:
            return "get"
        return "watch" if query.get("watch") in ("1", "true") else "list"
    verb = _METHODS.get(method, "")
    return "deletecollection" if verb == "delete" and not target.name else verb


def _read_body(exchange: Exchange, *, required: bool = False) -> Document:
    request = exchange.request
    if not request.body and not required:
        return {}
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise ApiStatusError(
            415, "the body of the request was in an unknown format - accepted media types include: json"
        )
    try:
        document = json.loads(request.body)
    except ValueError as error:
        raise ApiStatusError(400, f"the object provided is unrecognized: {error}") from error
    if not isinstance(document, dict):
        raise ApiStatusError(400, "the object provided is unrecognized: expected an object")
    return document


def _encode_event(event: str, document: Document) -> bytes:
    return json.dumps({"type": event, "object": document}).encode() + b"\n"
