"""deploy/packages/audit.py with a database of vulnerabilities on the loopback address."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy/packages/audit.py"
VULNERABILITY = {
    "id": "GHSA-test",
    "affected": [
        {
            "package": {"name": "bad", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}


class Database(BaseHTTPRequestHandler):
    """Knows a vulnerability of the package ``bad`` and of no other."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = json.dumps({"vulns": [VULNERABILITY]} if query["package"]["name"] == "bad" else {})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def run_database() -> Iterator[str]:
    """Run the database and yield its address."""
    with HTTPServer(("127.0.0.1", 0), Database) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def audit(tmp_path: Path, url: str, *names: str) -> tuple[int, str]:
    """Return the exit code and the output for a lock file with these packages."""
    lock = tmp_path / "test.lock"
    lock.write_text("".join(f"{name}==1.0 --hash=sha256:{'0' * 64}\n" for name in names))
    command: list[str | Path] = [sys.executable, SCRIPT, "--osv-url", url, lock]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    return run.returncode, run.stdout.replace(f"{lock}: ", "")


@pytest.mark.parametrize(
    ("names", "code", "output"),
    [
        (["good"], 0, "0 of 1 packages have known vulnerabilities\n"),
        (
            ["bad", "good"],
            1,
            "bad 1.0: GHSA-test, fixed in 2.0\n1 of 2 packages have known vulnerabilities\n",
        ),
        ([], 2, "0 of 0 packages have known vulnerabilities\n"),
    ],
)
def test_known_vulnerabilities_decide_about_the_exit_code(
    tmp_path: Path, names: list[str], code: int, output: str
) -> None:
    with run_database() as url:
        assert audit(tmp_path, url, *names) == (code, output)


def test_unreachable_database_is_an_error(tmp_path: Path) -> None:
    with run_database() as url:
        pass
    code, output = audit(tmp_path, url, "good")
    assert code == 2
    assert output.startswith("not audited: pip-audit failed, perhaps because it cannot reach the database: ")
    assert "Connection refused" in output
