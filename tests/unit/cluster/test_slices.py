"""The slices of a driver on a node, the claims of pods and the Node, at the stand-in of the API server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from genplug.allocation.slice_plan import CreateSlice, UpdateSlice, find_dropped_fields, plan_writes
from genplug.allocation.slices import SliceScope
from genplug.cluster import slices as slices_module
from genplug.cluster.claims import get_claim
from genplug.cluster.errors import ApiError, UnreachableError
from genplug.cluster.http import HttpClient
from genplug.cluster.node import get_node_uid
from genplug.cluster.slices import SliceClient
from genplug.testing.api_server import ApiServerStandIn
from tests.support.api_server import DRIVER, NODE, build_document, build_wanted, connect


@pytest.fixture
def client(http: HttpClient) -> SliceClient:
    return SliceClient(http, DRIVER, NODE)


@pytest.fixture
def scope(server: ApiServerStandIn) -> SliceScope:
    return SliceScope(DRIVER, NODE, server.add_node(NODE))


async def run(client: SliceClient, scope: SliceScope, count: int, **options: Any) -> None:
    """Write all slices of a pool, once."""
    actual = (await client.list()).slices.values()
    for write in plan_writes([build_wanted(scope, count, **options)], actual, scope):
        await client.write(write, scope)


async def test_list_has_the_slices_of_driver_and_node_from_all_pages(
    server: ApiServerStandIn, client: SliceClient, scope: SliceScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices_module, "_PAGE_SLICES", 2)
    await run(client, scope, 300)
    server.put_slice(build_document(node="node-2"))
    server.put_slice(build_document(driver="other.example.com"))
    found = await client.list()
    assert len(found.slices) == 5
    assert {part.pool for part in found.slices.values()} == {"node-1/example.com/x"}
    assert [request.verb for request in server.requests].count("list") == 4


async def test_list_with_too_many_slices_is_an_error(
    client: SliceClient, scope: SliceScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(client, scope, 130)
    monkeypatch.setattr(slices_module, "MAX_API_SLICES", 2)
    with pytest.raises(UnreachableError, match="more than 2 ResourceSlices"):
        await client.list()


async def test_plans_are_written_until_the_slices_are_the_wanted_slices(
    server: ApiServerStandIn, client: SliceClient, scope: SliceScope
) -> None:
    for count, value in ((200, 0), (200, 1), (3, 1), (0, 1), (70, 2)):
        await run(client, scope, count, value=value)
        wanted = build_wanted(scope, count, value=value)
        actual = (await client.list()).slices.values()
        assert plan_writes([wanted], actual, scope) == ()
        assert sum(len(document["spec"]["devices"]) for document in server.slices()) == count
    assert {request.code for request in server.requests} == {200, 201}


async def test_created_slice_is_owned_by_the_node(
    server: ApiServerStandIn, client: SliceClient, scope: SliceScope
) -> None:
    await run(client, scope, 1)
    server.remove_node(NODE)
    assert server.slices() == []


async def test_write_of_an_outdated_slice_is_a_conflict(
    server: ApiServerStandIn, client: SliceClient, scope: SliceScope
) -> None:
    await run(client, scope, 3)
    plan = plan_writes([build_wanted(scope, 3, value=1)], (await client.list()).slices.values(), scope)
    deletion = plan_writes([], (await client.list()).slices.values(), scope)
    (document,) = server.slices()
    server.edit_slice(document["metadata"]["name"], lambda edited: edited["spec"]["devices"].pop())
    for write in (*plan, *deletion):
        with pytest.raises(ApiError, match="the object has been modified") as failed:
            await client.write(write, scope)
        assert failed.value.status == 409


async def test_write_of_a_slice_that_was_created_again_is_a_conflict(
    server: ApiServerStandIn, client: SliceClient, scope: SliceScope
) -> None:
    await run(client, scope, 3)
    (update,) = plan_writes([build_wanted(scope, 3, value=1)], (await client.list()).slices.values(), scope)
    assert isinstance(update, UpdateSlice)
    server.wipe_slices(NODE)
    await run(client, scope, 3)
    with pytest.raises(ApiError, match="Precondition failed: UID in precondition"):
        await client.write(update, scope)


async def test_creation_is_repeatable(client: SliceClient, scope: SliceScope) -> None:
    (create,) = plan_writes([build_wanted(scope, 3)], (), scope)
    assert isinstance(create, CreateSlice)
    await client.write(create, scope)
    with pytest.raises(ApiError) as failed:
        await client.write(create, scope)
    assert (failed.value.status, failed.value.reason) == (409, "AlreadyExists")


async def test_deletion_of_a_slice_that_is_gone_succeeds(
    server: ApiServerStandIn, client: SliceClient, scope: SliceScope
) -> None:
    await run(client, scope, 3)
    (deletion,) = plan_writes([], (await client.list()).slices.values(), scope)
    server.wipe_slices(NODE)
    assert await client.write(deletion, scope) is None
    assert server.requests[-1].code == 404


@pytest.mark.parametrize(("version", "dropped"), [((1, 34), ("taints",)), ((1, 36), ())])
async def test_answer_shows_whether_the_version_keeps_taints(
    version: tuple[int, int], dropped: tuple[str, ...], tmp_path: Path
) -> None:
    async with ApiServerStandIn(version=version, tls=False) as server:
        client = SliceClient(connect(server, tmp_path), DRIVER, NODE)
        scope = SliceScope(DRIVER, NODE, server.add_node(NODE))
        (create,) = plan_writes([build_wanted(scope, 3, tainted=frozenset({1}))], (), scope)
        assert isinstance(create, CreateSlice)
        answer = await client.write(create, scope)
    assert answer is not None
    assert find_dropped_fields(create.part.devices, answer) == dropped


@pytest.mark.parametrize(("version", "keeps_taints"), [((1, 34), False), ((1, 36), True)])
async def test_probe_shows_whether_the_version_keeps_taints_and_creates_nothing(
    version: tuple[int, int], *, keeps_taints: bool, tmp_path: Path
) -> None:
    async with ApiServerStandIn(version=version, tls=False) as server:
        client = SliceClient(connect(server, tmp_path), DRIVER, NODE)
        scope = SliceScope(DRIVER, NODE, server.add_node(NODE))
        assert await client.has_taints(scope) == keeps_taints
        assert server.slices() == []


async def test_watch_has_the_changes_after_the_list(
    server: ApiServerStandIn, client: SliceClient, scope: SliceScope
) -> None:
    await run(client, scope, 3)
    found = await client.list()
    (name,) = found.slices
    server.edit_slice(name, lambda edited: edited["spec"]["devices"].pop())
    async with client.watch(found.resource_version) as events:
        changed = await anext(events)
        server.put_slice(build_document(node="node-2"))
        server.send_bookmarks()
        bookmark = await anext(events)
        server.wipe_slices(NODE)
        deleted = await anext(events)
    assert changed.name == name
    assert changed.found is not None
    assert changed.found.writer == "kubectl-edit"
    assert (bookmark.name, bookmark.found) == ("", None)
    assert (deleted.name, deleted.found) == (name, None)
    versions = [found.resource_version, changed.resource_version, bookmark.resource_version, deleted.resource_version]
    assert versions == sorted(versions, key=int)
    assert len(set(versions)) == 4


async def test_watch_after_lost_changes_has_the_error_410(
    server: ApiServerStandIn, client: SliceClient, scope: SliceScope
) -> None:
    await run(client, scope, 3)
    found = await client.list()
    server.expire_watches()
    with pytest.raises(ApiError, match="410 to 'watch resourceslices': too old resource version"):
        async with client.watch(found.resource_version) as events:
            await anext(events)


def answer(server: ApiServerStandIn, body: bytes, times: int = 1) -> None:
    """Send a body as the answer to the next requests."""
    raw = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    server.faults.drop(raw=raw, times=times)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"items": [{"metadata": {}}], "metadata": {}}', "not a ResourceSlice"),
        (b'{"items": ["a"]}', "not a ResourceSlice"),
        (b'{"items": 1}', "expected a list of ResourceSlices, found int in 'items'"),
        (b'{"items": [], "metadata": [1]}', "expected an object in 'metadata', found list"),
    ],
)
async def test_list_of_other_objects_is_an_error(
    server: ApiServerStandIn, client: SliceClient, body: bytes, reason: str
) -> None:
    answer(server, body)
    with pytest.raises(UnreachableError, match=reason):
        await client.list()


async def test_list_that_never_ends_is_an_error(
    server: ApiServerStandIn, client: SliceClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices_module, "MAX_API_SLICES", 3)
    answer(server, b'{"items": [], "metadata": {"continue": "again"}}', times=9)
    with pytest.raises(UnreachableError, match="more than 3 ResourceSlices"):
        await client.list()
    assert len(server.requests) == 3


async def test_bookmark_without_an_object_is_an_error(server: ApiServerStandIn, client: SliceClient) -> None:
    answer(server, b'{"type": "BOOKMARK", "object": {"metadata": "1"}}\n')
    with pytest.raises(UnreachableError, match="expected an object in 'metadata', found str"):
        async with client.watch("1") as events:
            await anext(events)


async def test_token_of_the_next_page_that_is_not_unicode_is_sent_back(
    server: ApiServerStandIn, client: SliceClient
) -> None:
    answer(server, b'{"items": [], "metadata": {"continue": "\\ud800"}}')
    with pytest.raises(ApiError):
        await client.list()


@pytest.mark.parametrize("body", [b'{"spec": "a"}', b'{"spec": {"devices": 1}}', b'{"spec": {"devices": ["a"]}}'])
async def test_probe_of_taints_that_is_answered_with_another_object_is_an_error(
    server: ApiServerStandIn, client: SliceClient, scope: SliceScope, body: bytes
) -> None:
    answer(server, body)
    with pytest.raises(UnreachableError, match="with another object: expected a ResourceSlice"):
        await client.has_taints(scope)


CLAIM: Mapping[str, Any] = {"metadata": {"namespace": "team", "name": "claim"}, "spec": {"devices": {}}}


async def test_claim_is_read_by_namespace_and_name(server: ApiServerStandIn, http: HttpClient) -> None:
    uid = server.put_claim(CLAIM)["metadata"]["uid"]
    found = await get_claim(http, "team", "claim")
    assert found is not None
    assert found["metadata"]["uid"] == uid
    assert await get_claim(http, "other", "claim") is None
    server.delete_claim("team", "claim")
    assert await get_claim(http, "team", "claim") is None


async def test_claim_of_a_server_without_the_group_is_an_error(server: ApiServerStandIn, http: HttpClient) -> None:
    server.version = (1, 33)
    with pytest.raises(ApiError, match="404"):
        await get_claim(http, "team", "claim")


async def test_uid_of_the_node_is_read(server: ApiServerStandIn, http: HttpClient) -> None:
    uid = server.add_node("node-1")
    assert await get_node_uid(http, "node-1") == uid
    with pytest.raises(ApiError, match='nodes "node-2" not found'):
        await get_node_uid(http, "node-2")
