"""Reading ResourceClaims for the kubelet."""

from pathlib import Path

import pytest

from genplug.agent.claim_inputs import ClaimReadError
from genplug.agent.claim_source import ApiClaimSource
from genplug.testing.api_server import ApiServerStandIn
from tests.support.api_server import connect


async def test_claim_is_read_from_the_api_server_or_the_reason_is_stated(tmp_path: Path) -> None:
    async with ApiServerStandIn(tls=False) as server:
        source = ApiClaimSource(connect(server, tmp_path))
        claim = server.put_claim({"metadata": {"namespace": "team", "name": "claim"}, "spec": {}})
        assert await source("team", "claim") == claim
        assert await source("team", "other") is None
        server.faults.refuse(403, "no rights", verb="get")
        with pytest.raises(ClaimReadError, match="403 to 'get resourceclaims/team/claim': no rights"):
            await source("team", "claim")
        await server.stop()
        with pytest.raises(ClaimReadError, match="cannot connect to the API server"):
            await source("team", "claim")
        (tmp_path / "token").unlink()
        with pytest.raises(ClaimReadError, match="automountServiceAccountToken"):
            await source("team", "claim")
