"""Clients of a stand-in of the API server."""

from pathlib import Path
from typing import Any

from genplug.allocation.published import PublishedDevice, PublishedResource, Taint
from genplug.allocation.slices import SliceScope, WantedPool, build_pool, device_document, slice_document
from genplug.cluster.account import Account
from genplug.cluster.http import HttpClient, Request
from genplug.testing.api_server import ApiServerStandIn

DRIVER = "genplug.io"
NODE = "node-1"
RESOURCE = "example.com/x"
SLICES_PATH = "/apis/resource.k8s.io/v1/resourceslices"
TAINT = Taint("genplug.io/unhealthy", "gone", "NoSchedule")


def build_account(server: ApiServerStandIn, directory: Path) -> Account:
    """Return the account of a pod."""
    server.write_account(directory)
    return Account(server.environment, directory, has_tls=server.tls)


def connect(server: ApiServerStandIn, directory: Path) -> HttpClient:
    """Return a client with the account of a pod."""
    return HttpClient(build_account(server, directory), "genplug/test")


def list_slices(**query: str) -> Request:
    """Return a request of a list."""
    return Request("list", "resourceslices", "GET", SLICES_PATH, query)


def publish(
    count: int, *, resource: str = RESOURCE, value: int = 0, tainted: frozenset[int] = frozenset()
) -> PublishedResource:
    """Return a number of devices, with a value of an attribute."""
    return PublishedResource(
        resource,
        tuple(
            PublishedDevice(f"d{number}", f"d{number}", {"value": value}, {}, (TAINT,) if number in tainted else ())
            for number in range(count)
        ),
    )


def build_wanted(scope: SliceScope, count: int, **options: Any) -> WantedPool:
    """Return the pool of a number of devices."""
    return build_pool(publish(count, **options), scope)


def build_document(count: int = 1, *, node: str = NODE, driver: str = DRIVER, uid: str = "u") -> dict[str, Any]:
    """Return the JSON of a slice that can be created."""
    scope = SliceScope(driver, node, uid)
    pool = build_wanted(scope, 1)
    document = slice_document(scope, pool, pool.slices[0], 1)
    document["spec"]["devices"] = [device_document(device) for device in publish(count).devices]
    return document
