"""Which files attributes and probes may read: globs, and places that a glob must name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.spec.globs import Glob
from genplug.spec.policy import DEFAULT_POLICY
from genplug.spec.read_checks import literal_read_error
from genplug.spec.read_rules import DEFAULT_READ_GLOBS, ReadRules, literal_directory, literal_path, parse_read_rules
from genplug.spec.template import Template

READABLE = [
    "/sys/bus/pci/devices/0000:3b:00.0/vendor",
    "/sys/class/net/eth0/address",
    "/sys/module/nvidia/parameters/x",
    "/sys/devices/virtual/dmi/id/product_name",
    "/sys/kernel/debug/qat_4xxx_0000:6b:00.0/heartbeat/status",
    "/sys/firmware/devicetree/base/soc/gpio@7e200000/status",
    "/sys/class/drm/card0/device/vendor",
    "/sys/bus/nvmem/devices/eeprom0/type",
    "/proc/driver/nvidia/version",
    "/run/udev/data/c195:0",
]
REFUSED = [
    "/etc/shadow",
    "/root/.ssh/id_rsa",
    "/dev/shm/x",
    "/run/initctl",
    "/proc/1/environ",
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/cmdline",
    "/sysx/a",
    "/sys/kernel/debug/tracing/trace_pipe",
    "/sys/kernel/tracing/trace_pipe",
    "/sys/kernel/config/target/iscsi/x/auth/userid",
    "/sys/firmware/qemu_fw_cfg/by_name/opt/x/raw",
    "/sys/firmware/efi/efivars/x",
    "/sys/module/x/sections/.text",
    "/sys/class/iscsi_session/session1/password",
    "/sys/class/iscsi_session/session1/password_in",
    "/sys/class/nvme/nvme0/dhchap_secret",
    "/sys/bus/thunderbolt/devices/0-1/key",
    "/sys/firmware/fdt",
    "/sys/firmware/devicetree/base/chosen/bootargs",
    "/sys/firmware/memmap/0/start",
    "/sys/firmware/ibft/target0/chap-name",
    "/sys/kernel/boot_params/data",
    "/sys/fs/selinux/policy",
    "/sys/fs/resctrl/tasks",
    "/sys/devices/virtual/devcoredump/devcd1/data",
    "/sys/class/devcoredump/devcd1/data",
    "/sys/class/drm/card0/error",
    "/sys/devices/pci0000:00/0000:00:02.0/drm/card0/error",
    "/sys/bus/nvmem/devices/mtd0/nvmem",
    "/sys/devices/platform/soc/fuse0/cells/huk@0,0",
    "/sys/devices/pnp0/00:02/rtc/rtc0/device/nvram",
    "/sys/class/scsi_host/host0/device/fw_dump",
    "/var/lib/kubelet/pki/kubelet.key",
]


@pytest.mark.parametrize("path", READABLE)
def test_default_policy_allows_to_read_files_that_describe_devices(path: str) -> None:
    for spelling in (path, path.replace("/", "//"), path.replace("/", "/./"), f"{path}/", f"{path}/."):
        assert not DEFAULT_POLICY.read_error(spelling)


@pytest.mark.parametrize("path", REFUSED)
def test_default_policy_refuses_other_files_and_secrets(path: str) -> None:
    for spelling in (path, path.replace("/", "//"), path.replace("/", "/./"), f"{path}/", f"{path}/."):
        assert DEFAULT_POLICY.read_error(spelling).startswith(
            "refused by 'read.allow' of the default policy, which allows /sys"
        )


@pytest.mark.parametrize(
    ("globs", "path", "is_allowed"),
    [
        (["/**"], "/etc/hostname", True),
        (["/**"], "/proc/1/environ", False),
        (["/**"], "/sys/kernel/debug/x", False),
        (["/sys/**"], "/sys/kernel/debug/dri/0/name", False),
        (["/sys/kernel/debug/dri/*/name"], "/sys/kernel/debug/dri/0/name", True),
        (["/sys/kernel/*/dri/*/name"], "/sys/kernel/debug/dri/0/name", False),
        (["/sys/class/x/*/password"], "/sys/class/x/y/password", True),
        (["/sys/class/x/*/pass*"], "/sys/class/x/y/password", False),
        (["/sys/bus/nvmem/devices/*/nvmem"], "/sys/bus/nvmem/devices/mtd0/nvmem", True),
        (["/sys/bus/nvmem/devices/**"], "/sys/bus/nvmem/devices/mtd0/nvmem", False),
        (["/sys/firmware/efi/**"], "/sys/firmware/efi/fw_platform_size", True),
    ],
)
def test_private_place_needs_a_glob_that_names_it(globs: list[str], path: str, *, is_allowed: bool) -> None:
    assert parse_read_rules(tuple(globs)).allows(path) is is_allowed


@pytest.mark.parametrize(
    ("globs", "path", "is_allowed"),
    [
        ([], "/sys/x", False),
        (["/etc/fpga/*"], "/etc/fpga/serial", True),
        (["/etc/fpga/x"], "/etc/fpga/y", False),
        (["/sys/**"], "/sys/a/b", True),
        (["/sys/**"], "/sys/a/.b", True),
        (["/sys/**"], "/sysx/a", False),
        (["/proc/x", "/{sys,etc}/**"], "/etc/a", True),
        (["/sys/[ab]/**"], "/sys/a/c", True),
        (["/sys/[ab]/**"], "/sys/[ab]/c", False),
        (["/sys/**/a"], "/sys/b", False),
        (["/**"], "/sys/../etc/a", False),
        (["/**"], "/sys/a/..", False),
        (["/**"], "/sys/..a/b..", True),
    ],
)
def test_file_may_be_read_if_a_glob_matches_its_path(globs: list[str], path: str, *, is_allowed: bool) -> None:
    assert parse_read_rules(tuple(globs)).allows(path) is is_allowed


@pytest.mark.parametrize(
    ("glob", "is_allowed"),
    [
        ("/sys/a/x", True),
        ("/sys/b/x", False),
        ("/sys/*", True),
        ("/sys/a/*", True),
        ("/sys/b/*", False),
        ("/*/x", True),
        ("{/sys/a/x,/sys/a/*}", True),
        ("{/sys/a/x,/sys/b/*}", False),
        ("{/sys/b/x,/sys/a/*}", False),
    ],
)
def test_glob_may_be_searched_for_if_each_alternative_may_match_a_readable_path(glob: str, *, is_allowed: bool) -> None:
    assert parse_read_rules(("/sys/a/*",)).may_allow_match(Glob.parse(glob)) is is_allowed


@pytest.mark.parametrize(
    ("path", "may_be_named", "may_be_read"),
    [
        ("/sys/a/vendor", True, True),
        ("/sys//a/./vendor/", True, True),
        ("/sys/a/password", True, False),
        ("/sys/kernel/debug/x", False, False),
        ("/sys/kernel/debug/dri/0", True, True),
        ("/sys//kernel/./debug/x", False, False),
        ("/etc/shadow", False, False),
    ],
)
def test_file_with_a_private_name_may_be_named_but_not_read(
    path: str, *, may_be_named: bool, may_be_read: bool
) -> None:
    rules = parse_read_rules(("/sys/**", "/sys/kernel/debug/dri/*"))
    assert (rules.names(path), rules.allows(path)) == (may_be_named, may_be_read)


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("/a/b", ("/a/b", True)),
        ("/a/./b//c*", ("/a/b", False)),
        ("/a/**", ("/a", False)),
        ("/a/*/b", ("/a", False)),
        ("/*/a", ("", False)),
    ],
)
def test_literal_path_ends_before_the_first_wildcard(glob: str, expected: tuple[str, bool]) -> None:
    (segments,) = Glob.parse(glob)
    assert literal_path(segments) == expected


@given(
    st.lists(st.sampled_from(["/sys/**", "/sys/*/x", "/etc/a/*", "/**", "/sys/kernel/debug/x/*", "/proc/d[0-9]/**"])),
    st.lists(st.sampled_from(["sys", "etc", "a", "x", "kernel", "debug", "proc", "d1", "key"]), min_size=1, max_size=6),
)
def test_directory_above_an_allowed_path_may_contain_allowed_paths(globs: list[str], names: list[str]) -> None:
    rules = ReadRules(tuple(map(Glob.parse, globs)))
    path = "/" + "/".join(names)
    if rules.allows(path):
        for count in range(1, len(names)):
            directory = "/" + "/".join(names[:count])
            assert rules.may_allow_below(directory), directory


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("/etc/shadow", True),
        ("/etc/*", True),
        ("/etc/x/*", True),
        ("/root/${name}", True),
        ("/${name}/shadow", False),
        ("${x}", False),
        ("/sys/class/${name}", False),
        ("/sys/kernel/debug/*/x", False),
        ("/sys/kernel/tracing/*/x", True),
        ("/proc/${name}/environ", False),
        ("/sys/../etc/shadow", False),
    ],
)
def test_path_is_refused_at_load_if_its_literal_part_decides(text: str, *, is_refused: bool) -> None:
    assert bool(literal_read_error(Template.parse(text), DEFAULT_POLICY)) is is_refused


def test_literal_directory_ends_before_the_first_wildcard() -> None:
    assert [literal_directory(text) for text in ("/a/b/c*", "/a/b/*/c", "/a", "/{a,b}/c")] == ["/a/b", "/a/b", "", ""]
    assert DEFAULT_READ_GLOBS[0] == "/sys/**"
