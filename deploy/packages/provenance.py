"""Write the provenance of released files and their checksums.

``python deploy/packages/provenance.py --tag vX.Y.Z --dist dist`` writes to the directory:

- ``genplug-X.Y.Z-provenance.json``: an in-toto statement, version 1, with a SLSA provenance predicate, version 1. Its
  subjects are all other files of the directory; its dependencies are the commit, the files of the checkout that fix
  versions, and the Debian packages of the images. The statement is not signed.
- ``SHA256SUMS``: the SHA-256 of all other files, for ``sha256sum --check``.

The checkout must not have changes, because the statement names its commit.
"""  # noqa: INP001 - a script, not a package

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/genplug/genplug"
PAGE = f"{REPOSITORY}/blob/main/docs/how-to/verify-a-release.md"
BUILD_TYPE = f"{PAGE}#build-type"
LOCAL_BUILDER = f"{PAGE}#local-builder"
"""The builder outside of GitHub, which nothing authenticates."""
INPUTS = (
    ".ci/tools",
    "deploy/image/base.sh",
    "deploy/image/build.lock",
    "deploy/image/requirements.lock",
    "requirements-dev.lock",
)
"""The files of the checkout that select versions of what the build installs."""
CHECKSUMS = "SHA256SUMS"


def build_statement(dist: Path, tag: str, revision: str, environment: Mapping[str, str]) -> Json:
    """Return the statement about all files of a directory that were built from a commit.

    ``environment`` are the variables of the process: in GitHub Actions they name the workflow and its run.
    """
    subjects = [path for path in sorted(dist.iterdir()) if path.name not in (CHECKSUMS, name_statement(tag))]
    inputs = [
        {"uri": f"git+{REPOSITORY}@{revision}#{name}", "digest": {"sha256": digest_file(ROOT / name)}}
        for name in INPUTS
    ]
    source = {"uri": f"git+{REPOSITORY}@refs/tags/{tag}", "digest": {"gitCommit": revision}}
    definition: Json = {
        "buildType": BUILD_TYPE,
        "externalParameters": {"repository": REPOSITORY, "ref": f"refs/tags/{tag}"},
        "internalParameters": {"sourceDateEpoch": environment.get("SOURCE_DATE_EPOCH", "")},
        "resolvedDependencies": [source, *inputs, *list_debian_packages(subjects)],
    }
    builder = {"id": find_builder(environment), "version": {"python": platform.python_version()}}
    details: Json = {"builder": builder}
    if run := environment.get("GITHUB_RUN_ID"):
        server, repository = environment["GITHUB_SERVER_URL"], environment["GITHUB_REPOSITORY"]
        attempt = environment.get("GITHUB_RUN_ATTEMPT", "1")
        details["metadata"] = {"invocationId": f"{server}/{repository}/actions/runs/{run}/attempts/{attempt}"}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": {"sha256": digest_file(path)}} for path in subjects],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": definition, "runDetails": details},
    }


def name_statement(tag: str) -> str:
    """Return the name of the file with the statement of a release."""
    return f"genplug-{tag.removeprefix('v')}-provenance.json"


def find_builder(environment: Mapping[str, str]) -> str:
    """Return the URI of the builder: the workflow of GitHub Actions, or a machine that nothing authenticates."""
    if "GITHUB_WORKFLOW_REF" in environment:
        return f"{environment['GITHUB_SERVER_URL']}/{environment['GITHUB_WORKFLOW_REF']}"
    return LOCAL_BUILDER


def list_debian_packages(files: list[Path]) -> list[Json]:
    """Return a descriptor for each Debian package in the SBOMs among the files; no lock file fixes their versions."""
    purls = {
        component["purl"]
        for path in files
        if path.name.endswith(".cdx.json")
        for component in json.loads(path.read_text())["components"]
        if component.get("purl", "").startswith("pkg:deb/")
    }
    return [{"uri": purl} for purl in sorted(purls)]


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_checksums(dist: Path) -> None:
    """Write the SHA-256 of each file of the directory in the format of sha256sum."""
    paths = [path for path in sorted(dist.iterdir()) if path.name != CHECKSUMS]
    (dist / CHECKSUMS).write_text("".join(f"{digest_file(path)}  {path.name}\n" for path in paths))


def read_revision() -> str:
    """Return the commit of the checkout.

    Raises:
        SystemExit: a tracked file has changes that are not committed.
    """
    status = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"],  # noqa: S607 - git of the developer
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    if status:
        sys.exit(f"provenance.py: expected a checkout without changes, found:\n{status}Commit the changes first.")
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - the command is above


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", required=True, help="tag of the release, for example v1.2.3")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="directory of the files (default: dist)")
    arguments = parser.parse_args()
    statement = build_statement(arguments.dist, arguments.tag, read_revision(), os.environ)
    path = arguments.dist / name_statement(arguments.tag)
    path.write_text(json.dumps(statement, indent=2) + "\n")
    write_checksums(arguments.dist)


if __name__ == "__main__":
    main()
