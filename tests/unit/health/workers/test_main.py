"""The modules that a worker process loads: every worker pays for them in memory."""

import subprocess
import sys

NOT_NEEDED = (
    "asyncio",
    "genplug.config",
    "grpc",
    "http.client",
    "jsonschema",
    "prometheus_client",
    "re2",
    "ssl",
    "yaml",
)
PROGRAM = "import sys, genplug.health.workers.main; print(*sys.modules)"


def test_worker_does_not_import_what_it_does_not_need() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "genplug.health.probes.file" in loaded
    assert loaded.isdisjoint(NOT_NEEDED)
