"""The stand-in of the API server: what it accepts, refuses and changes."""

import asyncio
import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from genplug.cluster.errors import ApiError, UnreachableError
from genplug.cluster.http import HttpClient, Request
from genplug.testing.api_server import ApiServerStandIn
from genplug.testing.api_server.statuses import ApiStatusError
from genplug.testing.api_server.validation import validate_slice
from tests.support.api_server import NODE, SLICES_PATH, build_document, connect, list_slices


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ApiServerStandIn]:
    async with ApiServerStandIn(tls=False) as server:
        yield server


@pytest_asyncio.fixture
async def http(server: ApiServerStandIn, tmp_path: Path) -> AsyncIterator[HttpClient]:
    client = connect(server, tmp_path)
    yield client
    client.close()


def create(document: dict[str, Any], **query: str) -> Request:
    return Request("create", "resourceslices", "POST", SLICES_PATH, query, document)


def edit(path: str, value: object, count: int = 1) -> dict[str, Any]:
    """Return a slice with another value at a path; the value None removes it."""
    document = build_document(count)
    *parents, last = path.split(".")
    place: Any = document
    for name in parents:
        place = place[int(name) if name.isdigit() else name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


def test_valid_slices_have_no_errors() -> None:
    assert validate_slice(build_document(128)) == []
    document = build_document(64)
    document["spec"]["devices"][0]["taints"] = [{"key": "example.com/a", "value": "b", "effect": "None"}]
    document["spec"]["devices"][1] |= {
        "attributes": {"example.com/a_b": {"version": "1.2.3-rc.1+4"}, "x": {"string": "x" * 64}},
        "capacity": {"memory": {"value": "1.5Gi"}},
    }
    assert validate_slice(document) == []


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("metadata.name", "A_b", "metadata.name: Invalid value"),
        ("spec.driver", "", "spec.driver: Required value"),
        ("spec.driver", f"{'a.' * 32}b", "spec.driver: Too long: may not be more than 63 bytes"),
        ("spec.pool.name", "node-1/example.com/Sriov_X", 'spec.pool.name: Invalid value: "Sriov_X"'),
        ("spec.pool.name", "/".join(["a" * 100] * 3), "spec.pool.name: Too long: may not be more than 253 bytes"),
        ("spec.pool.resourceSliceCount", 0, "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than"),
        ("spec.pool.generation", -1, "spec.pool.generation: Invalid value: -1"),
        ("spec.nodeName", None, "spec: Required value: exactly one of"),
        ("spec.allNodes", True, "spec: Required value: exactly one of"),
        ("spec.devices.0.name", "A_b", 'spec.devices[0].name: Invalid value: "A_b": a lowercase RFC 1123 label'),
        ("spec.devices.0.name", "a" * 64, "spec.devices[0].name: Invalid value"),
        (
            "spec.devices.0.attributes.value.string",
            "x" * 65,
            "spec.devices[0].attributes[value].string: Too long: may not be more than 64 bytes",
        ),
        (
            "spec.devices.0.attributes.value",
            {"string": "\N{BULLET}" * 22},
            "spec.devices[0].attributes[value].string: Too long",
        ),
        ("spec.devices.0.attributes.value", {"version": "1.2"}, "spec.devices[0].attributes[value].version: Invalid"),
        ("spec.devices.0.attributes.value", {}, "spec.devices[0].attributes[value]: Invalid value"),
        ("spec.devices.0.attributes", {"1a": {"int": 1}}, "spec.devices[0].attributes: Invalid value"),
        ("spec.devices.0.attributes", {"a" * 33: {"int": 1}}, "spec.devices[0].attributes: Too long"),
        ("spec.devices.0.attributes", {"a/b/c": {"int": 1}}, "spec.devices[0].attributes: Invalid value"),
        (
            "spec.devices.0.attributes",
            {f"a{number}": {"int": 1} for number in range(33)},
            "spec.devices[0]: Invalid value: 33: the total number of attributes and capacities must not exceed 32",
        ),
        ("spec.devices.0.capacity", {"memory": {"value": "much"}}, "spec.devices[0].capacity[memory].value"),
        (
            "spec.devices.0.taints",
            [{"key": "a", "effect": "Never"}],
            'spec.devices[0].taints[0].effect: Unsupported value: "Never"',
        ),
        ("spec.devices.0.taints", [{"key": "", "effect": "None"}], "spec.devices[0].taints[0].key: Invalid value"),
        (
            "spec.devices.0.taints",
            [{"key": "a", "value": "no label", "effect": "None"}],
            "spec.devices[0].taints[0].value: Invalid value",
        ),
        ("spec.devices.0.taints", [{"key": "a", "effect": "None"}] * 17, "spec.devices[0].taints: Too many: 17"),
    ],
)
def test_invalid_field_is_an_error_with_its_path(path: str, value: object, error: str) -> None:
    errors = [f"{where}: {text}" for where, text in validate_slice(edit(path, value))]
    assert [text for text in errors if text.startswith(error)], errors


@pytest.mark.parametrize(("count", "taints", "limit"), [(129, [], 128), (65, [{"key": "a", "effect": "None"}], 64)])
def test_number_of_devices_is_limited_and_more_so_with_taints(
    count: int, taints: list[dict[str, str]], limit: int
) -> None:
    document = build_document(1)
    document["spec"]["devices"] = [{"name": f"d{number}", "taints": taints} for number in range(count)]
    assert validate_slice(document) == [("spec.devices", f"Too many: {count}: must have at most {limit} items")]
    document["spec"]["devices"].pop()
    assert validate_slice(document) == []


def test_names_of_devices_must_differ() -> None:
    document = build_document(2)
    document["spec"]["devices"][1]["name"] = "d0"
    assert validate_slice(document) == [("spec.devices[1]", 'Duplicate value: "d0"')]


@pytest.mark.parametrize("field", ["driver", "nodeName", "pool"])
def test_field_that_is_immutable_cannot_be_changed(server: ApiServerStandIn, field: str) -> None:
    document = server.put_slice(build_document())
    value = {"name": "other", "generation": 1, "resourceSliceCount": 1} if field == "pool" else "other"
    document["spec"][field] = value
    with pytest.raises(ApiStatusError, match="field is immutable"):
        server.put_slice(document)


async def test_refused_slice_is_the_error_422_with_causes(server: ApiServerStandIn, http: HttpClient) -> None:
    document = edit("spec.devices.0.name", "A_b")
    with pytest.raises(ApiError) as failed:
        await http.request(create(document))
    assert (failed.value.status, failed.value.reason) == (422, "Invalid")
    name = document["metadata"]["name"]
    assert failed.value.message.startswith(f'ResourceSlice.resource.k8s.io "{name}" is invalid: spec.devices[0].name')
    assert server.slices() == []


async def test_created_slice_has_the_fields_of_the_server(server: ApiServerStandIn, http: HttpClient) -> None:
    document = build_document()
    document["spec"]["devices"][0] |= {
        "taints": [{"key": "a", "effect": "NoSchedule"}],
        "capacity": {"memory": {"value": "2048Mi"}},
    }
    answer = await http.request(create(document))
    metadata = answer["metadata"]
    assert {"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"} <= metadata.keys()
    assert metadata["managedFields"][0]["manager"] == "genplug"
    (device,) = answer["spec"]["devices"]
    assert device["taints"][0]["timeAdded"]
    assert device["capacity"]["memory"]["value"] == "2Gi"
    assert server.slices() == [answer]


async def test_dry_run_changes_nothing(server: ApiServerStandIn, http: HttpClient) -> None:
    await http.request(create(build_document(), dryRun="All"))
    assert server.slices() == []
    with pytest.raises(ApiError, match="answered 422"):
        await http.request(create(edit("spec.driver", ""), dryRun="All"))


def test_equal_update_keeps_the_resource_version(server: ApiServerStandIn) -> None:
    document = build_document()
    document["spec"]["devices"][0]["taints"] = [{"key": "a", "effect": "NoSchedule"}]
    created = server.put_slice(document)
    assert server.put_slice(document) == created
    document["spec"]["devices"][0]["taints"][0]["value"] = "b"
    updated = server.put_slice(document, manager="other")
    assert updated["metadata"]["resourceVersion"] != created["metadata"]["resourceVersion"]
    assert updated["metadata"]["generation"] == 2
    assert [entry["manager"] for entry in updated["metadata"]["managedFields"]] == ["kubectl-edit", "other"]


async def test_name_can_be_generated(http: HttpClient) -> None:
    document = build_document()
    document["metadata"] = {"generateName": "node-1-"}
    names = {(await http.request(create(document)))["metadata"]["name"] for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("node-1-") for name in names)


async def test_collection_is_deleted_by_selectors(server: ApiServerStandIn, http: HttpClient) -> None:
    for node in ("node-1", "node-2"):
        for driver in ("a.example.com", "b.example.com"):
            server.put_slice(build_document(node=node, driver=driver))
    query = {"fieldSelector": "spec.nodeName=node-1,spec.driver=a.example.com"}
    await http.request(Request("deletecollection", "resourceslices", "DELETE", SLICES_PATH, query))
    assert len(server.slices()) == 3
    assert server.wipe_slices("node-2", "b.example.com") == 1
    assert server.wipe_slices("node-1") == 1
    assert len(server.slices(driver="a.example.com", node="node-2")) == len(server.slices()) == 1


async def test_selector_that_the_version_does_not_know_is_an_error(tmp_path: Path) -> None:
    selector = "spec.pool.name=node-1"
    async with ApiServerStandIn(version=(1, 36), tls=False) as server:
        with pytest.raises(ApiError, match="field label not supported"):
            await connect(server, tmp_path).request(list_slices(fieldSelector=selector))


@pytest.mark.parametrize("query", [{"limit": "many"}, {"watch": "1", "timeoutSeconds": "x"}])
async def test_number_that_is_invalid_is_an_error(http: HttpClient, query: dict[str, str]) -> None:
    with pytest.raises(ApiError, match="answered 400"):
        await http.request(list_slices(**query))


async def test_page_continues_until_changes_are_forgotten(server: ApiServerStandIn, http: HttpClient) -> None:
    for number in range(3):
        document = build_document()
        document["metadata"]["name"] = f"slice-{number}"
        server.put_slice(document)
    first = await http.request(list_slices(limit="2"))
    assert first["metadata"]["remainingItemCount"] == 1
    token = first["metadata"]["continue"]
    rest = await http.request(list_slices(limit="2", **{"continue": token}))
    assert [item["metadata"]["name"] for item in rest["items"]] == ["slice-2"]
    server.expire_watches()
    with pytest.raises(ApiError, match="410"):
        await http.request(list_slices(limit="2", **{"continue": token}))


async def test_pages_have_the_resource_version_of_the_first_page(server: ApiServerStandIn, http: HttpClient) -> None:
    for number in range(3):
        document = build_document()
        document["metadata"]["name"] = f"slice-{number}"
        server.put_slice(document)
    page = first = (await http.request(list_slices(limit="1")))["metadata"]
    while "continue" in page:
        server.edit_slice("slice-0", lambda edited: edited["spec"]["pool"].update(generation=server.accepted))
        server.add_node(f"node-{len(server.requests)}")
        page = (await http.request(list_slices(limit="1", **{"continue": page["continue"]})))["metadata"]
        assert page["resourceVersion"] == first["resourceVersion"]
    assert len(server.requests) == 3
    assert (await http.request(list_slices()))["metadata"]["resourceVersion"] != first["resourceVersion"]


@pytest.mark.parametrize("query", [{}, {"resourceVersion": ""}, {"resourceVersion": "0"}])
async def test_watch_without_a_resource_version_has_the_objects_first(
    server: ApiServerStandIn, http: HttpClient, query: dict[str, str]
) -> None:
    server.put_slice(build_document(node="node-2"))
    before = server.put_slice(build_document())
    query = {"watch": "1", "fieldSelector": "spec.nodeName=node-1", **query}
    async with http.watch(Request("watch", "resourceslices", "GET", SLICES_PATH, query), 60) as events:
        assert await anext(events) == {"type": "ADDED", "object": before}
        server.delete_slice(before["metadata"]["name"])
        assert (await anext(events))["type"] == "DELETED"


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_initial_events_of_a_watch_are_forbidden_as_without_watch_list(http: HttpClient, verb: str) -> None:
    query = {"sendInitialEvents": "true"} | ({"watch": "1"} if verb == "watch" else {})
    with pytest.raises(ApiError, match=f"sendInitialEvents is forbidden for {verb}") as failed:
        await http.request(Request(verb, "resourceslices", "GET", SLICES_PATH, query))
    assert (failed.value.status, failed.value.reason) == (422, "Invalid")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"apiVersion": "resource.k8s.io/v1beta1"}, r"the API version in the data \(resource\.k8s\.io/v1beta1\)"),
        ({"kind": "ResourceClaim"}, r"the kind in the data \(ResourceClaim\)"),
        ({"metadata": {"name": "other"}}, r"the name of the object \(other\) does not match the name on the URL"),
        ({"metadata": {}}, "name must be provided"),
    ],
)
async def test_update_of_another_object_or_kind_is_an_error(
    server: ApiServerStandIn, http: HttpClient, change: dict[str, Any], text: str
) -> None:
    document = server.put_slice(build_document())
    path = f"{SLICES_PATH}/{document['metadata']['name']}"
    with pytest.raises(ApiError, match=text) as failed:
        await http.request(Request("update", "resourceslices", "PUT", path, document=document | change))
    assert failed.value.status == 400
    assert server.slices() == [document]


async def test_update_of_a_claim_with_another_namespace_is_an_error(server: ApiServerStandIn, http: HttpClient) -> None:
    claim = server.put_claim({"metadata": {"namespace": "team", "name": "claim"}, "spec": {}})
    path = "/apis/resource.k8s.io/v1/namespaces/team/resourceclaims/claim"
    claim["metadata"]["namespace"] = "other"
    with pytest.raises(ApiError, match="the namespace of the provided object does not match"):
        await http.request(Request("update", "resourceclaims", "PUT", path, document=claim))


async def test_node_takes_its_slices_with_it(server: ApiServerStandIn) -> None:
    uid = server.add_node(NODE)
    server.put_slice(build_document(uid=uid))
    server.put_slice(build_document(uid="other", driver="other.example.com"))
    server.remove_node(NODE)
    assert [document["spec"]["driver"] for document in server.slices()] == ["other.example.com"]


async def test_late_fault_answers_after_the_effect(server: ApiServerStandIn, http: HttpClient) -> None:
    server.faults.drop(verb="create", is_late=True, times=1)
    with pytest.raises(UnreachableError):
        await http.request(create(build_document()))
    assert len(server.slices()) == 1
    server.faults.clear()
    with pytest.raises(ApiError, match="already exists"):
        await http.request(create(build_document()))


async def test_fault_affects_its_verb_name_and_number_of_requests(server: ApiServerStandIn, http: HttpClient) -> None:
    server.faults.refuse(500, verb="create", resource="resourceslices", times=2)
    await http.request(list_slices())
    for _ in range(2):
        with pytest.raises(ApiError, match="500 to 'create resourceslices': Internal Server Error"):
            await http.request(create(build_document()))
    await http.request(create(build_document()))


async def test_delayed_request_does_not_delay_others(server: ApiServerStandIn, http: HttpClient) -> None:
    server.faults.delay(60, times=1)
    request = asyncio.ensure_future(http.request(list_slices()))
    await server.wait_for(lambda: server.accepted == 1)
    await http.request(list_slices())
    assert not request.done()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


async def test_objects_survive_a_restart_at_the_same_address(server: ApiServerStandIn, http: HttpClient) -> None:
    server.put_slice(build_document())
    port = server.port
    await server.restart()
    assert server.port == port
    assert len((await http.request(list_slices()))["items"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("PATCH", f"{SLICES_PATH}/a", 405), ("POST", SLICES_PATH, 415), ("GET", "/apis/other.example.com/v1/x", 404)],
)
async def test_request_that_is_not_supported_is_an_error(http: HttpClient, method: str, path: str, status: int) -> None:
    with pytest.raises(ApiError) as failed:
        await http.request(Request("try", path, method, path))
    assert failed.value.status == status


async def test_wait_names_slices_and_requests_at_the_timeout(server: ApiServerStandIn, http: HttpClient) -> None:
    server.put_slice(build_document(3))
    await http.request(list_slices())
    with pytest.raises(TimeoutError, match=r"generation 1, 3 devices\); last requests: list resourceslices 200"):
        await server.wait_for_slices(lambda slices: not slices, timeout=0.01)
    assert await server.wait_for_slices() == server.slices()


def test_documents_of_the_server_are_copies(server: ApiServerStandIn) -> None:
    server.put_slice(build_document())
    before = copy.deepcopy(server.slices())
    server.slices()[0]["spec"]["devices"].clear()
    assert server.slices() == before
