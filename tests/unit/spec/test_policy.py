"""The policy: what each of its rules allows, and the reasons that it gives for what it refuses."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from genplug.spec.globs import Glob
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.read_rules import parse_read_rules


def parse_globs(*texts: str) -> tuple[Glob, ...]:
    return tuple(map(Glob.parse, texts))


EMPTY = Policy(
    file="empty.yaml", resources=(), allow=(), read=parse_read_rules(()), read_env=(), http=(), open_probe=False
)
"""Allows nothing."""
POLICY = Policy(
    file="policy.yaml",
    resources=("a.io/*", "b.io/x"),
    allow=parse_globs("/dev/x*", "/dev/y"),
    deny=parse_globs("/dev/x9", "/dev/z9"),
    mounts=parse_globs("/opt/a", "/srv/*"),
    writable=parse_globs("/var/w", "/srv/w"),
    mount_targets=parse_globs("/usr/bin/a*", "/sbin/b"),
    programs=parse_globs("/opt/check", "/opt/bin/*"),
    cdi=("a.io/b=*", "c.io/d=0"),
    read=parse_read_rules(("/sys/a/*", "/etc/b")),
    read_env=("A", "B_*"),
    http=("127.0.0.1", "*.example.com:443", "10.0.0.0/8:9400"),
    unix_sockets=parse_globs("/run/a.sock", "/run/b/*"),
    annotations=("a.io/*", "b.io/c"),
    env=("PATH", "LD_*", "NVIDIA_VISIBLE_DEVICES=all"),
    groups=(44, 992),
    open_probe=True,
)

Check = Callable[[Policy, str], str]
RULES: list[tuple[str, Check, str, list[str], str]] = [
    ("resources", Policy.resource_error, "a.io/*, b.io/x", ["a.io/y", "b.io/x"], "b.io/y"),
    ("devices.allow", Policy.device_error, "/dev/x*, /dev/y", ["/dev/x0", "/dev/y"], "/dev/z"),
    ("exec.allow", Policy.exec_error, "/opt/check, /opt/bin/*", ["/opt/check", "/opt/bin/x"], "/opt/bin/x/y"),
    ("cdi.allow", Policy.cdi_error, "a.io/b=*, c.io/d=0", ["a.io/b=x", "c.io/d=0"], "c.io/d=1"),
    ("read.allow", Policy.read_error, "/sys/a/*, /etc/b", ["/sys/a/x", "/etc/b"], "/etc/c"),
    ("read.allow", Policy.read_below_error, "/sys/a/*, /etc/b", ["/sys", "/sys/a", "/etc"], "/sys/b"),
    ("read.env", Policy.read_env_error, "A, B_*", ["A", "B_C"], "A_B"),
    ("unixSocket.allow", Policy.unix_socket_error, "/run/a.sock, /run/b/*", ["/run/a.sock", "/run/b/c"], "/run/c"),
    ("annotations.allow", Policy.annotation_error, "a.io/*, b.io/c", ["a.io/x", "b.io/c"], "b.io/d"),
    ("mounts.targets", Policy.mount_target_error, "/usr/bin/a*, /sbin/b", ["/usr/bin/a", "/sbin/b"], "/bin/a"),
    (
        "supplementalGroups.allow",
        lambda policy, group: policy.group_error(int(group)),
        "44, 992",
        ["44", "992"],
        "0",
    ),
    (
        "read.allow",
        lambda policy, glob: policy.read_glob_error(Glob.parse(glob)),
        "/sys/a/*, /etc/b",
        ["/sys/*/x", "/etc/b", "{/etc/b,/sys/a/*}"],
        "{/etc/b,/etc/c}",
    ),
    (
        "http.allow",
        lambda policy, host: policy.connect_error(host, 9400),
        "127.0.0.1, *.example.com:443, 10.0.0.0/8:9400",
        ["127.0.0.1", "localhost", "10.0.0.1", "b.example.org"],
        "11.0.0.1",
    ),
    (
        "mounts.allow",
        lambda policy, path: policy.mount_error(path, read_only=True),
        "/opt/a, /srv/*, /var/w, /srv/w",
        ["/opt/a", "/opt/a/b/c", "/srv/x", "/srv/x/y", "/srv/w", "/var/w", "/var/w/x"],
        "/opt",
    ),
    (
        "mounts.writable",
        lambda policy, path: policy.mount_error(path, read_only=False),
        "/var/w, /srv/w",
        ["/var/w", "/var/w/x", "/srv/w", "/srv/w/x"],
        "/opt/a",
    ),
]


@pytest.mark.parametrize(("rule", "error", "entries", "allowed", "refused"), RULES, ids=[rule[0] for rule in RULES])
def test_rule_refuses_what_none_of_its_entries_allows(
    rule: str, error: Check, entries: str, allowed: list[str], refused: str
) -> None:
    assert [name for name in allowed if error(POLICY, name)] == []
    assert error(POLICY, refused) == f"refused by '{rule}' of policy.yaml, which allows {entries}"
    rule = rule.replace("mounts.writable", "mounts.allow")
    for name in (*allowed, refused):
        assert error(EMPTY, name) == f"refused by '{rule}' of empty.yaml, which allows nothing"


def test_mount_that_is_only_allowed_read_only_names_the_rule_without_entries() -> None:
    policy = Policy(mounts=parse_globs("/opt/**"))
    assert policy.mount_error("/opt/a", read_only=False) == (
        "refused by 'mounts.writable' of the default policy, which allows nothing"
    )


def test_denied_device_node_is_refused_though_another_entry_allows_it() -> None:
    assert POLICY.device_error("/dev/x9") == "refused by 'devices.deny' of policy.yaml: '/dev/x9'"
    assert POLICY.device_error("/dev/z9") == "refused by 'devices.deny' of policy.yaml: '/dev/z9'"


def test_open_probe_is_allowed_by_a_switch() -> None:
    assert POLICY.open_error() == ""
    assert EMPTY.open_error() == "refused by 'openProbe' of empty.yaml, which is false"


def test_policy_without_a_file_is_named_the_default_policy() -> None:
    assert (DEFAULT_POLICY.name, POLICY.name) == ("the default policy", "policy.yaml")
    assert POLICY.help == "ask the node administrators to allow it in policy.yaml"
    assert DEFAULT_POLICY.help == (
        "only a policy can allow it: ask the node administrators; to validate with their policy, pass --policy FILE"
    )


def test_policy_allows_mounts_if_any_path_may_be_mounted() -> None:
    some = parse_globs("/opt")
    assert not DEFAULT_POLICY.allows_mounts
    assert [Policy(mounts=some).allows_mounts, Policy(writable=some).allows_mounts] == [True, True]


@pytest.mark.parametrize(
    ("host", "port", "error"),
    [
        ("127.0.0.1", 9400, ""),
        ("a.example.com", 443, ""),
        # Its address may be in the network.
        ("a.example.org", 9400, ""),
        ("a.example.com", 80, "refused"),
        ("a.example.org", 443, "port"),
        ("127.0.0.1", 10250, "port"),
        ("10.1.2.3", 9400, ""),
        ("10.1.2.3", 80, "refused"),
        ("10.1.2.3", 443, "port"),
        ("0xa.1", 9400, ""),
    ],
)
def test_port_of_the_cluster_is_refused_with_a_hint(host: str, port: int, error: str) -> None:
    refused = "refused by 'http.allow' of policy.yaml, which allows 127.0.0.1, *.example.com:443, 10.0.0.0/8:9400"
    hint = f"; only an entry with the port allows {port}, a port of the cluster"
    expected = {"": "", "refused": refused, "port": refused + hint}[error]
    assert POLICY.connect_error(host, port) == expected


CANDIDATES = {
    # In /dev, even if the policy refuses the device node.
    "/dev/q": True,
    "/dev": False,
    "/devx/q": False,
    "/sys/a/x": True,
    "/sys/b/x": False,
    "/opt/a/x": True,
    "/opt/b/x": False,
    # A device node outside of /dev.
    "/run/nodes/x": True,
    "/run/nodes/denied": False,
}
NAMING = replace(
    POLICY, allow=parse_globs("/dev/x", "/run/nodes/*"), deny=parse_globs("/run/nodes/denied"), writable=()
)
CANNOT_NAME = "refused by 'read.allow' of policy.yaml, which allows /sys/a/*, /etc/b"


@pytest.mark.parametrize(("path", "is_allowed"), CANDIDATES.items())
def test_glob_of_devices_names_paths_in_dev_and_paths_that_a_container_may_get(path: str, *, is_allowed: bool) -> None:
    assert NAMING.candidate_error(path) == ("" if is_allowed else CANNOT_NAME)
    assert NAMING.node_glob_error(Glob.parse(path)) == ("" if is_allowed else CANNOT_NAME)


BELOW = {
    "/dev": True,
    "/dev/q": True,
    "/devx": False,
    "/": True,
    "/sys": True,
    "/sys/a": True,
    "/sys/b": False,
    # Everything below a mounted directory is part of the mount.
    "/opt": True,
    "/opt/a": True,
    "/opt/a/x": True,
    "/opt/b": False,
    "/var": True,
    "/var/w/x": True,
    "/var/x": False,
    "/run/nodes": True,
    "/run/other": False,
}


@pytest.mark.parametrize(("directory", "is_allowed"), BELOW.items())
def test_glob_of_devices_searches_only_where_it_may_name_a_path(directory: str, *, is_allowed: bool) -> None:
    policy = replace(NAMING, writable=parse_globs("/var/w"))
    expected = "" if is_allowed else CANNOT_NAME
    assert policy.candidate_below_error(directory) == expected
    assert policy.node_glob_error(Glob.parse(f"{directory.rstrip('/')}/*")) == expected


def test_every_alternative_of_a_glob_must_lead_to_paths_that_may_be_named() -> None:
    for refused in ("/etc/shadow", "/etc/x/*"):
        assert NAMING.node_glob_error(Glob.parse(f"{{/dev/x,{refused}}}")) == CANNOT_NAME
        assert NAMING.node_glob_error(Glob.parse(f"{{{refused},/dev/*}}")) == CANNOT_NAME
    assert NAMING.node_glob_error(Glob.parse("{/dev/x,/sys/a/*}")) == ""


ALL = "it selects the devices of the container by the word 'all', regardless of its request"
LOADER = "it controls the dynamic loader or the C library"
VARIABLES: dict[tuple[str, str | None], str] = {
    ("MODEL", "x"): "",
    ("MODEL", None): "",
    ("LD_PRELOAD", "/x.so"): LOADER,
    ("LD_PRELOAD", None): LOADER,
    ("NVIDIA_VISIBLE_DEVICES", "GPU-1"): "",
    ("NVIDIA_VISIBLE_DEVICES", "all"): ALL,
    # The value is checked when it is known.
    ("NVIDIA_VISIBLE_DEVICES", None): "",
}


@pytest.mark.parametrize(("variable", "effect"), VARIABLES.items())
def test_denied_variable_is_refused_with_its_effect(variable: tuple[str, str | None], effect: str) -> None:
    expected = f"refused by 'env.allow' of the default policy: {effect}" if effect else ""
    assert DEFAULT_POLICY.env_error(*variable) == expected


@pytest.mark.parametrize(
    ("entry", "is_allowed"),
    [
        ("LD_PRELOAD", [True, True, True]),
        ("LD_*", [True, True, True]),
        ("LD_PRELOAD=/a.so", [True, False, True]),
        ("LD_PRELOAD=*", [True, True, True]),
        ("LD_PRELOAD=", [False, False, True]),
        ("LD_*=/a.so", [True, False, False]),
        ("LD_PRELOADX=/a.so", [False, False, False]),
        ("LD_*=N*", [False, False, False]),
        ("LD", [False, False, False]),
    ],
)
def test_denied_variable_is_allowed_by_its_name_or_with_its_value(entry: str, is_allowed: list[bool]) -> None:
    policy = Policy(env=("PATH", entry))
    errors = [policy.env_error("LD_PRELOAD", value) for value in ("/a.so", "/b.so", None)]
    assert [not error for error in errors] == is_allowed
    assert policy.env_error("LD_AUDIT", "/b.so") == ("" if entry == "LD_*" else POLICY_REFUSES + LOADER)


POLICY_REFUSES = "refused by 'env.allow' of the default policy: "


@pytest.mark.parametrize(
    ("name", "deny", "denied"),
    [
        ("NVIDIA_VISIBLE_DEVICES", ["/dev/nvidia3"], "/dev/nvidia3"),
        ("NVIDIA_VISIBLE_DEVICES", ["/dev/x"], ""),
        # One of the alternatives is allowed.
        ("HABANA_VISIBLE_DEVICES", ["/dev/hl*"], ""),
        ("HABANA_VISIBLE_DEVICES", ["/dev/hl1", "/dev/accel/accel2"], "/dev/accel/accel2"),
        ("OTHER_VISIBLE_DEVICES", ["/dev/**"], ""),
    ],
)
def test_variable_for_a_runtime_is_refused_if_the_policy_denies_its_devices(
    name: str, deny: list[str], denied: str
) -> None:
    error = Policy(deny=parse_globs(*deny)).env_error(name, "0")
    effect = "it makes a container runtime add the devices of its value, and 'devices' of the policy denies "
    assert error == (f"{POLICY_REFUSES}{effect}{denied}" if denied else "")
    assert not Policy(deny=parse_globs(*deny), env=(name,)).env_error(name, "0")
