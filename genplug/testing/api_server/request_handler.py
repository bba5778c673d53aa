"""Answers the requests to the stand-in: authorization, verbs, lists and selectors, with the injected faults."""

import json
import time
from collections.abc import Mapping
from urllib.parse import quote, unquote

from genplug.testing.api_server.connection import Exchange
from genplug.testing.api_server.faults import ApiFaults, DroppedConnectionError
from genplug.testing.api_server.kinds import Kind, Target, find_target
from genplug.testing.api_server.records import ApiRequest
from genplug.testing.api_server.statuses import ApiStatusError, UnknownPathError, forbidden_option
from genplug.testing.api_server.store import Document, Selector, Store
from genplug.testing.api_server.watches import Watches
from genplug.testing.condition import Condition

FIRST_WITH_V1 = (1, 34)
"""The first version with ``resource.k8s.io/v1``."""
FIRST_WITH_POOL_SELECTOR = (1, 37)
"""The first version with the field selector ``spec.pool.name``."""
_UNKNOWN = Target(Kind("", "", "", ""))
"""The target of a path that the server never serves."""
_METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class RequestHandler:
    """Answers requests from a store. ``condition`` is notified after each request.

    ``version`` determines whether the server has ``resource.k8s.io/v1``, and which field selectors it knows.
    """

    def __init__(
        self, version: tuple[int, int], token: str, store: Store, faults: ApiFaults, condition: Condition
    ) -> None:
        self.version = version
        self.token = token
        """The token that requests need."""
        self.requests: list[ApiRequest] = []
        """The requests that were answered, in the order of the answers."""
        self.watches = Watches(store, condition)
        self._store, self._faults, self._condition = store, faults, condition

    async def handle(self, exchange: Exchange) -> bool:
        """Answer a request; return whether the connection continues."""
        request = exchange.request
        target = find_target(request.path) or _UNKNOWN
        verb, name = _find_verb(request.method, request.query, target), target.name
        try:
            self._authorize(exchange, target)
            await self._faults.apply(verb, target.kind.plural, name)
            if verb in ("list", "watch") and "sendInitialEvents" in request.query:
                raise forbidden_option(verb)
            if verb == "watch":
                selector = self._read_selector(request.query, target)
                self._record(exchange, verb, target, name, 200)
                return await self.watches.serve(exchange, selector)
            code, document = self._process(verb, target, exchange)
            name = document.get("metadata", {}).get("name", name)
            await self._faults.apply(verb, target.kind.plural, name, is_late=True)
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
        self.requests.append(request)
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
