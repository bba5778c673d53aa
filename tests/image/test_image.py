"""The image that deploy/image/build.sh builds: its content, its reproducibility, and its behavior under runc."""

import json
import os
import platform
import subprocess
import tarfile
import time
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.spdx import is_expression

from genplug import __version__
from genplug.testing.kubelet import KubeletStandIn
from genplug.testing.node.fake_node import FakeNode
from tests.support.image import REVISION, TAG, Image, build_image, copy_checkout
from tests.support.sbom import list_purls, read_bom, sbom

pytestmark = [pytest.mark.image, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[2]
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
NATIVE = ARCHITECTURES[platform.machine()]
FOREIGN = next(name for name in ARCHITECTURES.values() if name != NATIVE)
ELF_MACHINES = {"amd64": 62, "arm64": 183}
MIB = 2**20


def read_json(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.extractfile(name)
    assert member, f"{name} is not a file"
    return json.loads(member.read())


@pytest.fixture(scope="session")
def debug_image(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    directory = tmp_path_factory.mktemp("debug")
    return Image.unpack(build_image(checkout, directory / "layout", "--debug"), directory / "bundle")


@pytest.fixture(scope="session")
def foreign_image(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Return the image for the architecture that this machine does not have."""
    directory = tmp_path_factory.mktemp("foreign")
    return Image.unpack(build_image(checkout, directory / "layout", "--arch", FOREIGN), directory / "bundle")


def test_image_contains_no_executable_except_python_and_genplug(image: Image) -> None:
    programs = {name for name, file in image.files.items() if os.access(file, os.X_OK) and ".so" not in file.name}
    assert programs == {"/usr/bin/genplug", "/usr/bin/python3.11"}


def test_image_contains_no_pip_tests_or_documentation(image: Image) -> None:
    assert not [name for name in image.files if "/pip/" in name or "/tests/" in name or "/share/man/" in name]
    documents = {name for name in image.files if name.startswith("/usr/share/doc/") and not name.endswith("/copyright")}
    assert documents == {f"/{sbom.PATH}"}


def test_image_contains_package_records_for_scanners(image: Image) -> None:
    assert {"libc6", "libssl3", "python3.11-minimal"} <= {
        Path(name).name for name in image.files if name.startswith("/var/lib/dpkg/status.d/")
    }
    distributions = {Path(name).parent.name for name in image.files if name.endswith(".dist-info/METADATA")}
    assert f"genplug-{__version__}.dist-info" in distributions
    assert any(name.startswith("grpcio-") for name in distributions)


@pytest.mark.parametrize("name", ["image", "foreign_image"])
def test_sbom_lists_every_package_of_the_image(name: str, request: pytest.FixtureRequest) -> None:
    image: Image = request.getfixturevalue(name)
    bom = read_bom(image.files[f"/{sbom.PATH}"].read_text())
    metadata = [HeaderParser().parsestr(file.read_text()) for file in list_files(image, ".dist-info/METADATA")]
    installed = {(sbom.normalize_name(message["Name"]), message["Version"]) for message in metadata}
    assert list_purls(bom, "pypi") == installed
    assert ("genplug", __version__) in installed
    records = [file for file in list_files(image, "") if file.parent.name == "status.d" and file.suffix != ".md5sums"]
    fields = [HeaderParser().parsestr(file.read_text()) for file in records]
    assert list_purls(bom, "deb") == {(record["Package"], record["Version"]) for record in fields}
    assert len(fields) > 10
    architecture = image.config["architecture"]
    assert {record["Architecture"] for record in fields} <= {"all", architecture}
    assert {"name": "genplug:architecture", "value": architecture} in bom["metadata"]["properties"]


def list_files(image: Image, suffix: str) -> list[Path]:
    return [file for name, file in image.files.items() if name.endswith(suffix)]


def test_sbom_has_the_locked_hashes_and_a_license_of_each_python_package(image: Image) -> None:
    bom = read_bom(image.files[f"/{sbom.PATH}"].read_text())
    lock = (REPOSITORY / "deploy/image/requirements.lock").read_text()
    packages = [component for component in bom["components"] if component.get("purl", "").startswith("pkg:pypi/")]
    for component in packages:
        ((digest,), (license_,)) = component["hashes"], component["licenses"]
        assert digest["content"] in lock or component["name"] == "genplug"
        assert is_expression(license_["expression"])


def test_every_source_has_bytecode_without_a_time_stamp(image: Image) -> None:
    sources = [file for file in image.files.values() if file.suffix == ".py"]
    assert len(sources) > 500
    for source in sources:
        bytecode = source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc"
        # PEP 552: the flags 1 mean a hash that is not compared with the source.
        assert int.from_bytes(bytecode.read_bytes()[4:8], "little") == 1, source


def test_image_has_labels_environment_user_and_entrypoint(image: Image) -> None:
    config = image.config
    assert (config["architecture"], config["os"]) == (NATIVE, "linux")
    assert config["config"]["Entrypoint"] == ["genplug"]
    assert config["config"]["User"] == "0"
    assert set(config["config"]["Env"]) == {
        "PATH=/usr/bin",
        "GRPC_ENABLE_FORK_SUPPORT=0",
        "PYTHONDONTWRITEBYTECODE=1",
    }
    labels = config["config"]["Labels"]
    assert labels["org.opencontainers.image.source"] == "https://github.com/genplug/genplug"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.revision"] == REVISION


def test_image_and_its_layers_are_small(image: Image) -> None:
    runtime, genplug = image.layer_sizes
    files = sum(file.lstat().st_size for file in image.files.values())
    print(f"layers {runtime} and {genplug} bytes, files {files} bytes")
    assert runtime + genplug < 32 * MIB
    assert genplug < 4 * MIB
    assert files < 80 * MIB


def test_second_build_of_the_same_sources_has_the_same_digest(checkout: Path, image: Image, tmp_path: Path) -> None:
    second = copy_checkout(checkout, tmp_path / "checkout")
    layout = build_image(second, tmp_path / "layout", GENPLUG_BUILD_ROOT=str(tmp_path / "root"))
    assert Image.unpack(layout, tmp_path / "bundle").digest == image.digest


def test_source_date_epoch_sets_all_times_despite_cached_layers(checkout: Path, image: Image, tmp_path: Path) -> None:
    layout = build_image(checkout, tmp_path / "layout", SOURCE_DATE_EPOCH="1700000000")
    timed = Image.unpack(layout, tmp_path / "bundle")
    assert image.config["created"] == "1970-01-01T00:00:00Z"
    assert timed.config["created"] == "2023-11-14T22:13:20Z"
    assert {file.lstat().st_mtime for file in timed.files.values()} == {1700000000}


def test_image_prints_its_version(image: Image) -> None:
    assert image.run("--version").stdout == f"genplug {__version__}\n"


def test_demo_succeeds_in_the_image(image: Image) -> None:
    run = image.run("demo", "--script")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Every step succeeded." in run.stdout


@pytest.mark.parametrize("topic", ["GP006", "GenplugNotReady", "genplug_ready", "values.daemonset.kubeletDir"])
def test_explain_finds_its_sources_in_the_image(image: Image, topic: str) -> None:
    run = image.run("explain", topic)
    assert run.returncode == 0, run.stderr
    assert topic.removeprefix("values.") in run.stdout


async def test_image_validates_a_configuration(image: Image) -> None:
    examples = {"/etc/genplug": (REPOSITORY / "examples/configs", "ro")}
    async with image.start("validate", "/etc/genplug/usb-serial.yaml", mounts=examples) as process:
        assert await process.wait() == 0


def build_mounts(node: FakeNode, kubelet: KubeletStandIn) -> dict[str, tuple[Path, str]]:
    return {
        "/host": (node.root, "ro"),
        "/etc/genplug": (node.config_dir, "ro"),
        "/var/lib/kubelet/device-plugins": (kubelet.plugins_dir, "rw"),
        "/var/lib/kubelet/pod-resources": (kubelet.pod_resources_socket.parent, "ro"),
    }


async def test_kubelet_receives_devices_from_the_image(image: Image, node: FakeNode, kubelet: KubeletStandIn) -> None:
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
    async with image.start("run", "--config", "/etc/genplug", "--root", "/host", mounts=build_mounts(node, kubelet)):
        await kubelet.wait_for_list("example.com/x", healthy={"x0", "x1"})
        print(f"time from the start of runc to the first device list: {time.monotonic() - start:.3f} s")
        allocation = await kubelet.admit("example.com/x", 1, pod="first", ids={"x1"})
    assert [device.host_path for device in allocation.response.devices] == ["/dev/x1"]


async def test_file_and_exec_probes_run_in_the_image(image: Image, node: FakeNode, kubelet: KubeletStandIn) -> None:
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
    mounts = build_mounts(node, kubelet) | {"/policy.yaml": (node.directory / "policy.yaml", "ro")}
    flags = ("--config", "/etc/genplug", "--root", "/host", "--policy", "/policy.yaml")
    async with image.start("run", *flags, mounts=mounts):
        await kubelet.wait_for_list("example.com/x", healthy={"x0"})
        node.write("/sys/x0/state", "dead")
        await kubelet.wait_for_list("example.com/x", unhealthy={"x0"})


def test_debug_variant_adds_a_shell_only(image: Image, debug_image: Image) -> None:
    added = debug_image.files.keys() - image.files.keys()
    assert "/busybox/sh" in added
    assert {Path(name).parent for name in added} == {Path("/busybox")}
    assert debug_image.config["config"]["Entrypoint"] == ["genplug"]
    assert "PATH=/usr/bin:/busybox" in debug_image.config["config"]["Env"]
    busybox = debug_image.files["/busybox/busybox"]
    applets = set(subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split())
    assert {Path(name).name for name in added} <= applets


def test_foreign_image_contains_files_of_its_architecture_only(image: Image, foreign_image: Image) -> None:
    assert foreign_image.config["architecture"] == FOREIGN
    machines = {
        int.from_bytes(head[18:20], "little")
        for head in (file.read_bytes()[:20] for file in foreign_image.files.values() if file.is_file())
        if head.startswith(b"\x7fELF")
    }
    assert machines == {ELF_MACHINES[FOREIGN]}

    def list_sources(image: Image) -> set[str]:
        return {name for name in image.files if name.endswith(".py") and "_sysconfigdata" not in name}

    assert list_sources(foreign_image) == list_sources(image)


def test_archive_contains_the_tag_and_its_own_revision(checkout: Path, image: Image, tmp_path: Path) -> None:
    other = REVISION[::-1]
    archive = build_image(checkout, tmp_path / "genplug.tar", REVISION=other)
    with tarfile.open(archive) as file:
        (entry,) = read_json(file, "manifest.json")
        config = read_json(file, entry["Config"])
    assert entry["RepoTags"] == [TAG]
    # The layers are cached, but the label must not be.
    assert config["rootfs"] == image.config["rootfs"]
    assert config["config"]["Labels"]["org.opencontainers.image.revision"] == other
    assert sbom.read_image_bom(archive) == image.files[f"/{sbom.PATH}"].read_text()
