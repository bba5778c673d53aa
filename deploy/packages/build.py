"""Build the packages of genplug for operating systems, and the single-file programs for laptops.

``python deploy/packages/build.py --wheel dist/genplug-*.whl --output dist`` writes a ``.deb``, an ``.rpm`` and
``genplug.pyz``, all with the locked dependencies for one version of Python and one architecture, and
``kubectl-genplug.pyz``, which runs on every operating system. Nothing of the target platform runs during the build.
Requires ``nfpm`` (in $GENPLUG_TOOLS or on the PATH) and the Python packages ``build`` and ``shiv``.
"""  # noqa: INP001 - a script, not a package

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipapp
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
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
KUBECTL_REQUIREMENTS = ("attrs",)
"""The dependencies of the kubectl plugin, which are pure Python."""


def main() -> int:
    """Build what the arguments select, and print the paths of the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True, help="the wheel of genplug")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="directory of the result (default: dist)")
    parser.add_argument("--python", choices=PYTHONS, default=PYTHONS[0], help="version of Python (default: 3.11)")
    parser.add_argument("--arch", choices=MACHINES_BY_ARCH, default="amd64", help="architecture (default: amd64)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        stage = Path(directory) / "stage"
        install_wheels(stage / LIBRARY, arguments.wheel, arguments.python, arguments.arch)
        built = [
            build_program(stage / LIBRARY, arguments.output, arguments.python, arguments.arch),
            build_kubectl_plugin(arguments.wheel, arguments.output),
        ]
        write_launchers(stage, arguments.python)
        write_unit(stage)
        version = read_version(arguments.wheel)
        built += [
            build_package(kind, stage, arguments.output, version, (arguments.python, arguments.arch))
            for kind in ("deb", "rpm")
        ]
    print(*built, sep="\n")
    return 0


def read_version(wheel: Path) -> str:
    """Return the version in the name of a wheel."""
    return wheel.name.split("-")[1]


def run_pip(*arguments: str | Path) -> None:
    """Run ``pip install`` without an index, a cache or messages of its own."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
    ]
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
    subprocess.run([*command, *arguments], check=True, env=environment)  # noqa: S603 - the arguments come from this file


def install_wheels(target: Path, wheel: Path, python: str, arch: str) -> None:
    """Unpack the wheel of genplug and its locked dependencies for a platform into a directory."""
    machine = MACHINES_BY_ARCH[arch]
    platforms = [f"--platform={tag}_{machine}" for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    selected = [f"--target={target}", "--no-deps", "--only-binary=:all:", "--implementation=cp"]
    selected += [f"--python-version={python}", *platforms]
    run_pip(*selected, "--require-hashes", "--requirement", LOCK)
    # Programs of the dependencies, in a directory that pip would not replace.
    remove_unused(target)
    run_pip(*selected, "--no-index", wheel)
    remove_unused(target)


def remove_unused(target: Path) -> None:
    """Remove the files of wheels that no program uses at run time."""
    for pattern in UNUSED_PATTERNS:
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
    return target


def build_kubectl_plugin(wheel: Path, output: Path) -> Path:
    """Build the single file with the kubectl plugin, for every operating system with Python 3.11 or newer."""
    target = output / "kubectl-genplug.pyz"
    with tempfile.TemporaryDirectory() as directory:
        locked = [line for line in LOCK.read_text().split("\n") if line.split("==")[0] in KUBECTL_REQUIREMENTS]
        pins = [line.removesuffix(" \\") for line in locked]
        run_pip(f"--target={directory}", "--no-deps", "--only-binary=:all:", *pins, wheel)
        remove_unused(Path(directory))
        program = f"{PROGRAMS['kubectl-genplug']}:main"
        zipapp.create_archive(directory, target, interpreter="/usr/bin/env python3", main=program, compressed=True)
    target.chmod(0o755)
    return target


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
        "GENPLUG_SOURCE": str(ROOT),
        "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", "315532800"),
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
