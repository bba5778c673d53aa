"""The packages of deploy/packages: Debian's own tools install, verify and remove them in a copy of this system.

The copy is an overlay of the root directory, so that a test changes nothing outside it.
"""

import asyncio
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from genplug import __version__
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import CONFIG_HEADER
from tests.support.sbom import list_purls, read_bom, sbom

pytestmark = [pytest.mark.packages, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
LIBRARY = "usr/lib/genplug"


def find_python() -> str:
    """Return the version of the system's Python, for example ``3.11``."""
    return subprocess.check_output(
        ["/usr/bin/python3", "-c", "import sys; print(f'{sys.version_info[0]}.{sys.version_info[1]}')"], text=True
    ).strip()


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory with the packages and programs of this checkout."""
    return build_dist(REPOSITORY, tmp_path_factory.mktemp("dist"))


def build_dist(checkout: Path, output: Path, **environment: str) -> Path:
    """Build the packages and programs of a checkout and return the directory of the result."""
    scripts = checkout / "deploy/packages"
    env = os.environ | environment
    subprocess.run([sys.executable, scripts / "build_wheel.py", "--output", output], check=True, env=env)
    # A relative path, as in nox -s release.
    options: list[str | Path] = ["--output", os.path.relpath(output), "--python", find_python(), "--arch", ARCH]
    wheel = find_file(output, "*.whl")
    subprocess.run([sys.executable, scripts / "build.py", "--wheel", wheel, *options], check=True, env=env)
    return output


def find_file(directory: Path, pattern: str) -> Path:
    """Return the only file of a directory that matches a pattern."""
    [path] = directory.glob(pattern)
    return path


class SystemCopy:
    """A copy of this system, in which programs run."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str | Path) -> str:
        """Run a command in the copy and return its output.

        Raises:
            subprocess.CalledProcessError: The command failed; the notes contain its output.
        """
        run = subprocess.run(
            ["chroot", self.root, *command], capture_output=True, text=True, check=False, env=self.environment
        )
        try:
            run.check_returncode()
        except subprocess.CalledProcessError as error:
            error.add_note(run.stdout + run.stderr)
            raise
        return run.stdout

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a login of root."""
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}

    def list_modules(self) -> list[Path]:
        """Return the files of the installed package and its dependencies."""
        directory = self.root / LIBRARY
        return [path for path in directory.rglob("*") if path.is_file()] if directory.exists() else []


@pytest.fixture
def system(tmp_path: Path) -> Iterator[SystemCopy]:
    """Return a copy of this system that shares /tmp with it."""
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", overlay], check=True)
    mounts = [overlay]
    try:
        for name in ("upper", "work", "root"):
            (overlay / name).mkdir()
        options = f"lowerdir=/,upperdir={overlay}/upper,workdir={overlay}/work"
        root = overlay / "root"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", root], check=True)
        mounts.append(root)
        for name in ("dev", "proc", "tmp"):
            subprocess.run(["mount", "--bind", f"/{name}", root / name], check=True)
            mounts.append(root / name)
        yield SystemCopy(root)
    finally:
        for mount in reversed(mounts):
            subprocess.run(["umount", "--lazy", mount], check=True)


def check_installed_program(system: SystemCopy) -> None:
    """Check the installed files and programs."""
    assert system.run("genplug", "--version").strip() == f"genplug {__version__}"
    assert "kubectl genplug" in system.run("kubectl-genplug", "--help")
    assert system.run("kubectl_complete-genplug", "pen").startswith("pending\t")
    assert (system.root / "etc/genplug").is_dir()
    modules = system.list_modules()
    # The service cannot write bytecode to /usr.
    assert len([path for path in modules if path.suffix == ".pyc"]) >= len(
        [path for path in modules if path.suffix == ".py" and path.parts[-2] == "genplug"]
    )
    started = subprocess.run(
        ["chroot", system.root, "genplug", "schema"], capture_output=True, text=True, check=True, env=system.environment
    )
    assert "DevicePluginConfig" in started.stdout


async def test_deb_installs_verifies_upgrades_and_leaves_nothing(
    dist: Path, system: SystemCopy, node: FakeNode
) -> None:
    package = find_file(dist, "*.deb")
    system.run("dpkg", "--install", package)
    check_installed_program(system)
    assert system.run("dpkg", "--verify", "genplug") == ""
    assert "_shtab_genplug" in (system.root / "usr/share/bash-completion/completions/genplug").read_text()
    unit = (system.root / "usr/lib/systemd/system/genplug.service").read_text()
    assert "ExecStart=/usr/bin/genplug run" in unit
    (system.root / "etc/genplug/genplug.yaml").write_text(CONFIG_HEADER + "resources: {}\n")
    # dpkg treats the same version as an upgrade.
    system.run("dpkg", "--install", package)
    check_installed_program(system)
    node.plug("/dev/x0")
    node.write_config(CONFIG_HEADER + "resources:\n  a.io/x: {devices: [{glob: /dev/x*}]}\n")
    await node.kubelet.start()
    async with run_installed_agent(system, node):
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
    system.run("dpkg", "--remove", "genplug")
    assert not (system.root / LIBRARY).exists()
    assert (system.root / "etc/genplug/genplug.yaml").exists()


@asynccontextmanager
async def run_installed_agent(system: SystemCopy, node: FakeNode) -> AsyncIterator[None]:
    """Run the installed agent on a simulated node, and check that it stops without an error."""
    command: list[str | Path] = ["chroot", system.root, "genplug", "run", "--config", node.config_dir]
    command += ["--root", node.root, "--kubelet-dir", node.kubelet_dir]
    process = await asyncio.create_subprocess_exec(*command, env=system.environment)
    try:
        yield
    finally:
        process.terminate()
        code = await process.wait()
    assert code == 0


def test_rpm_installs_verifies_upgrades_and_leaves_nothing(dist: Path, system: SystemCopy) -> None:
    package = find_file(dist, "*.rpm")
    requirements = system.run("rpm", "--query", "--requires", "--package", package)
    assert f"/usr/bin/python{find_python()}" in requirements.split()
    system.run("rpm", "--initdb")
    # Debian's packages are not in the database of rpm.
    system.run("rpm", "--install", "--nodeps", package)
    check_installed_program(system)
    assert system.run("rpm", "--verify", "--nodeps", "genplug") == ""
    system.run("rpm", "--upgrade", "--nodeps", "--replacepkgs", package)
    check_installed_program(system)
    system.run("rpm", "--erase", "genplug")
    assert not (system.root / LIBRARY).exists()


def test_single_file_programs_run_without_installed_packages(dist: Path, tmp_path: Path) -> None:
    python = f"/usr/bin/python{find_python()}"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    program = find_file(dist, "genplug-py*.pyz")
    run: list[str | Path] = [python, "-I", program, "validate", REPOSITORY / "examples/configs/fuse-kvm-tun.yaml"]
    subprocess.run(run, check=True, env=environment, cwd=tmp_path)
    plugin: list[str | Path] = [python, "-IS", dist / "kubectl-genplug.pyz", "--help"]
    assert "kubectl genplug" in subprocess.check_output(plugin, env=environment, cwd=tmp_path, text=True)


def digest_files(directory: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def test_second_build_in_another_environment_has_the_same_digests(dist: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listing, cwd=REPOSITORY, text=True).rstrip("\0").split("\0"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, copy / name, follow_symlinks=False)
        if not (copy / name).is_symlink():
            # git keeps the permission to execute a file.
            (copy / name).chmod(0o700 if os.access(REPOSITORY / name, os.X_OK) else 0o600)
            os.utime(copy / name, (1_000_000_000, 1_000_000_000))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    previous = os.umask(0o077)
    try:
        environment = {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "TMPDIR": str(temporary)}
        second = build_dist(copy, tmp_path / "dist", **environment)
    finally:
        os.umask(previous)
    assert digest_files(second) == digest_files(dist)


def list_metadata(names: Iterable[str]) -> set[tuple[str, str]]:
    """Return the names and versions of the Python packages whose metadata are among the file names."""
    directories = (Path(name).parent.name for name in names if name.endswith(".dist-info/METADATA"))
    packages = (directory.removesuffix(".dist-info").rsplit("-", 1) for directory in directories)
    return {(sbom.normalize_name(name), version) for name, version in packages}


def list_deb(package: Path) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(subprocess.check_output(["dpkg-deb", "--fsys-tarfile", package]))) as archive:
        return archive.getnames()


def list_rpm(package: Path) -> list[str]:
    return subprocess.check_output(["rpm", "--query", "--list", "--package", package], text=True).splitlines()


def list_zip(program: Path) -> list[str]:
    with zipfile.ZipFile(program) as archive:
        return archive.namelist()


@pytest.mark.parametrize(
    ("pattern", "list_names", "bundled"),
    [
        ("*.deb", list_deb, set()),
        ("*.rpm", list_rpm, set()),
        ("genplug-py*.pyz", list_zip, {"shiv"}),
        ("kubectl-genplug.pyz", list_zip, set()),
    ],
)
def test_sbom_lists_every_package_of_the_file(
    dist: Path, pattern: str, list_names: Callable[[Path], list[str]], bundled: set[str]
) -> None:
    file = find_file(dist, pattern)
    bom = read_bom(file.with_name(file.name + sbom.SUFFIX).read_text())
    contained = list_metadata(list_names(file))
    assert ("genplug", __version__) in contained
    assert {package for package in list_purls(bom, "pypi") if package[0] not in bundled} == contained
    assert {name for name, _ in list_purls(bom, "pypi")} >= bundled
    assert bom["metadata"]["component"]["hashes"] == sbom.build_hashes(sbom.digest_file(file))


def test_package_contains_its_sbom(dist: Path) -> None:
    package = find_file(dist, "*.deb")
    archive = subprocess.check_output(["dpkg-deb", "--fsys-tarfile", package])
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        member = files.extractfile(f"./{sbom.PATH}")
        assert member
        contained = read_bom(member.read().decode())
    assert contained["components"] == read_bom(Path(f"{package}{sbom.SUFFIX}").read_text())["components"]


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_sbom_of_the_python_package_lists_the_locked_dependencies(dist: Path, pattern: str) -> None:
    file = find_file(dist, pattern)
    bom = read_bom(Path(f"{file}{sbom.SUFFIX}").read_text())
    lock = (REPOSITORY / "deploy/image/requirements.lock").read_text()
    assert list_purls(bom, "pypi") == set(re.findall(r"^([\w-]+)==(\S+)", lock, re.MULTILINE))
    hashes = {
        digest["content"]
        for component in bom["components"]
        for reference in component["externalReferences"]
        for digest in reference["hashes"]
    }
    assert hashes == set(re.findall(r"sha256:(\w+)", lock))
    assert bom["metadata"]["component"]["hashes"] == sbom.build_hashes(sbom.digest_file(file))
