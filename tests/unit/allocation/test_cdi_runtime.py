"""A CDI file of genplug, read by a container runtime: podman creates a container with the node and the mount."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from genplug.allocation.cdi_spec import file_name, qualified_name, spec_text
from genplug.allocation.container_edits import ContainerEdits, MountEdit, NodeEdit
from genplug.hardware.cdi_files import read_cdi_devices
from genplug.hardware.dependencies import Dependencies
from genplug.hardware.host import Host
from genplug.hardware.inventory import Kind

NAME = "example.com/card"
# The runtime gets a mount namespace, so that /run/cdi of the machine does not change.
# The state of podman is there too, because its path must be short.
IN_A_NAMESPACE = """
for directory in /run/cdi /run/podman-test; do mkdir -p $directory && mount -t tmpfs none $directory; done
cp $1 /run/cdi && shift && exec "$@"
"""


def run_container(
    directory: Path, spec: Path | str, device: str, script: str, *flags: str
) -> subprocess.CompletedProcess[str]:
    root = directory / "root"
    (root / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin" / "busybox")
    podman = (
        f"podman --cgroup-manager cgroupfs --runtime runc --storage-driver vfs --root {directory}/store "
        f"--runroot /run/podman-test run --rm --network none --ulimit nofile=512:512 --ulimit nproc=512:512 "
        f"--device {device} {' '.join(flags)} --rootfs {root} /bin/busybox sh -c"
    )
    command = ["unshare", "--mount", "sh", "-c", IN_A_NAMESPACE, "sh", str(spec), *podman.split(), script]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.podman
def test_container_gets_the_node_and_the_mount_of_the_file(tmp_path: Path) -> None:
    node, library = tmp_path / "null", tmp_path / "library"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    library.mkdir()
    (library / "driver.so").write_text("a library")
    edits = ContainerEdits(
        nodes=(NodeEdit(str(node), "/dev/card0", "rw"),),
        mounts=(MountEdit(str(library), "/usr/lib/card", read_only=True),),
    )
    spec = tmp_path / file_name(NAME)
    spec.write_text(spec_text(NAME, {"0card": edits, "1card": ContainerEdits()}) or "")
    script = "stat -c %t:%T /dev/card0; echo x > /dev/card0; cat /usr/lib/card/*; touch /usr/lib/card/y; echo $?"
    ended = run_container(tmp_path, spec, qualified_name(NAME, "0card"), script)
    assert ended.stdout == "1:3\na library1\n", ended.stderr
    # The second device of the file has no edits.
    other = run_container(tmp_path, spec, qualified_name(NAME, "1card"), "ls /dev/card0")
    assert "No such file" in other.stderr
    unknown = run_container(tmp_path, spec, qualified_name(NAME, "2card"), "true")
    assert unknown.returncode
    assert "unresolvable CDI devices" in unknown.stderr


def write_spec(directory: Path, node: NodeEdit) -> Path:
    spec = directory / file_name(NAME)
    spec.write_text(spec_text(NAME, {"card0": ContainerEdits(nodes=(node,))}) or "")
    return spec


NULL, ZERO = (Kind.CHAR, 1, 3), (Kind.CHAR, 1, 5)


@pytest.mark.podman
@pytest.mark.parametrize("swap", ["other node", "removed", "file"])
def test_node_that_is_swapped_after_the_answer_leads_nowhere_else(tmp_path: Path, swap: str) -> None:
    node = tmp_path / "card"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(*NULL[1:]))
    spec = write_spec(tmp_path, NodeEdit(str(node), "/dev/card0", "rw", numbers=NULL))
    node.unlink()
    if swap == "other node":
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(*ZERO[1:]))
    elif swap == "file":
        node.write_text("not a device node")
    script = "stat -c %t:%T /dev/card0; head -c 3 /dev/card0 | wc -c"
    ended = run_container(tmp_path, spec, qualified_name(NAME, "card0"), script)
    # /dev/null has no bytes; /dev/zero would have three.
    assert ended.stdout == "1:3\n0\n", ended.stderr


@pytest.mark.podman
@pytest.mark.parametrize(
    ("access", "user", "expected"),
    [
        ({"owner": 1000, "group": 44, "mode": 0o600}, "1000:1000", "1000:44 600 opened"),
        ({"owner": 0, "group": 44, "mode": 0o660}, "1000:44", "0:44 660 opened"),
        ({"owner": 0, "group": 44, "mode": 0o660}, "1000:1000", "0:44 660 refused"),
        ({"owner": 1001, "mode": 0o600}, "1000:1000", "1001:1000 600 refused"),
    ],
)
def test_user_that_is_not_root_opens_a_node_by_owner_group_and_mode(
    tmp_path: Path, access: dict[str, int], user: str, expected: str
) -> None:
    node = tmp_path / "card"
    # As udev creates most device nodes: a container that is not root cannot open such a node.
    os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(*NULL[1:]))
    spec = write_spec(tmp_path, NodeEdit(str(node), "/dev/card0", "rw", **access, numbers=NULL))
    script = (
        "echo $(stat -c '%u:%g %a' /dev/card0) $( (echo x > /dev/card0) 2> /dev/null && echo opened || echo refused)"
    )
    ended = run_container(tmp_path, spec, qualified_name(NAME, "card0"), script, "--user", user)
    assert ended.stdout == f"{expected}\n", ended.stderr


def format_file(*devices: str, edits: str = '{"env": ["A=b"]}', version: str = "0.3.0", kind: str = NAME) -> str:
    listed = ", ".join(f'{{"name": "{device}", "containerEdits": {edits}}}' for device in devices)
    return f'{{"cdiVersion": "{version}", "kind": "{kind}", "devices": [{listed}]}}'


LAYOUTS = {
    "one file": {"a.json": format_file("card0")},
    "YAML": {"a.yaml": f"cdiVersion: 0.5.0\nkind: {NAME}\ndevices: [{{name: card0, containerEdits: {{env: [A=b]}}}}]"},
    "JSON with comments": {"a.json": "# YAML\n" + format_file("card0")},
    "another suffix": {"a.yml": format_file("card0")},
    "two files": {"a.json": format_file("card0"), "b.yaml": format_file("card0", "card1")},
    "other device": {"a.json": format_file("card1")},
    "other kind": {"a.json": format_file("card0", kind="example.com/other")},
    "broken file": {"a.json": format_file("card0")[:-1]},
    "broken file beside": {"a.json": format_file("card0"), "b.json": format_file("card0")[:-1]},
    "empty file beside": {"a.json": format_file("card0"), "b.json": ""},
    "device twice": {"a.json": format_file("card0", "card0")},
    "key twice": {"a.json": format_file("card0").replace('"kind"', '"kind": "a.b/c", "kind"')},
    "no edits": {"a.json": format_file("card0", edits="{}")},
    "invalid device beside": {"a.json": format_file("card0", "card 1")},
    "no version": {"a.json": format_file("card0", version="")},
}


@pytest.mark.podman
@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_lookup_of_a_cdi_device_agrees_with_the_runtime(tmp_path: Path, files: dict[str, str]) -> None:
    directory = tmp_path / "host/var/run/cdi"
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    ended = run_container(tmp_path, f"{directory}/*", f"{NAME}=card0", "echo $A")
    reason = read_cdi_devices(Host(tmp_path / "host"), Dependencies()).undefined_reason(f"{NAME}=card0")
    assert (ended.stdout == "b\n") is (reason == ""), (ended.stderr, reason)
