"""Reads ResourceClaims from the API server, for :class:`genplug.agent.claims.Claims`.

This module is imported only if a resource is served by Dynamic Resource Allocation.
"""

from collections.abc import Mapping

from genplug.agent.claim_inputs import ClaimReadError
from genplug.cluster.account import AccountError
from genplug.cluster.claims import get_claim
from genplug.cluster.errors import ApiError, UnreachableError
from genplug.cluster.http import HttpClient


class ApiClaimSource:
    """Reads claims by a client."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def __call__(self, namespace: str, name: str) -> Mapping[str, object] | None:
        """Return the JSON of a ResourceClaim; None if it does not exist.

        Raises:
            ClaimReadError: the API server does not respond, or refuses the request.
        """
        try:
            return await get_claim(self._http, namespace, name)
        except (AccountError, ApiError, UnreachableError) as error:
            raise ClaimReadError(str(error)) from error
