"""The parsers of the kernel's files, with texts of real machines."""

from genplug.doctor.facts import Mount
from genplug.doctor.texts import find_mount, is_initial_uid_map, parse_capabilities, parse_cgroups, parse_mounts

# Of a container of containerd, shortened: a private mount, a slave, and a path with a space.
MOUNTINFO = """\
1023 922 0:123 / / ro,relatime master:321 - overlay overlay ro,lowerdir=/a:/b
1030 1023 0:5 / /host/dev ro,nosuid master:5 - devtmpfs udev rw,size=4k
1031 1023 0:24 / /host/sys ro,nosuid - sysfs sysfs rw
1032 1023 8:1 /opt/a\\040b /host/opt/a\\040b ro,relatime shared:7 master:1 - ext4 /dev/sda1 rw
1033 1030 0:25 / /host/dev/pts rw - devpts devpts rw
broken line
"""


def test_mounts_have_their_type_options_and_propagation() -> None:
    mounts = parse_mounts(MOUNTINFO)
    assert [mount.target for mount in mounts] == ["/", "/host/dev", "/host/sys", "/host/opt/a b", "/host/dev/pts"]
    assert mounts[1] == Mount("/host/dev", "devtmpfs", frozenset({"ro", "nosuid"}), receives_mounts=True)
    assert [mount.receives_mounts for mount in mounts] == [True, True, False, True, False]


def test_mount_of_a_path_is_the_innermost_and_last_mount() -> None:
    mounts = parse_mounts(MOUNTINFO)
    found = find_mount((*mounts, Mount("/host/dev", "tmpfs")), "/host/dev/null")
    assert found is not None
    assert found.type == "tmpfs"
    found = find_mount(mounts, "/host/devices")
    assert found is not None
    assert found.target == "/"


def test_only_the_identity_map_is_the_initial_user_namespace() -> None:
    assert is_initial_uid_map("         0          0 4294967295\n")
    assert not is_initial_uid_map("         0     100000      65536\n")


def test_capabilities_are_the_bits_of_the_mask() -> None:
    assert parse_capabilities("00000000a80425fb") >= {0, 1, 3, 31}
    assert parse_capabilities("0000000000000000") == frozenset()


def test_cgroups_have_their_controllers() -> None:
    assert parse_cgroups("0::/kubepods/pod1\n") == {"": "/kubepods/pod1"}
    version1 = "12:memory:/kubepods/pod1\n4:cpu,cpuacct:/x\n1:name=systemd:/s\n"
    assert parse_cgroups(version1) == {"memory": "/kubepods/pod1", "cpu": "/x", "cpuacct": "/x", "systemd": "/s"}
