"""The SBOM module of deploy/image, with packages and records made for the tests."""

from email.parser import HeaderParser
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packageurl import PackageURL

from tests.support.sbom import Bom, read_bom, sbom

RECORD = """\
Package: libx-1.0
Version: 1:2.0~rc1+b1
Architecture: arm64
Depends: libc6 (>= 2.36), libgone | liby:any
"""


def install(site: Path, name: str, *headers: str) -> Distribution:
    """Write the metadata of a Python package and return the package."""
    directory = site / f"{name}-1.0.dist-info"
    directory.mkdir(parents=True)
    text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *headers, "", "Text"])
    (directory / "METADATA").write_text(text)
    return Distribution.at(directory)


def build(site: Path) -> Bom:
    components = sbom.list_python_packages([site], {"my-package": "ab" * 32})
    requirements = sbom.list_python_requirements([site])
    return read_bom(sbom.render_bom(sbom.build_bom(sbom.build_subject("application", "1"), components, requirements)))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["License-Expression: MIT OR Apache-2.0", "License: other"], "MIT OR Apache-2.0"),
        (["License: 3-Clause BSD License"], "BSD-3-Clause"),
        (["License: long text", "Classifier: License :: OSI Approved :: MIT License"], "MIT"),
    ],
)
def test_license_is_the_expression_or_a_known_text(tmp_path: Path, headers: list[str], expected: str) -> None:
    assert sbom.read_license(install(tmp_path, "x", *headers)) == expected


def test_unknown_license_is_an_error_that_names_the_package(tmp_path: Path) -> None:
    package = install(tmp_path, "x", "Classifier: License :: OSI Approved :: BSD License")
    with pytest.raises(SystemExit, match=r"expected a license in the metadata of x 1\.0, found .*BSD License"):
        sbom.read_license(package)


def test_dependencies_are_the_requirements_that_are_installed(tmp_path: Path) -> None:
    install(tmp_path, "My.Package", "License: MIT", "Requires-Dist: Other_one>=1; python_version < '3'")
    install(tmp_path, "other-one", "License: MIT", "Requires-Dist: extra-one; extra == 'all'", "Requires-Dist: gone")
    install(tmp_path, "extra-one", "License: MIT")
    bom = build(tmp_path)
    assert {entry["ref"]: entry["dependsOn"] for entry in bom["dependencies"]} == {
        "genplug-application": ["pkg:pypi/extra-one@1.0", "pkg:pypi/my-package@1.0"],
        "pkg:pypi/my-package@1.0": ["pkg:pypi/other-one@1.0"],
        "pkg:pypi/other-one@1.0": [],
        "pkg:pypi/extra-one@1.0": [],
    }
    assert [component.get("hashes") for component in bom["components"]] == [
        None,
        [{"alg": "SHA-256", "content": "ab" * 32}],
        None,
    ]


def test_serial_number_and_text_depend_on_the_content_only(tmp_path: Path) -> None:
    for site, names in (("first", "ab"), ("second", "ba"), ("third", "abc")):
        for name in names:
            install(tmp_path / site, name, "License: MIT")
    first, second, third = (build(tmp_path / site) for site in ("first", "second", "third"))
    assert first == second
    assert first["serialNumber"] != third["serialNumber"]
    assert "timestamp" not in first["metadata"]


def test_source_date_epoch_is_the_time_of_creation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    install(tmp_path, "a", "License: MIT")
    assert build(tmp_path)["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize(
    ("source", "upstream"),
    [("", "libx-1.0"), ("Source: x\n", "x"), ("Source: x (3.0+b2)\n", "x@3.0+b2")],
)
def test_debian_package_has_its_version_architecture_and_source(source: str, upstream: str) -> None:
    purl = sbom.debian_purl(HeaderParser().parsestr(RECORD + source), "debian-12")
    url = PackageURL.from_string(purl)
    assert (url.type, url.namespace, url.name, url.version) == ("deb", "debian", "libx-1.0", "1:2.0~rc1+b1")
    assert url.qualifiers == {"arch": "arm64", "distro": "debian-12", "upstream": upstream}


def test_debian_packages_depend_on_the_packages_of_the_image(tmp_path: Path) -> None:
    records = tmp_path / "var/lib/dpkg/status.d"
    records.mkdir(parents=True)
    for name in ("libc6", "liby"):
        (records / name).write_text(f"Package: {name}\nVersion: 1\nArchitecture: arm64\n")
    (records / "libx").write_text(RECORD)
    (records / "libx.md5sums").write_text("")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    components, requirements = sbom.list_debian_packages(tmp_path)
    assert [component["name"] for component in components] == ["debian", "libc6", "libx-1.0", "liby"]
    system, libc6, libx, liby = (component["bom-ref"] for component in components)
    assert requirements == {system: [libc6, libx, liby], libc6: [], libx: [libc6, liby], liby: []}
