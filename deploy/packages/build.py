"""Build the packages of genplug for operating systems, and the single-file programs for laptops.

``python deploy/packages/build.py --wheel dist/genplug-*.whl --output dist`` writes a ``.deb``, an ``.rpm`` and
``genplug.pyz``, all with the locked dependencies for one version of Python and one architecture, and
``kubectl-genplug.pyz``, which runs on every operating system. Each file has an SBOM with the same name and the suffix
``.cdx.json``; so has the wheel, and the sdist beside it. Nothing of the target platform runs during the build.
Requires ``nfpm`` (in $GENPLUG_TOOLS or on the PATH) and the Python package ``shiv``.

Equal inputs give equal files, whatever the directory, the umask and the time zone are. SOURCE_DATE_EPOCH is the time of
all files, by default 1980.
"""  # noqa: INP001 - a script, not a package

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipapp
import zipfile
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy/image"))

import sbom  # noqa: E402 - a script of the image
from locked_wheels import install_locked_wheels, install_wheels  # noqa: E402 - a script in this directory

HERE = ROOT / "deploy/packages"
LOCK = ROOT / "deploy/image/requirements.lock"
UNIT = ROOT / "deploy/systemd/genplug.service"
TOOLS = Path(os.environ.get("GENPLUG_TOOLS", Path.home() / ".cache/genplug/tools"))

MACHINES_BY_ARCH = {"amd64": "x86_64", "arm64": "aarch64"}
PYTHONS = ("3.11", "3.12", "3.13")
"""The versions of Python whose wheels the lock file contains."""
LIBRARY = "usr/lib/genplug"
"""The directory of the package and its dependencies."""
PROGRAMS = {
    "genplug": "genplug.cli.main",
    "kubectl-genplug": "genplug.kubectl.main",
    "kubectl_complete-genplug": "genplug.kubectl.completion",
}
UNUSED_PATTERNS = ("*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.h", "bin", "testdata", "tests", "test_*")
"""Files of wheels that no program uses at run time."""
PIP_PATTERNS = ("*.dist-info/RECORD", "*.dist-info/direct_url.json")
"""Files that pip writes and that depend on the directories of the build."""
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH") or 315532800)
"""The modification time of all files, in seconds since 1970; zip archives cannot contain times before 1980."""
SHIV_MODULE = "_bootstrap/__init__.py"
"""A module of shiv in the single-file program, which unpacks the libraries."""


def main() -> int:
    """Build what the arguments select, and print the paths of the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True, help="the wheel of genplug")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="directory of the result (default: dist)")
    parser.add_argument("--python", choices=PYTHONS, default=PYTHONS[0], help="version of Python (default: 3.11)")
    parser.add_argument("--arch", choices=MACHINES_BY_ARCH, default="amd64", help="architecture (default: amd64)")
    arguments = parser.parse_args()
    # nfpm runs in another directory.
    arguments.output = arguments.output.resolve()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        stage = Path(directory) / "stage"
        library = stage / LIBRARY
        target = (arguments.python, arguments.arch)
        digests = install_platform_wheels(library, arguments.wheel, *target)
        version = read_version(arguments.wheel)
        write_launchers(stage, arguments.python)
        write_unit(stage)
        copy_documents(stage)
        properties = {"genplug:python": arguments.python, "genplug:architecture": arguments.arch}
        write_bom(stage / sbom.PATH, library, digests, properties)
        normalize_files(stage)
        built = [
            build_program(library, arguments.output, *target),
            *(build_package(kind, stage, arguments.output, version, target) for kind in ("deb", "rpm")),
        ]
        for path in built:
            write_bom(Path(f"{path}{sbom.SUFFIX}"), library, digests, properties, path)
        write_wheel_boms(arguments.wheel, library, version)
    built.append(build_kubectl_plugin(arguments.wheel, arguments.output))
    print(*built, sep="\n")
    return 0


def write_bom(
    path: Path,
    library: Path,
    digests: Mapping[str, str],
    properties: Mapping[str, str],
    subject: Path | None = None,
) -> None:
    """Write the SBOM of a directory of Python packages, with their digests by name.

    ``subject`` is the released file, whose name and SHA-256 the SBOM then contains.
    """
    components = sbom.list_python_packages([library], digests)
    (version,) = (component["version"] for component in components if component["name"] == "genplug")
    application = sbom.build_subject("application", version)
    if subject:
        properties = {**properties, "genplug:file": subject.name}
        application["hashes"] = sbom.build_hashes(sbom.digest_file(subject))
        if zipfile.is_zipfile(subject) and SHIV_MODULE in zipfile.ZipFile(subject).namelist():
            components.append(sbom.build_python_component(distribution("shiv"), {}))
    requirements = sbom.list_python_requirements([library])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sbom.render_bom(sbom.build_bom(application, components, requirements, properties)))


def write_wheel_boms(wheel: Path, library: Path, version: str) -> None:
    """Write the SBOM of the wheel, and of the sdist if it exists in the same directory.

    Both contain genplug only. The components are the dependencies that an installation adds, with the versions and the
    hashes of the lock file.
    """
    components = [part for part in sbom.list_python_packages([library], {}) if part["name"] != "genplug"]
    hashes = read_locked_hashes()
    for component in components:
        reference = {"type": "distribution", "url": component["purl"]}
        component["externalReferences"] = [
            {**reference, "hashes": sbom.build_hashes(digest)} for digest in hashes[component["name"]]
        ]
    requirements = sbom.list_python_requirements([library])
    requirements.pop(sbom.python_purl("genplug", version))
    for path in (wheel, wheel.with_name(f"genplug-{version}.tar.gz")):
        if path.exists():
            subject = sbom.build_subject(
                "library",
                version,
                purl=sbom.python_purl("genplug", version),
                hashes=sbom.build_hashes(sbom.digest_file(path)),
            )
            properties = {"genplug:components": "dependencies that an installation adds", "genplug:file": path.name}
            bom = sbom.build_bom(subject, components, requirements, properties)
            Path(f"{path}{sbom.SUFFIX}").write_text(sbom.render_bom(bom))


def read_locked_hashes() -> dict[str, list[str]]:
    """Return the SHA-256 of each wheel in the lock file, by the name of the package."""
    entries = re.findall(r"^([\w-]+)==\S+((?: \\\n    --hash=sha256:\w+)+)", LOCK.read_text(), re.MULTILINE)
    return {name: re.findall(r"sha256:(\w+)", hashes) for name, hashes in entries}


def normalize_files(directory: Path) -> None:
    """Set the mode and the time of each file, so that packages do not depend on the umask and the time of the build."""
    for path in [directory, *directory.rglob("*")]:
        is_program = path.is_dir() or path.parent == directory / "usr/bin"
        path.chmod(0o755 if is_program else 0o644)
        os.utime(path, (EPOCH, EPOCH))


def read_version(wheel: Path) -> str:
    """Return the version in the name of a wheel."""
    return wheel.name.split("-")[1]


def install_platform_wheels(target: Path, wheel: Path, python: str, arch: str) -> dict[str, str]:
    """Unpack the wheel of genplug and its locked dependencies for a platform into a directory.

    Return the SHA-256 of each wheel, by the name of the package.
    """
    machine = MACHINES_BY_ARCH[arch]
    platforms = [f"--platform={tag}_{machine}" for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    selected = ["--implementation=cp", f"--python-version={python}", *platforms]
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        install_locked_wheels(target, LOCK, *selected, "--report", report)
        digests = sbom.read_digests(report)
    # Programs of the dependencies, in a directory that pip would not replace.
    remove_unused(target)
    install_wheels(target, *selected, "--no-index", wheel)
    remove_unused(target)
    return {**digests, "genplug": sbom.digest_file(wheel)}


def remove_unused(target: Path) -> None:
    """Remove the files of wheels that no program uses at run time, and those that depend on the build."""
    for pattern in (*UNUSED_PATTERNS, *PIP_PATTERNS):
        for path in list(target.rglob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def build_program(library: Path, output: Path, python: str, arch: str) -> Path:
    """Build the single file with the program ``genplug``, which unpacks its libraries at the first start."""
    target = output / f"genplug-py{python.replace('.', '')}-{arch}.pyz"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "shiv.cli",
        "--site-packages",
        library,
        "--entry-point",
        "genplug.cli.main:main",
    ]
    command += ["--output-file", target, "--python", f"/usr/bin/env python{python}", "--reproducible"]
    subprocess.run(command, check=True)  # noqa: S603 - the arguments come from this file
    normalize_archive(target)
    return target


def build_kubectl_plugin(wheel: Path, output: Path) -> Path:
    """Build the single file with the kubectl plugin, for every operating system with Python 3.11 or newer."""
    target = output / "kubectl-genplug.pyz"
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "library"
        # The modules of the plugin import the standard library only.
        install_wheels(library, "--no-index", "--no-deps", wheel)
        remove_unused(library)
        program = f"{PROGRAMS['kubectl-genplug']}:main"
        zipapp.create_archive(library, target, interpreter="/usr/bin/env python3", main=program)
        normalize_archive(target)
        write_bom(Path(f"{target}{sbom.SUFFIX}"), library, {"genplug": sbom.digest_file(wheel)}, {}, target)
    target.chmod(0o755)
    return target


def normalize_archive(path: Path) -> None:
    """Write a zip archive with a prefix line again: compressed, in the order of names, with equal times and modes."""
    with path.open("rb") as file:
        prefix = file.readline()
    with zipfile.ZipFile(path) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
    with path.open("wb") as file:
        file.write(prefix)
        with zipfile.ZipFile(file, "w") as archive:
            for name in sorted(contents):
                info = zipfile.ZipInfo(name, time.gmtime(EPOCH)[:6])
                info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
                archive.writestr(info, contents[name])


def write_launchers(stage: Path, python: str) -> None:
    """Write the programs of a package. -I and -S ignore the environment and the packages of the system."""
    for name, module in PROGRAMS.items():
        path = stage / "usr/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"#!/usr/bin/python{python} -IS\n"
            "import sys\n\n"
            f'sys.path.append("/{LIBRARY}")\n'
            f"from {module} import main\n\n"
            "sys.exit(main())\n"
        )
        path.chmod(0o755)


def write_unit(stage: Path) -> None:
    """Write the systemd unit with the path of the installed program, and without the manual installation."""
    lines = UNIT.read_text().replace("/opt/genplug/bin/genplug", "/usr/bin/genplug").splitlines(keepends=True)
    while lines[0].startswith("#"):
        lines.pop(0)
    target = stage / "usr/lib/systemd/system/genplug.service"
    target.parent.mkdir(parents=True)
    target.write_text("".join(lines))


def copy_documents(stage: Path) -> None:
    """Copy the license and the instructions of a package."""
    directory = stage / "usr/share/doc/genplug"
    directory.mkdir(parents=True)
    shutil.copyfile(ROOT / "LICENSE", directory / "copyright")
    shutil.copyfile(HERE / "README.package", directory / "README")


def build_package(kind: str, stage: Path, output: Path, version: str, target: tuple[str, str]) -> Path:
    """Build a package of the kind ``deb`` or ``rpm`` for a version of Python and an architecture; return its path.

    Raises:
        SystemExit: nfpm is not installed.
    """
    python, arch = target
    nfpm = shutil.which("nfpm", path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}")
    if nfpm is None:
        sys.exit("build.py: nfpm is not installed; run .ci/tools, or put nfpm on the PATH")
    # A later version of Python has a higher release, so that an upgrade of the operating system selects it.
    release = f"1.py{python.replace('.', '')}"
    machine = arch if kind == "deb" else MACHINES_BY_ARCH[arch]
    names = {"deb": f"genplug_{version}-{release}_{machine}.deb", "rpm": f"genplug-{version}-{release}.{machine}.rpm"}
    package = output / names[kind]
    environment = {
        **os.environ,
        "GENPLUG_VERSION": version,
        "GENPLUG_RELEASE": release,
        "GENPLUG_ARCH": arch,
        "GENPLUG_PYTHON": f"python{python}",
        "GENPLUG_STAGE": str(stage),
        "SOURCE_DATE_EPOCH": str(EPOCH),
    }
    command: list[str | Path] = [
        nfpm,
        "package",
        "--config",
        HERE / "nfpm.yaml",
        "--packager",
        kind,
        "--target",
        package,
    ]
    run = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, cwd=HERE)  # noqa: S603 - the arguments come from this file
    if run.returncode:
        sys.exit(f"build.py: nfpm failed:\n{run.stdout}{run.stderr}")
    return package


if __name__ == "__main__":
    sys.exit(main())
