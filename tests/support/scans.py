"""Control over when an agent in the process of a test scans for devices."""

import pytest

from genplug.agent import device_scanner
from genplug.kubelet.token_bucket import TokenBucket


def limit_scans_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make agents that are created from now on scan after events only until a scan has found a change."""
    monkeypatch.setattr(device_scanner, "SCAN_BUDGET", TokenBucket(capacity=1, refill_seconds=3600))
