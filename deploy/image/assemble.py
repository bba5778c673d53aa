"""Assemble the layers of the image in the build stage of deploy/Containerfile, without running the target platform.

``assemble.py runtime`` copies the interpreter, its library and the shared libraries of both from /build/python (a
Debian root with /usr/bin/python3.11), adds the locked dependencies as wheels for the target platform, and compiles the
bytecode. ``assemble.py genplug`` adds the package and the SBOM as a second layer, and the links of the debug variant.
Only the files named here are copied, so the image contains no shell and no package tools.
"""  # noqa: INP001 - a script of the build stage, not a package

import compileall
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

import sbom

BUILD = Path("/build")
SOURCE = BUILD / "python"
RUNTIME = BUILD / "layers/runtime"
GENPLUG = BUILD / "layers/genplug"
DEBUG = BUILD / "layers/debug"
DIGESTS = BUILD / "digests.json"
"""The SHA-256 of each wheel in the runtime layer, which the SBOM in the second layer states."""

PYTHON = "usr/bin/python3.11"
STDLIB = "usr/lib/python3.11"
PACKAGES = "usr/lib/python3/dist-packages"
"""Debian's directory for packages, which is in the search path of ``python3.11 -m genplug``."""

MACHINES_BY_ARCH = {"amd64": "x86_64", "arm64": "aarch64"}

EXCLUDED_STDLIB_PATTERNS = (
    "config-3.11-*",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "sitecustomize.py",
    "sqlite3",
    "test",
    "tkinter",
    "turtle*",
    "venv",
    "lib-dynload/_crypt*",
    "lib-dynload/_curses*",
    "lib-dynload/_dbm*",
    "lib-dynload/_sqlite3*",
    "lib-dynload/_test*",
    "lib-dynload/_tkinter*",
    "lib-dynload/nis*",
    "lib-dynload/readline*",
)
"""Modules that need further libraries or much space and that genplug does not import."""

EXCLUDED_WHEEL_PATTERNS = ("*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.h", "bin", "testdata", "tests", "test_*")

LAUNCHER = f"""\
#!/{PYTHON} -ISB
import sys

sys.path.append("/{PACKAGES}")
from genplug.cli.main import main

sys.exit(main())
"""
"""-I and -S ignore the environment and the working directory and make the start faster."""

APPLETS = """
ash awk base64 basename cat chmod clear cmp cp cut date dd df diff dirname dmesg du env false find free grep gunzip
gzip head hexdump hostname id ip kill less ln ls md5sum mkdir mknod mount mv nc netstat nproc od pidof ping ps pwd
readlink realpath reset rm rmdir sed seq sh sha256sum sleep sort stat strings stty sync tail tar tee test timeout top
touch tr true tty umount uname uniq uptime vi wc wget which whoami xargs yes zcat
""".split()  # noqa: SIM905 - a list of eighty quoted names is harder to read


def main(step: str) -> None:
    """Assemble the layers of a step, ``runtime`` or ``genplug``."""
    # The bytecode of a set depends on the hash seed. Restart with a fixed seed, so that builds are reproducible.
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606 - this script
    {"runtime": assemble_runtime, "genplug": assemble_genplug}[step]()


def assemble_runtime() -> None:
    """Assemble the layer with the interpreter, its library, the dependencies and their shared libraries."""
    copy_from_base(PYTHON)
    copy_from_base(STDLIB)
    for pattern in EXCLUDED_STDLIB_PATTERNS:
        for path in (RUNTIME / STDLIB).glob(pattern):
            remove(path)
    for cache in (RUNTIME / STDLIB).rglob("__pycache__"):
        remove(cache)
    report = BUILD / "report.json"
    install_wheels(
        RUNTIME, "--require-hashes", "--requirement", str(BUILD / "requirements.lock"), "--report", str(report)
    )
    DIGESTS.write_text(json.dumps(sbom.read_digests(report)))
    copy_linked_libraries()
    copy_package_records()
    write(RUNTIME / "etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n")
    write(RUNTIME / "etc/group", "root:x:0:\nnogroup:x:65534:\n")
    write(RUNTIME / "etc/nsswitch.conf", "hosts: files dns\n")
    write(RUNTIME / "etc/os-release", resolve_in_base(Path("etc/os-release")).read_text())
    for mount in ("dev", "proc", "run", "sys"):
        (RUNTIME / mount).mkdir()
    (RUNTIME / "tmp").mkdir()
    (RUNTIME / "tmp").chmod(0o1777)
    precompile(RUNTIME)


def assemble_genplug() -> None:
    """Assemble the layer with the package and its launcher, and the layer with the links of the debug variant."""
    tools = BUILD / "tools"
    run_pip(
        "install", "--target", str(tools), "--no-deps", "--require-hashes", "--requirement", str(BUILD / "build.lock")
    )
    wheels = BUILD / "wheels"
    run_pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(BUILD / "source"), path=tools)
    (wheel,) = wheels.glob("*.whl")
    install_wheels(GENPLUG, "--no-index", str(wheel))
    write(GENPLUG / "usr/bin/genplug", LAUNCHER, mode=0o755)
    digests = {**json.loads(DIGESTS.read_text()), "genplug": sbom.digest_file(wheel)}
    write(GENPLUG / sbom.PATH, sbom.build_image_bom([RUNTIME, GENPLUG], PACKAGES, digests, get_target_arch()))
    precompile(GENPLUG)
    for applet in APPLETS:
        create_link(DEBUG / "busybox" / applet, "busybox")


def copy_from_base(path: str) -> None:
    """Copy a file or a directory of the base into the runtime layer; symbolic links are kept."""
    source, target = SOURCE / path, RUNTIME / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file and create its parent directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def create_link(path: Path, target: str) -> None:
    """Create a symbolic link and its parent directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def remove(path: Path) -> None:
    """Remove a file or a directory; do nothing if it does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def run_pip(*arguments: str, path: Path | None = None) -> None:
    """Run pip with the secrets of the build, if it has any; ``path`` is the PYTHONPATH."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    secrets = Path("/run/secrets")
    if (secrets / "pip.conf").exists():
        environment["PIP_CONFIG_FILE"] = str(secrets / "pip.conf")
    if (secrets / "ca.pem").exists():
        environment["PIP_CERT"] = str(secrets / "ca.pem")
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command, *rest = arguments
    subprocess.run(  # noqa: S603 - the arguments come from this file
        [sys.executable, "-m", "pip", command, "--quiet", "--no-cache-dir", *rest], env=environment, check=True
    )


def install_wheels(layer: Path, *arguments: str) -> None:
    """Unpack wheels for the target platform into a layer, without building or running anything."""
    platforms = [
        f"--platform={tag}_{get_target_machine()}" for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
    ]
    target = layer / PACKAGES
    run_pip(
        "install",
        f"--target={target}",
        "--no-deps",
        "--no-compile",
        "--only-binary=:all:",
        "--implementation=cp",
        "--python-version=3.11",
        *platforms,
        *arguments,
    )
    for pattern in EXCLUDED_WHEEL_PATTERNS:
        for path in list(target.rglob(pattern)):
            remove(path)
    for record in target.glob("*.dist-info/RECORD"):
        # It lists files that were removed, and its order is not reproducible.
        remove(record)


def get_target_machine() -> str:
    """Return the machine name of the target platform, as in wheel tags and library directories."""
    return MACHINES_BY_ARCH[os.environ["TARGETARCH"]] if os.environ.get("TARGETARCH") else os.uname().machine


def get_target_arch() -> str:
    """Return the architecture of the target platform, as in names of images."""
    return next(arch for arch, machine in MACHINES_BY_ARCH.items() if machine == get_target_machine())


def copy_linked_libraries() -> None:
    """Copy the loader and every shared library that a file of the runtime layer is linked with, transitively."""
    # No file is linked with libgcc_s, but glibc loads it by name when a thread is cancelled.
    required, copied = {"libgcc_s.so.1"}, set[str]()
    for path in RUNTIME.rglob("*"):
        if path.is_file() and is_elf(path):
            required |= read_linked_libraries(path)
    while missing := required - copied:
        for name in missing:
            required |= read_linked_libraries(copy_library(name))
        copied |= missing


def copy_library(name: str) -> Path:
    """Copy the library with this name from the base into the runtime layer and return the copy.

    Raises:
        SystemExit: The base does not contain the library.
    """
    if name.startswith("/"):
        # The loader is recorded with its path.
        return copy_resolved(Path(name.lstrip("/")), Path(name.lstrip("/")))
    directory = f"lib/{get_target_machine()}-linux-gnu"
    for path in (Path("usr") / directory / name, Path(directory) / name):
        if resolve_in_base(path).exists():
            return copy_resolved(path, Path("usr") / directory / name)
    sys.exit(
        f"PYTHON_BASE does not contain {name} in /{directory} or /usr/{directory}, but a file of the image is linked "
        "with it: add its Debian package to PYTHON_BASE (deploy/image/base.sh)"
    )


def copy_resolved(path: Path, name: Path) -> Path:
    """Copy the target of a path of the base into the runtime layer as ``name`` and return the copy."""
    target = RUNTIME / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(resolve_in_base(path), target)
    target.chmod(0o755 if is_elf(target) else 0o644)
    return target


def resolve_in_base(path: Path) -> Path:
    """Return the path with its symbolic links resolved; absolute links are relative to the root of the base."""
    parts, resolved = list(path.parts), Path()
    while parts:
        part = parts.pop(0)
        resolved = resolved.parent if part == ".." else resolved / part
        if (SOURCE / resolved).is_symlink():
            target = (SOURCE / resolved).readlink()
            parts = [*(target.parts[1:] if target.is_absolute() else target.parts), *parts]
            resolved = Path() if target.is_absolute() else resolved.parent
    return SOURCE / resolved


def is_elf(path: Path) -> bool:
    """Return whether a file is an executable or a shared library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def read_linked_libraries(path: Path) -> set[str]:
    """Return the libraries that a 64-bit little-endian ELF file is linked with, and the path of its loader."""
    data = path.read_bytes()
    offset, size, count = struct.unpack_from("<Q14xHH", data, 32)
    segments = [struct.unpack_from("<IIQQQQQQ", data, offset + number * size) for number in range(count)]
    loads = [(address, address + length, start) for kind, _, start, address, _, length, _, _ in segments if kind == 1]
    names: set[str] = set()
    for kind, _, start, _, _, length, _, _ in segments:
        if kind == 3:  # noqa: PLR2004 - PT_INTERP
            names.add(data[start : start + length].rstrip(b"\0").decode())
        if kind == 2:  # noqa: PLR2004 - PT_DYNAMIC
            entries = list(struct.iter_unpack("<qQ", data[start : start + length]))
            strings = next(value for tag, value in entries if tag == 5)  # noqa: PLR2004 - DT_STRTAB
            begin = next(strings - low + first for low, high, first in loads if low <= strings < high)
            for name in (begin + value for tag, value in entries if tag == 1):  # DT_NEEDED
                names.add(data[name : data.index(b"\0", name)].decode())
    return names


def copy_package_records() -> None:
    """Copy the license and the dpkg record, which scanners read, of each Debian package with a file in the layer."""
    sources = {resolve_in_base(path.relative_to(RUNTIME)) for path in RUNTIME.rglob("*") if path.is_file()}
    for record in sorted((SOURCE / "var/lib/dpkg/status.d").glob("*.md5sums")):
        # A line consists of an MD5 sum (32 characters), two spaces and a path.
        lines = [
            line
            for line in record.read_text().splitlines(keepends=True)
            if resolve_in_base(Path(line[34:-1])) in sources
        ]
        if not lines:
            continue
        control = record.with_suffix("")
        for file, text in ((record, "".join(lines)), (control, control.read_text())):
            write(RUNTIME / file.relative_to(SOURCE), text)
        package = re.search(r"^Package: (\S+)$", control.read_text(), re.MULTILINE)
        copyright_file = Path("usr/share/doc") / (package[1] if package else control.name) / "copyright"
        copy_resolved(copyright_file, copyright_file)


def precompile(layer: Path) -> None:
    """Write bytecode next to every source, because the root is read-only at run time; time stamps are not checked.

    Raises:
        SystemExit: A source does not compile.
    """
    for directory in filter(Path.exists, (layer / STDLIB, layer / PACKAGES)):
        for path in directory.rglob("*"):
            # Some sources in Debian packages and wheels are executable.
            path.chmod(0o755 if path.is_dir() else 0o644)
        if not compileall.compile_dir(
            directory,
            maxlevels=99,
            quiet=1,
            stripdir=str(layer),
            prependdir="/",
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        ):
            sys.exit(f"{directory} contains sources that do not compile; the errors are above")


if __name__ == "__main__":
    main(sys.argv[1])
