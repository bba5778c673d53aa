"""The modules that a worker process loads: every worker pays for them in memory."""

import os
import subprocess
import sys

NOT_NEEDED = (
    "_uuid",
    "asyncio",
    "datetime",
    "decimal",
    "genplug.config",
    "grpc",
    "http.client",
    "importlib.util",
    "inspect",
    "ipaddress",
    "json",
    "jsonschema",
    "locale",
    "msgspec._json_schema",
    "msgspec.inspect",
    "ntpath",
    "platform",
    "prometheus_client",
    "queue",
    "re2",
    "runpy",
    "site",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "typing_extensions",
    "urllib.parse",
    "yaml",
)
PROGRAM = """
import mmap, os, sys, genplug.health.workers.main as main
page = os.memfd_create("progress")
os.ftruncate(page, mmap.PAGESIZE)
main.main("/", "0", 1, main.Progress(page))
print(*sys.modules)
"""


def test_worker_for_reads_imports_only_what_it_needs() -> None:
    # The worker ends at the end of its input.
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-c", PROGRAM],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    loaded = set(done.stdout.split())
    assert "genplug.health.probes.file" in loaded
    assert loaded.isdisjoint(NOT_NEEDED)
