"""The Node object of the agent's node, which owns the ResourceSlices."""

from genplug.cluster.errors import UnreachableError
from genplug.cluster.http import HttpClient, Request, build_path


async def get_node_uid(http: HttpClient, name: str) -> str:
    """Return the UID of a Node.

    Raises:
        AccountError, ApiError, UnreachableError: as for :meth:`HttpClient.request`; ``ApiError`` also if there is no
            node of this name.
    """
    document = await http.request(Request("get", f"nodes/{name}", "GET", build_path("api", "v1", "nodes", name)))
    uid = (document.get("metadata") or {}).get("uid")
    if not isinstance(uid, str) or not uid:
        raise UnreachableError(f"expected the UID of the Node {name} in the answer of the API server, found none")
    return uid
