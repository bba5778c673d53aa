"""The ResourceClaims that the kubelet asks the driver to prepare."""

from typing import Any

from genplug.cluster.errors import ApiError
from genplug.cluster.http import HttpClient, Request, build_path

CLAIM_SECONDS = 10.0
"""Seconds for the read of a claim: the kubelet waits 45 s for all claims of a pod, and tries again."""
_NOT_FOUND = 404


async def get_claim(http: HttpClient, namespace: str, name: str) -> dict[str, Any] | None:
    """Return the JSON of a claim, or None if there is no claim of this name.

    Raises:
        AccountError, ApiError, UnreachableError: as for :meth:`HttpClient.request`.
    """
    path = build_path("apis", "resource.k8s.io", "v1", "namespaces", namespace, "resourceclaims", name)
    try:
        return await http.request(Request("get", f"resourceclaims/{namespace}/{name}", "GET", path), CLAIM_SECONDS)
    except ApiError as error:
        if error.status == _NOT_FOUND and not error.is_path_unknown:
            return None
        raise
