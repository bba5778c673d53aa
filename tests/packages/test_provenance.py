"""The provenance statement and the checksums that deploy/packages/provenance.py writes."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "deploy/packages"))

import provenance  # noqa: E402 - a script, not a module of a package

TAG = "v1.2.3"
NAME = "genplug-1.2.3-provenance.json"
REVISION = "0123456789abcdef0123456789abcdef01234567"
WORKFLOW = {
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "genplug/genplug",
    "GITHUB_WORKFLOW_REF": "genplug/genplug/.github/workflows/release.yml@refs/tags/v1.2.3",
    "GITHUB_RUN_ID": "7",
    "GITHUB_RUN_ATTEMPT": "2",
}


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """Return a directory with released files, among them the SBOM of an image."""
    for name in ("genplug-1.2.3-py3-none-any.whl", "genplug_1.2.3-1.py311_amd64.deb"):
        (tmp_path / name).write_bytes(name.encode() * 100_000)
    bom = {"components": [{"purl": "pkg:deb/debian/libc6@2.36?arch=amd64"}, {"purl": "pkg:pypi/attrs@26.1.0"}, {}]}
    (tmp_path / "genplug-image-1.2.3-amd64.tar.cdx.json").write_text(json.dumps(bom))
    return tmp_path


def build(dist: Path, **environment: str) -> dict[str, Any]:
    """Return the statement after parsing it with the messages of the in-toto attestation framework."""
    statement = provenance.build_statement(dist, TAG, REVISION, environment)
    fields = {("type" if key == "_type" else key): value for key, value in statement.items()}
    Statement.copy_from_pb(ParseDict(fields, StatementMessage())).validate()
    ParseDict(statement["predicate"], Provenance())
    return statement


def test_each_file_is_a_subject_with_its_digest(dist: Path) -> None:
    (dist / "SHA256SUMS").write_text("of an earlier run")
    (dist / NAME).write_text("of an earlier run")
    subjects = {subject["name"]: subject["digest"] for subject in build(dist)["subject"]}
    assert subjects == {
        path.name: {"sha256": sha256(path.read_bytes()).hexdigest()}
        for path in dist.iterdir()
        if path.name not in ("SHA256SUMS", NAME)
    }
    assert len(subjects) == 3


def test_dependencies_are_the_commit_the_lock_files_and_the_debian_packages(dist: Path) -> None:
    dependencies = build(dist)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert dependencies[0] == {
        "uri": "git+https://github.com/genplug/genplug@refs/tags/v1.2.3",
        "digest": {"gitCommit": REVISION},
    }
    digests = {entry["uri"].split("#")[1]: entry["digest"]["sha256"] for entry in dependencies[1:-1]}
    assert set(digests) >= {str(path.relative_to(ROOT)) for path in ROOT.glob("**/*.lock") if ".nox" not in path.parts}
    assert digests == {name: sha256((ROOT / name).read_bytes()).hexdigest() for name in digests}
    assert dependencies[-1] == {"uri": "pkg:deb/debian/libc6@2.36?arch=amd64"}


def test_builder_is_the_workflow_in_github_actions(dist: Path) -> None:
    details = build(dist, **WORKFLOW)["predicate"]["runDetails"]
    assert details["builder"]["id"] == f"https://github.com/{WORKFLOW['GITHUB_WORKFLOW_REF']}"
    assert details["metadata"]["invocationId"] == "https://github.com/genplug/genplug/actions/runs/7/attempts/2"


def test_builder_and_build_type_are_sections_of_the_guide(dist: Path) -> None:
    predicate = build(dist)["predicate"]
    guide = (ROOT / "docs/how-to/verify-a-release.md").read_text()
    for uri in (predicate["runDetails"]["builder"]["id"], predicate["buildDefinition"]["buildType"]):
        page, _, anchor = uri.partition("#")
        assert page.endswith("/docs/how-to/verify-a-release.md")
        assert f"## {anchor.replace('-', ' ').capitalize()}\n" in guide


def test_sha256sum_accepts_the_checksums_and_notices_a_change(dist: Path) -> None:
    provenance.write_checksums(dist)
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    accepted = subprocess.run(check, cwd=dist, check=True, capture_output=True, text=True)
    assert accepted.stdout.count(": OK\n") == 3
    (dist / "genplug-1.2.3-py3-none-any.whl").write_text("changed")
    assert subprocess.run(check, cwd=dist, check=False, capture_output=True).returncode == 1
