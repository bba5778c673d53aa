"""The image that deploy/image/build.sh makes: what is in it, what is not, and that it runs as the chart runs it."""

import json
import os
import platform
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from genplug import __version__
from genplug.testing.kubelet.stand_in import KubeletStandIn
from genplug.testing.node.fake_node import FakeNode
from tests.support.image import Image

pytestmark = [pytest.mark.image, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[2]
REVISION = "0123456789abcdef0123456789abcdef01234567"
TAG = "registry.example/genplug:image-test"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
HERE = MACHINES[platform.machine()]
ELSEWHERE = next(name for name in MACHINES.values() if name != HERE)
ELF_MACHINE = {"amd64": 62, "arm64": 183}
MIB = 2**20


def copied(checkout: Path, directory: Path) -> Path:
    """What an image is made of, with other times."""
    directory.mkdir()
    for name in (".dockerignore", "LICENSE", "README.md", "deploy", "examples", "genplug", "pyproject.toml", "schemas"):
        source, target = checkout / name, directory / name
        if source.is_dir():
            shutil.copytree(source, target, copy_function=shutil.copy)
        else:
            shutil.copy(source, target)
    return directory


def built(checkout: Path, output: Path, *options: str, **environment: str) -> Path:
    command = ["deploy/image/build.sh", "--tag", TAG, "--output", output, *options]
    subprocess.run(command, check=True, cwd=checkout, env=os.environ | {"REVISION": REVISION} | environment)
    return output


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state that stays as it is: several builds of it are compared."""
    return copied(REPOSITORY, tmp_path_factory.mktemp("image") / "checkout")


@pytest.fixture(scope="session")
def image(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    directory = tmp_path_factory.mktemp("image")
    return Image.unpacked(built(checkout, directory / "layout"), directory / "bundle")


@pytest.fixture(scope="session")
def debug_image(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    directory = tmp_path_factory.mktemp("debug")
    return Image.unpacked(built(checkout, directory / "layout", "--debug"), directory / "bundle")


@pytest.fixture(scope="session")
def foreign_image(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image of the platform that this machine is not."""
    directory = tmp_path_factory.mktemp("foreign")
    return Image.unpacked(built(checkout, directory / "layout", "--arch", ELSEWHERE), directory / "bundle")


def test_only_python_and_genplug_can_be_executed(image: Image) -> None:
    programs = {name for name, file in image.files.items() if os.access(file, os.X_OK) and ".so" not in file.name}
    assert programs == {"/usr/bin/genplug", "/usr/bin/python3.11"}


def test_there_is_no_pip_and_no_documentation(image: Image) -> None:
    assert not [name for name in image.files if "/pip/" in name or "/tests/" in name or "/share/man/" in name]
    assert {Path(name).name for name in image.files if name.startswith("/usr/share/doc/")} == {"copyright"}


def test_scanners_find_the_packages_it_is_made_of(image: Image) -> None:
    assert {"libc6", "libssl3", "python3.11-minimal"} <= {
        Path(name).name for name in image.files if name.startswith("/var/lib/dpkg/status.d/")
    }
    distributions = {Path(name).parent.name for name in image.files if name.endswith(".dist-info/METADATA")}
    assert f"genplug-{__version__}.dist-info" in distributions
    assert any(name.startswith("grpcio-") for name in distributions)


def test_every_source_has_bytecode_that_no_clock_makes_stale(image: Image) -> None:
    sources = [file for file in image.files.values() if file.suffix == ".py"]
    assert len(sources) > 500
    for source in sources:
        bytecode = source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc"
        # PEP 552: 1 is a hash that is not compared with the source.
        assert int.from_bytes(bytecode.read_bytes()[4:8], "little") == 1, source


def test_it_says_what_it_is_and_starts_genplug_as_root(image: Image) -> None:
    config = image.config
    assert (config["architecture"], config["os"]) == (HERE, "linux")
    assert config["config"]["Entrypoint"] == ["genplug"]
    assert config["config"]["User"] == "0"
    assert set(config["config"]["Env"]) == {
        "PATH=/usr/bin",
        "GRPC_ENABLE_FORK_SUPPORT=0",
        "MALLOC_ARENA_MAX=2",
        "PYTHONDONTWRITEBYTECODE=1",
    }
    labels = config["config"]["Labels"]
    assert labels["org.opencontainers.image.source"] == "https://github.com/genplug/genplug"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.revision"] == REVISION


def test_a_node_loads_little_and_an_update_of_genplug_less(image: Image) -> None:
    runtime, genplug = image.layer_sizes
    files = sum(file.lstat().st_size for file in image.files.values())
    print(f"layers {runtime} and {genplug} bytes, files {files} bytes")
    assert runtime + genplug < 32 * MIB
    assert genplug < 2 * MIB
    assert files < 80 * MIB


def test_another_build_of_the_same_sources_is_the_same_image(checkout: Path, image: Image, tmp_path: Path) -> None:
    again = copied(checkout, tmp_path / "checkout")
    layout = built(again, tmp_path / "layout", GENPLUG_BUILD_ROOT=str(tmp_path / "root"))
    assert Image.unpacked(layout, tmp_path / "bundle").digest == image.digest


def test_a_build_that_is_given_a_time_uses_it_even_where_an_earlier_one_had_none(
    checkout: Path, image: Image, tmp_path: Path
) -> None:
    layout = built(checkout, tmp_path / "layout", SOURCE_DATE_EPOCH="1700000000")
    timed = Image.unpacked(layout, tmp_path / "bundle")
    assert image.config["created"] == "1970-01-01T00:00:00Z"
    assert timed.config["created"] == "2023-11-14T22:13:20Z"
    assert {file.lstat().st_mtime for file in timed.files.values()} == {1700000000}


def test_it_tells_its_version(image: Image) -> None:
    assert image.run("--version").stdout == f"genplug {__version__}\n"


def test_the_demo_plays_in_it(image: Image) -> None:
    played = image.run("demo", "--script")
    assert played.returncode == 0, played.stdout + played.stderr
    assert "Everything worked." in played.stdout


async def test_it_validates_a_configuration(image: Image) -> None:
    examples = {"/etc/genplug": (REPOSITORY / "examples/configs", "ro")}
    async with image.running("validate", "/etc/genplug/usb-serial.yaml", mounts=examples) as process:
        assert await process.wait() == 0


def mounts_of(node: FakeNode, kubelet: KubeletStandIn) -> dict[str, tuple[Path, str]]:
    return {
        "/host": (node.root, "ro"),
        "/etc/genplug": (node.config_dir, "ro"),
        "/var/lib/kubelet/device-plugins": (kubelet.plugins_dir, "rw"),
        "/var/lib/kubelet/pod-resources": (kubelet.pod_resources_socket.parent, "ro"),
    }


async def test_the_kubelet_gets_its_devices_from_it(image: Image, node: FakeNode, kubelet: KubeletStandIn) -> None:
    for number in range(2):
        node.plug(f"/dev/x{number}")
    node.write_config("""
        apiVersion: genplug.io/v1alpha1
        kind: DevicePluginConfig
        resources:
          example.com/x:
            devices: [{glob: "/dev/x*"}]
    """)
    start = time.monotonic()
    async with image.running("run", "--config", "/etc/genplug", "--root", "/host", mounts=mounts_of(node, kubelet)):
        await kubelet.wait_for_list("example.com/x", healthy={"x0", "x1"})
        print(f"the first list arrived {time.monotonic() - start:.3f} s after runc was started")
        allocation = await kubelet.admit("example.com/x", 1, pod="first", ids={"x1"})
    assert [device.host_path for device in allocation.response.devices] == ["/dev/x1"]


async def test_its_probes_look_and_call(image: Image, node: FakeNode, kubelet: KubeletStandIn) -> None:
    node.plug("/dev/x0")
    node.write("/sys/x0/state", "ok")
    node.write_config("""
        apiVersion: genplug.io/v1alpha1
        kind: DevicePluginConfig
        resources:
          example.com/x:
            devices: [{glob: "/dev/x*"}]
            health:
              periodSeconds: 0.1
              onError: unhealthy
              probes:
              - file: {path: "/sys/${name}/state", equals: ok}
              - exec: {command: [/usr/bin/genplug, --version]}
    """)
    (node.directory / "policy.yaml").write_text(
        "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nexec: {allow: [/usr/bin/genplug]}\n"
    )
    mounts = mounts_of(node, kubelet) | {"/policy.yaml": (node.directory / "policy.yaml", "ro")}
    flags = ("--config", "/etc/genplug", "--root", "/host", "--policy", "/policy.yaml")
    async with image.running("run", *flags, mounts=mounts):
        await kubelet.wait_for_list("example.com/x", healthy={"x0"})
        node.write("/sys/x0/state", "dead")
        await kubelet.wait_for_list("example.com/x", unhealthy={"x0"})


def test_the_debug_variant_is_the_same_with_a_shell(image: Image, debug_image: Image) -> None:
    added = debug_image.files.keys() - image.files.keys()
    assert "/busybox/sh" in added
    assert {Path(name).parent for name in added} == {Path("/busybox")}
    assert debug_image.config["config"]["Entrypoint"] == ["genplug"]
    assert "PATH=/usr/bin:/busybox" in debug_image.config["config"]["Env"]
    busybox = debug_image.files["/busybox/busybox"]
    there = set(subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split())
    assert {Path(name).name for name in added} <= there


def test_the_image_of_the_other_platform_is_all_of_that_platform(image: Image, foreign_image: Image) -> None:
    assert foreign_image.config["architecture"] == ELSEWHERE
    machines = {
        int.from_bytes(head[18:20], "little")
        for head in (file.read_bytes()[:20] for file in foreign_image.files.values() if file.is_file())
        if head.startswith(b"\x7fELF")
    }
    assert machines == {ELF_MACHINE[ELSEWHERE]}

    def sources(of: Image) -> set[str]:
        return {name for name in of.files if name.endswith(".py") and "_sysconfigdata" not in name}

    assert sources(foreign_image) == sources(image)


def test_an_archive_carries_the_name_that_a_pod_asks_for_and_its_own_revision(
    checkout: Path, image: Image, tmp_path: Path
) -> None:
    other = REVISION[::-1]
    archive = built(checkout, tmp_path / "genplug.tar", REVISION=other)
    with tarfile.open(archive) as file:
        (entry,) = json.loads(file.extractfile("manifest.json").read())
        config = json.loads(file.extractfile(entry["Config"]).read())
    assert entry["RepoTags"] == [TAG]
    # The layers are those of the build before it: a label must not be.
    assert config["rootfs"] == image.config["rootfs"]
    assert config["config"]["Labels"]["org.opencontainers.image.revision"] == other
