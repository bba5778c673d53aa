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
import secrets
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Self

from genplug.testing.api_server.certificates import build_server_context, create_certificates
from genplug.testing.api_server.connection import serve_connection
from genplug.testing.api_server.faults import ApiFaults
from genplug.testing.api_server.kinds import CLAIMS, NODES, SLICES, Kind, Target
from genplug.testing.api_server.records import ApiRequest
from genplug.testing.api_server.request_handler import RequestHandler
from genplug.testing.api_server.store import Document, Selector, Store
from genplug.testing.condition import Condition

FIRST_WITH_TAINTS = (1, 36)
"""The first version that keeps the taints of devices by default."""


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
        self.host = host
        self.port = 0
        """The port; chosen at the first start, and the same after further starts."""
        self.tls = tls
        self._names = tuple(dict.fromkeys(names or (host, "localhost", "kubernetes.default.svc")))
        self.faults = ApiFaults()
        self._condition = Condition()
        self._store = Store(self._condition.notify_all)
        self._store.keeps_taints = version >= FIRST_WITH_TAINTS if keeps_taints is None else keeps_taints
        self._handler = RequestHandler(version, secrets.token_hex(16), self._store, self.faults, self._condition)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
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
        last = ", ".join(f"{request.verb} {request.resource} {request.code}" for request in self.requests[-5:])
        version = ".".join(map(str, self.version))
        return f"<ApiServerStandIn {version} {state}; slices: {slices or 'none'}; last requests: {last or 'none'}>"

    @property
    def version(self) -> tuple[int, int]:
        """The version of Kubernetes."""
        return self._handler.version

    @version.setter
    def version(self, version: tuple[int, int]) -> None:
        self._handler.version = version

    @property
    def token(self) -> str:
        """The token that requests need; :meth:`rotate_token` replaces it."""
        return self._handler.token

    @token.setter
    def token(self, token: str) -> None:
        self._handler.token = token

    @property
    def watches(self) -> int:
        """The number of open watches."""
        return self._handler.watches.count

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
        return tuple(self._handler.requests)

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
        self._handler.token = secrets.token_hex(16)
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
        self._handler.watches.end_all()

    def expire_watches(self) -> None:
        """Forget all changes and end all watches: a watch from an earlier resource version gets the error 410."""
        self._store.version += 1
        self._store.expire()
        self.end_watches()

    def send_bookmarks(self) -> None:
        """Send a bookmark to all open watches that accept bookmarks."""
        self._handler.watches.send_bookmarks()

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
                await serve_connection(reader, writer, self._handler.handle)
        finally:
            self._connections.discard(task)
