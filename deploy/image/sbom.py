"""Write software bills of materials (SBOM) of the image and of released files, in the format CycloneDX 1.6.

An SBOM depends on its components only: equal components give equal files, and the serial number is a hash of the
content. The time of creation is written if SOURCE_DATE_EPOCH is set. This module uses the standard library only,
because the build stage of the image has no other packages.

``python deploy/image/sbom.py ARCHIVE`` prints the SBOM in an image archive that ``build.sh --output`` wrote.
"""  # noqa: INP001 - a script of the build stage, not a package

import argparse
import json
import os
import re
import sys
import tarfile
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from hashlib import sha256
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

Json = dict[str, Any]

PATH = "usr/share/doc/genplug/sbom.cdx.json"
"""The SBOM in the image and in the packages for operating systems."""

SUFFIX = ".cdx.json"
"""What the name of a released file and of its SBOM differ in."""

_LICENSES_BY_TEXT = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache-2.0": "Apache-2.0",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "MIT": "MIT",
}
"""SPDX identifiers of the values of ``License`` and ``Classifier`` that name a single license."""

_LICENSES_BY_PACKAGE = {"google-re2": "BSD-3-Clause", "shiv": "BSD-2-Clause"}
"""Licenses of packages whose metadata name a family of licenses only; read in the license file of the source."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/genplug/genplug")


def list_python_packages(directories: Iterable[Path], digests: Mapping[str, str]) -> list[Json]:
    """Return a component for each Python package in the directories, by name.

    ``digests`` has the SHA-256 of wheels, by the normalized name of the package.

    Raises:
        SystemExit: the license of a package is not known.
    """
    packages = distributions(path=[str(directory) for directory in directories])
    components = [build_python_component(package, digests) for package in packages]
    return sorted(components, key=lambda component: str(component["name"]))


def build_python_component(package: Distribution, digests: Mapping[str, str]) -> Json:
    """Return the component of an installed Python package; see ``list_python_packages``."""
    name = normalize_name(package.name)
    reference = python_purl(name, package.version)
    component = {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": package.version,
        "licenses": [{"expression": read_license(package)}],
        "purl": reference,
    }
    return {**component, "hashes": build_hashes(digests[name])} if name in digests else component


def normalize_name(name: str) -> str:
    """Return the name of a Python package in its normalized form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def python_purl(name: str, version: str) -> str:
    """Return the package URL of a Python package with a normalized name."""
    return f"pkg:pypi/{name}@{quote_version(version)}"


def build_hashes(digest: str) -> list[Json]:
    """Return the hashes of a component with this SHA-256."""
    return [{"alg": "SHA-256", "content": digest}]


def read_license(package: Distribution) -> str:
    """Return the license of an installed package as an SPDX expression.

    Raises:
        SystemExit: the metadata do not name a license that is known.
    """
    metadata = package.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    texts = [*(metadata.get_all("License") or []), *(metadata.get_all("Classifier") or [])]
    known = [_LICENSES_BY_TEXT[text] for text in texts if text in _LICENSES_BY_TEXT]
    found = _LICENSES_BY_PACKAGE.get(normalize_name(package.name)) or next(iter(known), None)
    if found is None:
        sys.exit(
            f"sbom.py: expected a license in the metadata of {package.name} {package.version}, found {texts}: add its "
            "SPDX identifier to _LICENSES_BY_TEXT or _LICENSES_BY_PACKAGE"
        )
    return found


def list_python_requirements(directories: Iterable[Path]) -> dict[str, list[str]]:
    """Return the references of the packages that each package in the directories requires, by its reference."""
    packages = list(distributions(path=[str(directory) for directory in directories]))
    references = {normalize_name(p.name): python_purl(normalize_name(p.name), p.version) for p in packages}
    requirements = {}
    for package in packages:
        texts = [text for text in package.requires or [] if "extra ==" not in text]
        names = {normalize_name(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in texts}
        reference = references[normalize_name(package.name)]
        requirements[reference] = sorted(references[name] for name in names & references.keys())
    return requirements


def list_debian_packages(root: Path) -> tuple[list[Json], dict[str, list[str]]]:
    """Return a component for each Debian package whose dpkg record an image contains, and what each one depends on.

    Both are sorted. The operating system is the first component.
    """
    release = dict(re.findall(r'^(\w+)="?(.*?)"?$', (root / "etc/os-release").read_text(), re.MULTILINE))
    system = f"{release['ID']}-{release['VERSION_ID']}"
    paths = [path for path in (root / "var/lib/dpkg/status.d").iterdir() if path.suffix != ".md5sums"]
    records = [HeaderParser().parsestr(path.read_text()) for path in paths]
    references = {record["Package"]: debian_purl(record, system) for record in records}
    components: list[Json] = [
        {"type": "operating-system", "bom-ref": system, "name": release["ID"], "version": release["VERSION_ID"]}
    ]
    requirements = {system: sorted(references.values())}
    for record in sorted(records, key=lambda record: str(record["Package"])):
        name = record["Package"]
        components.append(
            {
                "type": "library",
                "bom-ref": references[name],
                "name": name,
                "version": record["Version"],
                "purl": references[name],
                "externalReferences": [{"type": "license", "url": f"file:///usr/share/doc/{name}/copyright"}],
            }
        )
        fields = f"{record.get('Pre-Depends', '')},{record.get('Depends', '')}"
        names = {re.split(r"[ :(]", text.strip(), maxsplit=1)[0] for text in re.split(r"[,|]", fields)}
        requirements[references[name]] = sorted(references[other] for other in names & references.keys())
    return components, requirements


def debian_purl(record: Message, system: str) -> str:
    """Return the package URL of a Debian package; ``upstream`` is its source package, which advisories name."""
    name, version = record["Package"], quote_version(record["Version"])
    source, number = re.fullmatch(r"(\S+)(?: \((.+)\))?", record.get("Source", name)).groups()  # type: ignore[union-attr]
    upstream = f"{source}%40{quote_version(number)}" if number else source
    return f"pkg:deb/debian/{name}@{version}?arch={record['Architecture']}&distro={system}&upstream={upstream}"


def quote_version(version: str) -> str:
    """Return a version as a part of a package URL."""
    return quote(version, safe=".-_~:")


def build_bom(
    subject: Json,
    components: list[Json],
    requirements: Mapping[str, list[str]],
    properties: Mapping[str, str] | None = None,
) -> Json:
    """Return the SBOM of a subject, which depends directly on all components that no other component requires."""
    required = {reference for references in requirements.values() for reference in references}
    roots = [component["bom-ref"] for component in components if component["bom-ref"] not in required]
    graph = {subject["bom-ref"]: sorted(roots), **{ref: requirements[ref] for ref in sorted(requirements)}}
    metadata: Json = {"lifecycles": [{"phase": "build"}], "component": subject}
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        metadata["timestamp"] = datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if properties:
        metadata["properties"] = [{"name": name, "value": properties[name]} for name in sorted(properties)]
    bom: Json = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata,
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": references} for ref, references in graph.items()],
    }
    return {**bom, "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, render_bom(bom))}"}


def render_bom(bom: Json) -> str:
    """Return the text of an SBOM."""
    return json.dumps(bom, indent=2, sort_keys=True) + "\n"


def build_subject(kind: str, version: str, **fields: Any) -> Json:  # noqa: ANN401 - values of JSON
    """Return the component of the type ``kind`` that an SBOM of genplug describes."""
    return {
        "type": kind,
        "bom-ref": f"genplug-{kind}",
        "name": "genplug",
        "version": version,
        "licenses": [{"expression": "Apache-2.0"}],
        **fields,
    }


def build_image_bom(layers: list[Path], packages: str, digests: Mapping[str, str], arch: str) -> str:
    """Return the text of the SBOM of the image with these layers, of which the first has the Debian packages.

    ``packages`` is the directory of Python packages in each layer, and ``digests`` has the SHA-256 of their wheels.
    """
    directories = [layer / packages for layer in layers]
    python = list_python_packages(directories, digests)
    debian, requirements = list_debian_packages(layers[0])
    (version,) = (component["version"] for component in python if component["name"] == "genplug")
    subject = build_subject("container", version)
    all_requirements = {**requirements, **list_python_requirements(directories)}
    return render_bom(build_bom(subject, [*debian, *python], all_requirements, {"genplug:architecture": arch}))


def read_image_bom(archive: Path) -> str:
    """Return the SBOM in an image archive.

    Raises:
        SystemExit: the archive contains no SBOM.
    """
    with tarfile.open(archive) as file:
        for member in file:
            layer = file.extractfile(member) if member.isfile() and not member.name.endswith(".json") else None
            text = read_layer_file(layer) if layer else None
            if text is not None:
                return text
    sys.exit(f"sbom.py: expected {PATH} in a layer of {archive}, found no such file: build the image with build.sh")


def read_layer_file(layer: IO[bytes]) -> str | None:
    """Return the SBOM in a layer of an image, or None if the layer does not contain the file."""
    with tarfile.open(fileobj=layer) as files:
        for member in files:
            content = files.extractfile(member) if member.name.removeprefix("./") == PATH else None
            if content:
                return content.read().decode()
    return None


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return sha256(path.read_bytes()).hexdigest()


def read_digests(report: Path) -> dict[str, str]:
    """Return the SHA-256 of the wheels that pip installed, by normalized name, from the report of ``pip --report``."""
    items = json.loads(report.read_text())["install"]
    return {
        normalize_name(item["metadata"]["name"]): item["download_info"]["archive_info"]["hashes"]["sha256"]
        for item in items
    }


def main() -> None:
    """Print the SBOM in an image archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="image archive")
    print(read_image_bom(parser.parse_args().archive), end="")


if __name__ == "__main__":
    main()
