"""Report known vulnerabilities of locked versions, with pip-audit and the database of OSV.

``python deploy/packages/audit.py FILE...`` audits lock files. The exit code is 0 if the database knows no vulnerability
of the versions, 1 if it knows one, and 2 if a package was not audited, for example because the database cannot be
reached: pip-audit itself exits with 0 if it skips packages.
"""  # noqa: INP001 - a script, not a package

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

VULNERABLE, NOT_AUDITED = 1, 2


def main() -> int:
    """Audit each file, print the result, and return the highest exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="lock file with hashes")
    parser.add_argument("--osv-url", help="address of the database (default: that of pip-audit)")
    arguments = parser.parse_args()
    return max(audit_file(path, arguments.osv_url) for path in arguments.files)


def audit_file(path: Path, url: str | None) -> int:
    """Audit the versions of a lock file, print the result and return the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--vulnerability-service=osv", "--progress-spinner=off"]
        command += ["--disable-pip", "--require-hashes", "--requirement", str(path), "--desc=off"]
        command += ["--format=json", "--output", str(report), *([f"--osv-url={url}"] if url else [])]
        run = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - the arguments come from this file
        if not report.exists():
            reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"{path}: not audited: pip-audit failed, perhaps because it cannot reach the database: {reason}")
            return NOT_AUDITED
        dependencies: list[dict[str, Any]] = json.loads(report.read_text())["dependencies"]
    skipped = [entry for entry in dependencies if "skip_reason" in entry]
    vulnerable = [entry for entry in dependencies if entry.get("vulns")]
    for entry in skipped:
        print(f"{path}: {entry['name']}: not audited: {entry['skip_reason']}")
    for entry in vulnerable:
        for vulnerability in entry["vulns"]:
            fixes = ", ".join(vulnerability["fix_versions"]) or "no version"
            print(f"{path}: {entry['name']} {entry['version']}: {vulnerability['id']}, fixed in {fixes}")
    audited = len(dependencies) - len(skipped)
    print(f"{path}: {len(vulnerable)} of {audited} packages have known vulnerabilities")
    return NOT_AUDITED if skipped or not audited else VULNERABLE if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
