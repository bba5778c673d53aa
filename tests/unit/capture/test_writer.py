r"""``genplug capture``: `plan` prints the same with the archive as on the node, and nothing else is in the archive."""

import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from genplug.capture import archive as archives
from genplug.cli import capture
from genplug.cli.main import main
from genplug.hardware.host import CAPTURE_MARK, STAND_INS_MARKER
from genplug.testing.machines.catalog import TREES
from genplug.testing.node.file_trees import build_tree
from tests.support.configs import CONFIG_HEADER, POLICY_HEADER, format_cdi_spec

CONFIGS = Path(__file__).parents[3] / "examples" / "configs"
TREE = r"""
/dev/nvidia0 char 195:0
/dev/nvidia1 char 195:1
/dev/nvidia7 char 195:7
/dev/nvidiactl char 195:255
/dev/nvidia-caps/nvidia-cap1 char 234:1
/dev/bus/usb/001/002 char 189:1
/dev/sda block 8:0
/dev/serial/by-id/usb-FTDI_A1 -> ../../ttyUSB0
/dev/serial/by-id/usb-FTDI_GONE -> ../../ttyUSB9
/dev/serial/by-id/usb-FTDI_ROUND -> usb-FTDI_ROUND
/dev/absolute -> /dev/nvidia0
/dev/ttyUSB0 char 188:0
/dev/notes = secret of /dev
/dev/log -> /run/systemd/event_log/dev-log
/dev/pts/0 char 136:0
/dev/shm/segment = secret of a process
/dev/mqueue/queue = secret of a process
/dev/hugepages/page = secret of a process
/dev/fd -> /proc/self/fd
/proc/driver/nvidia/gpus/0000:3b:00.0/information = Model: X\nGPU UUID: GPU-0aaa\nDevice Minor: 0
/proc/driver/nvidia/gpus/0000:5e:00.0/information = Model: X\nGPU UUID: GPU-1bbb\nDevice Minor: 1
/proc/driver/nvidia/version = secret that is not read
/proc/1/environ = SECRET=of init
/proc/self -> 1
/sys/bus/pci/devices/0000:3b:00.0 -> ../../../devices/pci0000:3a/0000:3b:00.0
/sys/bus/pci/devices/0000:5e:00.0 -> ../../../devices/pci0000:5d/0000:5e:00.0
/sys/devices/pci0000:3a/0000:3b:00.0/class = 0x030200
/sys/devices/pci0000:3a/0000:3b:00.0/device = 0x20b0
/sys/devices/pci0000:3a/0000:3b:00.0/drm/card3/ directory
/sys/devices/pci0000:3a/0000:3b:00.0/drm/renderD131/ directory
/sys/devices/pci0000:3a/0000:3b:00.0/numa_node = 1
/sys/devices/pci0000:3a/0000:3b:00.0/serial = secret that is not read
/sys/devices/pci0000:5d/0000:5e:00.0/class = 0x030000
/sys/devices/pci0000:5d/0000:5e:00.0/device = 0x15f8
/sys/devices/pci0000:5d/0000:5e:00.0/drm/card4/ directory
/sys/devices/pci0000:5d/0000:5e:00.0/numa_node = -1
/sys/devices/virtual/long/0000000000000000000000000000000000000000000000000000000000000000000000000000000000/x = long
/sys/class/x/long -> ../../devices/virtual/long
/run/udev/data/vendor/x.sock socket
/run/vendor/note = secret of another program
/etc/shadow = secret of the host
/home/user/.ssh/id_rsa = secret of the host
"""
CONFIG = r"""
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  nvidia.com/a100:
    topology: auto
    devices:
    - glob: /dev/nvidia[0-9]*
      attributes:
        bdf: {path: /proc/driver/nvidia/gpus/*/information, find: 'Device Minor:\s*${minor}\b', dir: true}
        uuid: {path: "/proc/driver/nvidia/gpus/${bdf}/information", find: 'GPU UUID:\s*(\S+)'}
      sysfs: /sys/bus/pci/devices/${bdf}
      where: {pci.device: "20b*", attr.class: "0x0302*"}
      id: ${uuid}
      with: [/dev/nvidiactl, {path: /dev/nvidia-missing, optional: true}]
    allocate: {env: {CARD: "${drm.card}", RENDER: "${drm.render}", UUID: "${uuid}"}}
  a.io/serial:
    devices: [{glob: /dev/serial/by-id/*, nodes: [{path: "${path}", as: /dev/tty0}]}]
  a.io/socket:
    devices: [{glob: /run/udev/data/vendor/*, type: socket}]
    allocate: {env: {SOCKET: "${path}"}}
  a.io/long:
    devices:
    - glob: /sys/class/x/*/*
      attributes:
        x: {path: "${path}/x"}
    allocate: {env: {X: "${x}"}}
"""
# The test reads this on the node only.
CURIOUS = """\
  a.io/curious:
    devices:
    - glob: /dev/nvidia0
      attributes:
        key: {path: /run/vendor/note}
        environment: {path: /proc/self/environ}
      where: {key: {exists: true}, environment: {exists: true}}
    share: {overlap: true}
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    build_tree(TREE, tmp_path / "root")
    (tmp_path / "root" / "dev" / os.fsdecode(b"nvidia8\xff")).write_text("char 195:8\n")
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


def captured(directory: Path, *flags: str, name: str = "node.tar.gz") -> Path:
    flags = ("--config", str(directory / "c.yaml"), *flags) if "--config" not in flags else flags
    assert main(["capture", "-o", str(directory / name), "--root", str(directory / "root"), *flags]) == 0
    return directory / name


def plan(config: Path, root: Path, flags: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["plan", "--config", str(config), "--root", str(root), *flags]) == 0
    return capsys.readouterr().out


def contents(archive: Path) -> dict[str, str]:
    """Return the contents of an archive: the text of a file, the target of a link, a slash for a directory."""
    with tarfile.open(archive) as opened:
        return {
            member.name: "/" if member.isdir() else f"-> {member.linkname}" if member.issym() else _text(opened, member)
            for member in opened
        }


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    assert file is not None
    return file.read().decode()


@pytest.mark.parametrize("flags", [["-o", "json"], ["-o", "json", "--explain"], ["-o", "table", "--explain"]], ids=str)
def test_plan_with_archive_is_that_of_the_node(
    node: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    here = plan(node / "c.yaml", node / "root", flags, capsys)
    assert plan(node / "c.yaml", captured(node), flags, capsys) == here
    if "--explain" not in flags:
        offered = {each["name"]: each["devices"] for each in json.loads(here)["resources"]}
        assert {name: len(devices) for name, devices in offered.items()} == {
            "nvidia.com/a100": 1,
            "a.io/serial": 1,
            "a.io/socket": 1,
            "a.io/long": 1,
        }


def test_allocation_with_archive_is_that_of_the_node(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--allocate", "nvidia.com/a100=1", "--allocate", "a.io/socket=1"]
    here = plan(node / "c.yaml", node / "root", flags, capsys)
    assert plan(node / "c.yaml", captured(node), flags, capsys) == here
    assert json.loads(here)["containers"][0]["envs"] == {"CARD": "card3", "RENDER": "renderD131", "UUID": "GPU-0aaa"}


@pytest.mark.parametrize("kind", sorted(path.stem for path in TREES.glob("*.tree")))
def test_archive_without_configuration_has_what_every_recipe_reads(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_tree((TREES / f"{kind}.tree").read_text(), tmp_path / "root")
    archive = tmp_path / "all.tar.gz"
    assert main(["capture", "-o", str(archive), "--root", str(tmp_path / "root")]) == 0
    recipe, policy = CONFIGS / f"{kind}.yaml", CONFIGS.with_name("policies") / f"{kind}.yaml"
    flags = ["-o", "json", "--explain", *(["--policy", str(policy)] if policy.exists() else [])]
    here = plan(recipe, tmp_path / "root", flags, capsys)
    assert plan(recipe, archive, flags, capsys) == here
    assert any(each["devices"] for each in json.loads(here)["resources"])


def test_archive_has_only_what_is_read_and_the_names_under_dev(node: Path) -> None:
    (node / "c.yaml").write_text(CONFIG + CURIOUS)
    (node / "policy.yaml").write_text(
        POLICY_HEADER
        + "read: {allow: [/sys/**, /proc/driver/**, /run/udev/data/**, /run/vendor/*, '/proc/{1,self}/environ']}\n"
    )
    inside = contents(captured(node, "--policy", str(node / "policy.yaml")))
    assert "secret" not in str(inside).lower()
    assert {name: text for name, text in inside.items() if text != "/" and not name.startswith("dev/")} == {
        STAND_INS_MARKER: CAPTURE_MARK,
        "proc/driver/nvidia/gpus/0000:3b:00.0/information": "Model: X\nGPU UUID: GPU-0aaa\nDevice Minor: 0\n",
        "proc/driver/nvidia/gpus/0000:5e:00.0/information": "Model: X\nGPU UUID: GPU-1bbb\nDevice Minor: 1\n",
        "proc/self": "-> 1",
        # Read, but not of the kernel.
        "proc/1/environ": "",
        "run/vendor/note": "",
        "run/udev/data/vendor/x.sock": "",
        "sys/bus/pci/devices/0000:3b:00.0": "-> ../../../devices/pci0000:3a/0000:3b:00.0",
        "sys/bus/pci/devices/0000:5e:00.0": "-> ../../../devices/pci0000:5d/0000:5e:00.0",
        "sys/class/x/long": "-> ../../devices/virtual/long",
        "sys/devices/pci0000:3a/0000:3b:00.0/class": "0x030200\n",
        "sys/devices/pci0000:3a/0000:3b:00.0/device": "0x20b0\n",
        "sys/devices/pci0000:3a/0000:3b:00.0/numa_node": "1\n",
        # Only --explain reads these.
        "sys/devices/pci0000:5d/0000:5e:00.0/class": "0x030000\n",
        "sys/devices/pci0000:5d/0000:5e:00.0/device": "0x15f8\n",
        f"sys/devices/virtual/long/{'0' * 82}/x": "long\n",
    }


def test_archive_has_names_links_and_numbers_of_dev_without_those_of_processes(node: Path) -> None:
    (node / "c.yaml").write_text("apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources: {}\n")
    inside = contents(captured(node))
    assert inside.pop(STAND_INS_MARKER) == CAPTURE_MARK
    assert {name.removeprefix("dev/"): text for name, text in inside.items() if text != "/"} == {
        "absolute": "-> /dev/nvidia0",
        "bus/usb/001/002": "char 189:1\n",
        "log": "-> /run/systemd/event_log/dev-log",
        "notes": "",
        "nvidia-caps/nvidia-cap1": "char 234:1\n",
        "nvidia0": "char 195:0\n",
        "nvidia1": "char 195:1\n",
        "nvidia7": "char 195:7\n",
        "nvidia8\udcff": "char 195:8\n",
        "nvidiactl": "char 195:255\n",
        "sda": "block 8:0\n",
        "serial/by-id/usb-FTDI_A1": "-> ../../ttyUSB0",
        "serial/by-id/usb-FTDI_GONE": "-> ../../ttyUSB9",
        "serial/by-id/usb-FTDI_ROUND": "-> usb-FTDI_ROUND",
        "ttyUSB0": "char 188:0\n",
    }


def test_archive_is_reproducible_and_readable_by_its_owner_only(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = captured(node, name="first.tar.gz")
    output = capsys.readouterr()
    for path in [node / "root", *(node / "root").rglob("*")]:
        os.utime(path, (1, 1), follow_symlinks=False)
    second = captured(node, name="second.tar.gz")
    assert first.read_bytes() == second.read_bytes()
    # The time field of gzip (RFC 1952, 2.3).
    assert first.read_bytes()[4:8] == bytes(4)
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    with tarfile.open(first) as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert names[1:] == sorted(names[1:])
    assert {(member.uid, member.gid, member.uname, member.gname, member.mtime) for member in members} == {
        (0, 0, "", "", 0)
    }
    assert output.out == ""
    assert f"first.tar.gz: {len(members)} entries, {first.stat().st_size} bytes" in output.err
    assert sorted(path.name for path in node.iterdir()) == ["c.yaml", "first.tar.gz", "root", "second.tar.gz"]


def test_archive_of_an_archive_is_the_same(node: Path) -> None:
    first = captured(node)
    second = node / "again.tar.gz"
    assert main(["capture", "-o", str(second), "--config", str(node / "c.yaml"), "--root", str(first)]) == 0
    assert contents(second) == contents(first)


def test_archive_can_be_written_to_a_pipe(node: Path) -> None:
    command: list[Any] = [sys.executable, "-m", "genplug", "capture", "-o", "-", "--config", node / "c.yaml"]
    done = subprocess.run([*command, "--root", node / "root"], capture_output=True, check=True)
    assert done.stdout == captured(node).read_bytes()
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        assert f"stdout: {len(archive.getnames())} entries".encode() in done.stderr


@pytest.mark.root
def test_device_nodes_become_files_that_any_user_can_unpack(tmp_path: Path) -> None:
    (tmp_path / "root" / "dev").mkdir(parents=True)
    os.mknod(tmp_path / "root" / "dev" / "x0", 0o600 | stat.S_IFCHR, os.makedev(240, 7))
    os.mknod(tmp_path / "root" / "dev" / "pipe", 0o600 | stat.S_IFIFO)
    (tmp_path / "root" / "dev" / "char").write_text("char 1:1")
    (tmp_path / "c.yaml").write_text(CONFIG)
    archive = captured(tmp_path)
    assert contents(archive)["dev/x0"] == "char 240:7\n"
    # A file in a real /dev does not stand for a device.
    assert contents(archive)["dev/char"] == ""
    with archives.open_root(str(archive)) as root:
        assert (root / "dev" / "x0").is_file()
        assert (root / "dev" / "pipe").is_fifo()


def test_archive_is_replaced_completely_or_not_at_all(
    node: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = captured(node).read_bytes()
    (node / "root/dev/nvidia9").write_text("char 195:9")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 20)
    command = ["capture", "--root", str(node / "root"), "--config", str(node / "c.yaml"), "-o"]
    assert main([*command, str(node / "node.tar.gz")]) == 1
    assert "more than an archive may hold (20 paths" in capsys.readouterr().err
    assert (node / "node.tar.gz").read_bytes() == before
    monkeypatch.undo()
    assert captured(node).read_bytes() != before
    assert main([*command, str(node / "missing" / "node.tar.gz")]) == 1
    assert ": cannot be written: No such file or directory" in capsys.readouterr().err
    assert sorted(path.name for path in node.iterdir()) == ["c.yaml", "node.tar.gz", "root"]


def test_file_that_is_not_regular_is_not_replaced(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(node / "pipe")
    for out in ("/dev/null", str(node), str(node / "pipe")):
        assert main(["capture", "-o", out, "--root", str(node / "root")]) == 2
        assert f"-o {out}: exists and is not a regular file" in capsys.readouterr().err
    assert (node / "pipe").is_fifo()


def test_invalid_configuration_and_missing_root_are_errors(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (node / "c.yaml").write_text(CONFIG.replace("glob:", "golb:"))
    command = ["capture", "-o", str(node / "x.tar.gz"), "--root"]
    assert main([*command, str(node / "root"), "--config", str(node / "c.yaml")]) == 78
    assert "unknown key 'golb'" in capsys.readouterr().err
    assert main([*command, str(node / "missing")]) == 2
    assert "genplug capture: --root" in capsys.readouterr().err
    assert not (node / "x.tar.gz").exists()


def test_long_capture_prints_its_progress(
    node: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captured(node)
    assert "accesses so far" not in capsys.readouterr().err
    monkeypatch.setattr(capture, "_PROGRESS_SECONDS", 0.0)
    captured(node)
    assert "accesses so far, the last to '/" in capsys.readouterr().err


PROBED = """
/dev/x0 char 240:0
/sys/dev/char/240:0 -> ../../devices/pci0000:00/0000:00:02.0/x/x0
/sys/devices/pci0000:00/0000:00:02.0/x/x0/uevent =
/sys/devices/pci0000:00/0000:00:02.0/x/x0/errors = 3
/sys/devices/pci0000:00/0000:00:02.0/vendor = 0x10de
/sys/devices/pci0000:00/0000:00:02.0/config = a header of 64 bytes, all of which are read, and no more than those
/sys/devices/pci0000:00/0000:00:02.0/current_link_width = 4
/sys/devices/pci0000:00/0000:00:02.0/subsystem -> ../../../bus/pci
/sys/devices/pci0000:00/0000:00:02.0/driver -> ../../../bus/pci/drivers/xdrv
/sys/bus/pci/drivers/xdrv directory
/sys/bus/pci/devices/0000:00:02.0 -> ../../../devices/pci0000:00/0000:00:02.0
/sys/class/manager/one/state = write error
"""
PROBES = """
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x:
    devices: [{glob: /dev/x*}]
    health:
      probes:
      - pci: {minLinkWidth: 8}
      - file: {path: "${sysfs}/errors", max: 2}
      - file: {path: "/sys/class/manager/*/state", equals: operating}
"""


def test_archive_has_what_probes_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_tree(PROBED, tmp_path / "root")
    (tmp_path / "c.yaml").write_text(PROBES)
    here = plan(tmp_path / "c.yaml", tmp_path / "root", ["--probe"], capsys)
    for reason in (
        "is x4, expected at least x8",
        "errors is '3', expected at most 2",
        "state is 'write error', expected",
    ):
        assert reason in " ".join(here.split())
    archive = captured(tmp_path)
    assert plan(tmp_path / "c.yaml", archive, ["--probe"], capsys) == here
    header = contents(archive)["sys/devices/pci0000:00/0000:00:02.0/config"]
    assert header == "a header of 64 bytes, all of which are read, and no more than th"


UNAVAILABLE = """
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x:
    devices: [{glob: /dev/x*}]
    allocate: {mounts: [{hostPath: /opt/lib, containerPath: /opt/lib}]}
    health:
      probes:
      - name: log
        kernelLog: {fail: fault}
      - name: event
        uevent: {fail: FAULT=1}
      - open: {}
      - exec: {command: [%s]}
      - http: {url: "http://127.0.0.1:1/"}
      - tcpSocket: {port: 1}
      - unixSocket: {path: /run/x.sock}
"""


def test_probes_that_an_archive_cannot_answer_are_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_tree(PROBED, tmp_path / "root")
    ran, program = tmp_path / "ran", tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    (tmp_path / "c.yaml").write_text(UNAVAILABLE % program)
    (tmp_path / "policy.yaml").write_text(
        "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nmounts: {allow: [/opt/**]}\n"
        f"exec: {{allow: [{program}]}}\nopenProbe: true\nunixSocket: {{allow: [/run/x.sock]}}\n"
    )
    archive = captured(tmp_path, "--policy", str(tmp_path / "policy.yaml"))
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    # Python before 3.11.4 has no filter for extractall.
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", unpacked], check=True)
    for root in (archive, unpacked):
        command = ["plan", "--config", tmp_path / "c.yaml", "--policy", tmp_path / "policy.yaml", "--root", root]
        assert main([*map(str, command), "--probe"]) == 0
        printed = capsys.readouterr()
        for probe, missing in {
            "log": "kernel log",
            "event": "events of the kernel",
            "open": "device nodes that can be opened",
            "exec": "running programs",
            "http": "running programs",
            "tcpSocket": "running programs",
            "unixSocket": "running programs",
        }.items():
            assert f"probe {probe} cannot check x0: an archive of 'genplug capture' has no {missing}\n" in printed.err
        assert "privileged" not in printed.err + printed.out
        assert "unhealthy" not in printed.out
        assert not ran.exists()
        assert main([*map(str, command), "--allocate", "a.io/x=1"]) == 1
        assert "/opt/lib is not in the archive, which has only what 'genplug capture' read" in capsys.readouterr().err


CDI_CONFIG = """
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x:
    devices: [{glob: /dev/x*}]
    allocate: {cdiDevices: ["vendor.io/gpu=${name}"]}
"""
CDI_TREE = """
/dev/x0 char 240:0
/dev/x1 char 240:1
/etc/cdi/vendor.json -> ../../opt/vendor.json
/opt/vendor.json = %s
/run/cdi/broken.yaml = password: secret
/var/run -> /run
"""


def test_archive_has_the_names_of_cdi_devices_and_nothing_else_of_their_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_tree(CDI_TREE % format_cdi_spec("vendor.io/gpu", "x0").replace("A=b", "PASSWORD=secret"), tmp_path / "root")
    (tmp_path / "c.yaml").write_text(CDI_CONFIG)
    policy = ["--policy", str(tmp_path / "policy.yaml")]
    (tmp_path / "policy.yaml").write_text(POLICY_HEADER + "cdi: {allow: [vendor.io/gpu=*]}\n")
    here = plan(tmp_path / "c.yaml", tmp_path / "root", ["--allocate", "a.io/x=1", *policy], capsys)
    assert '"vendor.io/gpu=x0"' in here
    archive = captured(tmp_path, *policy)
    assert "secret" not in str(contents(archive))
    assert plan(tmp_path / "c.yaml", archive, ["--allocate", "a.io/x=1", *policy], capsys) == here
    listed = plan(tmp_path / "c.yaml", archive, policy, capsys)
    assert listed.count(" unhealthy ") == 1
    assert "no CDI file in /etc/cdi and /var/run/cdi defines vendor.io/gpu=x1" in " ".join(listed.split())
    again = tmp_path / "again.tar.gz"
    assert (
        main(["capture", "-o", str(again), "--config", str(tmp_path / "c.yaml"), "--root", str(archive), *policy]) == 0
    )
    assert contents(again) == contents(archive)


def test_files_outside_of_the_kernel_and_udev_are_reported_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = tmp_path / "node"
    tree = "/dev/x0 char 188:0\n/run/udev/data/c188:0 = E:ID_SERIAL=A1\n/srv/serials/x0 = secret\n/srv/serials/y = z\n"
    build_tree(tree, node)
    config = tmp_path / "c.yaml"
    config.write_text(
        CONFIG_HEADER + "resources:\n"
        "  a.io/x:\n"
        "    devices:\n"
        "    - glob: /dev/x*\n"
        "      attributes:\n"
        "        udev: {path: '/run/udev/data/c${major}:${minor}', find: 'ID_SERIAL=(.*)'}\n"
        "        own: {path: '/srv/serials/${name}'}\n"
        "      id: '${udev}-${own|default:none}'\n"
    )
    target = tmp_path / "a.tar.gz"
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY_HEADER + "read: {allow: [/run/udev/data/**, /srv/**]}\n")
    arguments = ["--root", str(node), "--config", str(config), "--policy", str(policy)]
    assert main(["capture", *arguments, "-o", str(target)]) == 0
    printed = capsys.readouterr().err
    assert "without the text of 1 file(s) outside of /sys, /proc and /run/udev/data, such as /srv/serials/x0" in printed
    with tarfile.open(target) as archive:
        texts = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        contents = {name: file.read() for name, file in texts.items() if file is not None}
    assert contents["run/udev/data/c188:0"] == b"E:ID_SERIAL=A1\n"
    assert contents["srv/serials/x0"] == b""
