"""What the image holds, taken together in the build stage of deploy/Containerfile. Runs nothing of the target platform.

``runtime`` takes out of /build/python (a Debian with /usr/bin/python3.11) the interpreter, its library and what both
are linked with, adds the locked dependencies as wheels of the target platform, and compiles all of it. ``genplug`` adds
the package itself as a second layer, and the links of the debug variant. Everything not named here stays out: there is
no shell to forget.
"""  # noqa: INP001 - a script of the build stage, not a package

import compileall
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

BUILD = Path("/build")
SOURCE = BUILD / "python"
RUNTIME = BUILD / "layers/runtime"
GENPLUG = BUILD / "layers/genplug"
DEBUG = BUILD / "layers/debug"

PYTHON = "usr/bin/python3.11"
STDLIB = "usr/lib/python3.11"
PACKAGES = "usr/lib/python3/dist-packages"
"""Debian's own place for packages: ``python3.11 -m genplug`` finds it too."""

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

LEFT_OUT_OF_STDLIB = (
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
"""Parts that pull in libraries or megabytes and that no service imports."""

LEFT_OUT_OF_WHEELS = ("*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.h", "bin", "testdata", "tests", "test_*")

LAUNCHER = f"""\
#!/{PYTHON} -ISB
import sys

sys.path.append("/{PACKAGES}")
from genplug.cli.main import main

sys.exit(main())
"""
"""-I and -S: nothing of the environment or the working directory is looked at, and starting costs less."""

APPLETS = """
ash awk base64 basename cat chmod clear cmp cp cut date dd df diff dirname dmesg du env false find free grep gunzip
gzip head hexdump hostname id ip kill less ln ls md5sum mkdir mknod mount mv nc netstat nproc od pidof ping ps pwd
readlink realpath reset rm rmdir sed seq sh sha256sum sleep sort stat strings stty sync tail tar tee test timeout top
touch tr true tty umount uname uniq uptime vi wc wget which whoami xargs yes zcat
""".split()  # noqa: SIM905 - eighty quoted names are no better


def main(step: str) -> None:
    """Make the layers that a step names."""
    # Bytecode is written in the order of its making, which must not depend on the day.
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606 - ourselves
    {"runtime": make_runtime, "genplug": make_genplug}[step]()


def make_runtime() -> None:
    """Take the interpreter, its library, the dependencies and the shared libraries all of them are linked with."""
    copy(PYTHON)
    copy(STDLIB)
    for pattern in LEFT_OUT_OF_STDLIB:
        for path in (RUNTIME / STDLIB).glob(pattern):
            remove(path)
    for cache in (RUNTIME / STDLIB).rglob("__pycache__"):
        remove(cache)
    install_wheels(RUNTIME, "--require-hashes", "--requirement", str(BUILD / "requirements.lock"))
    copy_linked_libraries()
    copy_licences_and_status()
    write(RUNTIME / "etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n")
    write(RUNTIME / "etc/group", "root:x:0:\nnogroup:x:65534:\n")
    write(RUNTIME / "etc/nsswitch.conf", "hosts: files dns\n")
    write(RUNTIME / "etc/os-release", resolved(Path("etc/os-release")).read_text())
    for mount in ("dev", "proc", "run", "sys"):
        (RUNTIME / mount).mkdir()
    (RUNTIME / "tmp").mkdir()
    (RUNTIME / "tmp").chmod(0o1777)
    precompile(RUNTIME)


def make_genplug() -> None:
    """Add the package, its launcher, and the links of the debug variant."""
    tools = BUILD / "tools"
    pip("install", "--target", str(tools), "--no-deps", "--require-hashes", "--requirement", str(BUILD / "build.lock"))
    wheels = BUILD / "wheels"
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(BUILD / "source"), path=tools)
    install_wheels(GENPLUG, "--no-index", *map(str, wheels.glob("*.whl")))
    write(GENPLUG / "usr/bin/genplug", LAUNCHER, mode=0o755)
    precompile(GENPLUG)
    for applet in APPLETS:
        link(DEBUG / "busybox" / applet, "busybox")


def copy(path: str) -> None:
    """Take a file or a folder out of the base, links as links."""
    source, target = SOURCE / path, RUNTIME / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def link(path: Path, target: str) -> None:
    """Make a symbolic link and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def remove(path: Path) -> None:
    """Remove a file or a folder, unless one above it went before."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def pip(*arguments: str, path: Path | None = None) -> None:
    """Run the build stage's pip with the configuration the build was given, if it was given one."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    secrets = Path("/run/secrets")
    if (secrets / "pip.conf").exists():
        environment["PIP_CONFIG_FILE"] = str(secrets / "pip.conf")
    if (secrets / "ca.pem").exists():
        environment["PIP_CERT"] = str(secrets / "ca.pem")
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command, *rest = arguments
    subprocess.run(  # noqa: S603 - the arguments are this file's
        [sys.executable, "-m", "pip", command, "--quiet", "--no-cache-dir", *rest], env=environment, check=True
    )


def install_wheels(layer: Path, *arguments: str) -> None:
    """Unpack wheels for the target platform; nothing is built and nothing is run."""
    platforms = [f"--platform={tag}_{machine()}" for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    target = layer / PACKAGES
    pip(
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
    for pattern in LEFT_OUT_OF_WHEELS:
        for path in list(target.rglob(pattern)):
            remove(path)
    for record in target.glob("*.dist-info/RECORD"):
        # It names files that are left out, in an order that is not ours.
        remove(record)


def machine() -> str:
    """Name the target platform by the name wheels and library folders have for it."""
    return MACHINES[os.environ["TARGETARCH"]] if os.environ.get("TARGETARCH") else os.uname().machine


def copy_linked_libraries() -> None:
    """Every shared library that something in the layer is linked with, and the loader."""
    # glibc opens the first of them by name when a thread is cancelled; nothing is linked with it for that.
    wanted, there = {"libgcc_s.so.1"}, set[str]()
    for path in RUNTIME.rglob("*"):
        if path.is_file() and is_elf(path):
            wanted |= needed(path)
    while missing := wanted - there:
        for name in missing:
            wanted |= needed(copy_library(name))
        there |= missing


def copy_library(name: str) -> Path:
    """Take a library by the name it is linked by, whatever links the base has for it."""
    if name.startswith("/"):
        # The loader: executables name it by its path.
        return copy_resolved(Path(name.lstrip("/")), Path(name.lstrip("/")))
    folder = f"lib/{machine()}-linux-gnu"
    for found in (Path("usr") / folder / name, Path(folder) / name):
        if resolved(found).exists():
            return copy_resolved(found, Path("usr") / folder / name)
    sys.exit(f"the base has no {name} in /{folder} or /usr/{folder}, but something in the image needs it")


def copy_resolved(path: Path, name: Path) -> Path:
    """Take what a path of the base leads to, under one name."""
    target = RUNTIME / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(resolved(path), target)
    target.chmod(0o755 if is_elf(target) else 0o644)
    return target


def resolved(path: Path) -> Path:
    """Where a path of the base leads, absolute links being the base's own."""
    parts, seen = list(path.parts), Path()
    while parts:
        part = parts.pop(0)
        seen = seen.parent if part == ".." else seen / part
        if (SOURCE / seen).is_symlink():
            target = (SOURCE / seen).readlink()
            parts = [*(target.parts[1:] if target.is_absolute() else target.parts), *parts]
            seen = Path() if target.is_absolute() else seen.parent
    return SOURCE / seen


def is_elf(path: Path) -> bool:
    """Whether a file is an executable or a shared library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def needed(path: Path) -> set[str]:
    """Read what libraries a 64-bit little-endian ELF file is linked with, and the path of its loader."""
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


def copy_licences_and_status() -> None:
    """For each Debian package of which something is left: its licence, and the record that scanners read."""
    left = {resolved(path.relative_to(RUNTIME)) for path in RUNTIME.rglob("*") if path.is_file()}
    for record in sorted((SOURCE / "var/lib/dpkg/status.d").glob("*.md5sums")):
        # A line is a sum, two spaces, and a path.
        lines = [line for line in record.read_text().splitlines(keepends=True) if resolved(Path(line[34:-1])) in left]
        if not lines:
            continue
        control = record.with_suffix("")
        for file, text in ((record, "".join(lines)), (control, control.read_text())):
            write(RUNTIME / file.relative_to(SOURCE), text)
        package = re.search(r"^Package: (\S+)$", control.read_text(), re.MULTILINE)
        licence = Path("usr/share/doc") / (package[1] if package else control.name) / "copyright"
        copy_resolved(licence, licence)


def precompile(layer: Path) -> None:
    """Write bytecode beside every source, valid whatever the clock says; later the root is read-only."""
    for folder in filter(Path.exists, (layer / STDLIB, layer / PACKAGES)):
        for path in folder.rglob("*"):
            # Some sources and some wheels come as executable files.
            path.chmod(0o755 if path.is_dir() else 0o644)
        if not compileall.compile_dir(
            folder,
            maxlevels=99,
            quiet=1,
            stripdir=str(layer),
            prependdir="/",
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        ):
            sys.exit(f"{folder} holds sources that do not compile")


if __name__ == "__main__":
    main(sys.argv[1])
