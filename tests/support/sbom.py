"""The SBOM module of the image's build, and a reader that validates an SBOM."""

import json
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

sys.path.insert(0, str(Path(__file__).parents[2] / "deploy/image"))

import sbom as sbom  # noqa: PLC0414 - a script, not a module of a package

Bom = dict[str, Any]


def read_bom(text: str) -> Bom:
    """Return an SBOM after checking it against the schema of CycloneDX 1.6, and each reference in it."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom: Bom = json.loads(text)
    known = {component["bom-ref"] for component in [bom["metadata"]["component"], *bom["components"]]}
    assert {entry["ref"] for entry in bom["dependencies"]} <= known
    assert {reference for entry in bom["dependencies"] for reference in entry["dependsOn"]} <= known
    for component in bom["components"]:
        if "purl" in component:
            url = PackageURL.from_string(component["purl"])
            assert (url.name, url.version) == (component["name"], component["version"])
    return bom


def list_purls(bom: Bom, kind: str) -> set[tuple[str, str]]:
    """Return the names and versions of the components whose package URL has the type ``kind``."""
    return {
        (component["name"], component["version"])
        for component in bom["components"]
        if component.get("purl", "").startswith(f"pkg:{kind}/")
    }
