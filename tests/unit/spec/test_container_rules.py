"""Rules for what a container may get, for literal texts and for rendered templates."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.spec.container_rules import (
    annotation_error,
    cdi_name_error,
    collect_environment,
    environment_error,
    mount_target_error,
    node_target_error,
    normalize_container_path,
    path_error,
    text_error,
    variable_error,
)
from genplug.spec.globs import Glob
from genplug.spec.limits import MAX_ENVIRONMENT_BYTES, MAX_VARIABLE_BYTES
from genplug.spec.policy import DEFAULT_POLICY, Policy

MOUNT_TARGETS = {
    "/opt/lib": "",
    "/usr/local/nvidia": "",
    "/usr/lib/x86_64-linux-gnu/libcuda.so": "",
    "/dev/hugepages": "",
    "/dev/snd": "",
    "/etc/OpenCL/vendors": "",
    "/tmp/.X11-unix": "",
    "/": "would hide the root file system of the container",
    "//": "would hide the root file system of the container",
    "/./": "would hide the root file system of the container",
    "/etc": "would hide /etc,",
    "/usr//bin/": "would hide /usr/bin,",
    "/dev": "would hide /dev,",
    "/dev/null": "would replace a file that the container runtime creates",
    "/dev/pts/0": "would replace a file that the container runtime creates",
    "/etc/passwd": "would change /etc/passwd,",
    "//etc/passwd": "would change /etc/passwd,",
    "/etc/./shadow": "would change /etc/shadow,",
    "/etc/ld.so.preload": "would change /etc/ld.so.preload,",
    "/proc": "would change /proc,",
    "/proc/sys/kernel/core_pattern": "would change /proc,",
    "/sys/fs/cgroup": "would change /sys,",
    "/var/run/secrets/kubernetes.io/serviceaccount": "would change /var/run/secrets,",
    "/usr/bin/tool": "",
    "/opt/bin/bash": "",
    "/usr/bin/bash": "would change /usr/bin/bash,",
    "/usr/local/sbin/sudo/x": "would change /usr/local/sbin/sudo/x,",
    "/opt/lib/libc.so.6": "",
    "/lib64/ld-linux-x86-64.so.2": "would change /lib64/ld-linux-x86-64.so.2,",
    "/usr/lib/x86_64-linux-gnu/libc.so.6": "would change /usr/lib/x86_64-linux-gnu/libc.so.6,",
    "/opt/../etc/passwd": "contains '..'",
    "opt": "is not an absolute path",
    "": "is not an absolute path",
    "/opt/a\0b": "contains a NUL byte",
    "/opt/\udcff": "contains bytes that are not UTF-8",
}


@pytest.mark.parametrize(("path", "expected"), MOUNT_TARGETS.items(), ids=map(repr, MOUNT_TARGETS))
def test_mount_must_not_change_files_that_a_container_depends_on(path: str, expected: str) -> None:
    error = mount_target_error(path)
    assert error.startswith(expected)
    assert bool(error) == bool(expected)


def test_policy_allows_mounts_in_directories_of_programs() -> None:
    policy = Policy(mount_targets=(Glob.parse("/usr/bin/a*"),))
    error = "is refused by 'mounts.targets' of the default policy, which allows /usr/bin/a*"
    errors = {path: mount_target_error(path, policy) for path in ("/opt/x", "/usr/bin/a1", "/usr/bin/b", "/usr/bin/sh")}
    assert errors.pop("/usr/bin/sh").startswith("would change /usr/bin/sh,")
    assert errors == {"/opt/x": "", "/usr/bin/a1": "", "/usr/bin/b": error}


NODE_TARGETS = {
    ("/dev/x", "/dev/y"): "",
    ("/dev/dri/by-path/x", "/dev/dri/card0"): "",
    # Two device nodes that every container has may be the same.
    ("/dev/null", "/dev/null"): "",
    ("/opt/x", "/opt/x"): "",
    ("/etc/passwd", "/dev/x"): "is outside of /dev",
    ("/dev", "/dev/x"): "is outside of /dev",
    ("/dev/../etc/passwd", "/dev/x"): "contains '..'",
    ("//etc/passwd", "/dev/x"): "is outside of /dev",
    ("/dev/null", "/dev/ttyUSB0"): "would replace a device",
    ("/dev//urandom", "/dev/x"): "would replace a device",
    ("/dev/pts/0", "/dev/x"): "would replace a device",
    ("/dev/stdin", "/dev/x"): "would replace a device",
    ("x", "/dev/x"): "is not an absolute path",
}


@pytest.mark.parametrize(("paths", "expected"), NODE_TARGETS.items(), ids=map(repr, NODE_TARGETS))
def test_device_node_must_be_below_dev(paths: tuple[str, str], expected: str) -> None:
    error = node_target_error(*paths)
    assert error.startswith(expected)
    assert bool(error) == bool(expected)


@pytest.mark.parametrize("text", ["a\0b", "\0", "\udcff", "a\ufffdb"])
def test_text_that_cannot_be_sent_is_rejected_everywhere(text: str) -> None:
    assert text_error(text)
    assert variable_error("A", text, None)
    assert annotation_error("a.io/b", text, None)
    assert cdi_name_error(f"a.io/b={text}", None)
    assert path_error(f"/{text}")


@pytest.mark.parametrize(("code", "is_allowed"), [(0xD7FF, True), (0xD800, False), (0xDFFF, False), (0xE000, True)])
def test_text_has_no_surrogates(code: int, *, is_allowed: bool) -> None:
    assert (text_error(f"a{chr(code)}") == "") is is_allowed


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufffd")))
def test_text_without_nul_and_surrogates_can_be_sent(text: str) -> None:
    assert not text_error(text)
    text.encode()


@given(st.text(alphabet="/.xyz\0\udc80"))
def test_accepted_path_is_absolute_and_stays_where_it_is(path: str) -> None:
    if not path_error(path):
        assert path.startswith("/")
        assert ".." not in path.split("/")
        path.encode()


@given(st.lists(st.sampled_from(["/", "etc", "passwd", ".", "..", "dev", "null", "proc", "opt", ""])).map("/".join))
def test_spelling_of_a_path_does_not_change_what_is_allowed(path: str) -> None:
    names = [name for name in path.split("/") if name not in {"", "."}]
    plain = "/" + "/".join(names)
    if not mount_target_error(path):
        assert not mount_target_error(plain)
    if not node_target_error(path, "/dev/x"):
        assert not node_target_error(plain, "/dev/x")


def test_variable_is_limited_to_what_the_kernel_starts_a_program_with() -> None:
    error = (
        f"has {MAX_VARIABLE_BYTES + 1} bytes with its name, at most {MAX_VARIABLE_BYTES} are allowed: the kernel would "
        "not start a program with it"
    )
    assert not variable_error("A", "x" * (MAX_VARIABLE_BYTES - 2), None)
    assert variable_error("A", "x" * (MAX_VARIABLE_BYTES - 1), None) == error
    # A character has as many bytes as in UTF-8.
    euros = "\N{EURO SIGN}" * (MAX_VARIABLE_BYTES // 3)
    assert not variable_error("A", euros[1:], None)
    assert "bytes" in variable_error("A", euros, None)


ENTRY_BYTES = 9
"""The bytes of a variable besides its name, the equals sign and its value: a NUL byte and a pointer."""


def test_environment_is_limited_to_what_the_kernel_starts_a_program_with() -> None:
    error = (
        f"has at least {MAX_ENVIRONMENT_BYTES + 1} bytes, at most {MAX_ENVIRONMENT_BYTES} are allowed: the kernel "
        "would not start a program with it"
    )
    filled = (("A", "x" * (MAX_ENVIRONMENT_BYTES - len("A=") - ENTRY_BYTES - len("BC=y") - ENTRY_BYTES)), ("BC", "y"))
    too_large = (filled[0], ("BC", "yz"))
    assert environment_error(filled) == ""
    assert environment_error(too_large) == error
    # The variables are rendered up to the first that exceeds the limit.
    for env, count in ((filled, 3), (too_large, 2)):
        assert len(collect_environment((*env, ("D", ""), ("E", "")))) == count


def test_denied_value_is_found_in_the_rendered_text() -> None:
    assert "is refused by 'env.allow'" in variable_error("NVIDIA_VISIBLE_DEVICES", "all", DEFAULT_POLICY)
    assert not variable_error("NVIDIA_VISIBLE_DEVICES", "GPU-1", DEFAULT_POLICY)


def test_variables_behind_the_limit_of_an_environment_are_not_rendered() -> None:
    variables = iter([(f"A{number}", "x" * 100_000) for number in range(100)])
    env = collect_environment(variables)
    assert "at least" in environment_error(env)
    assert not environment_error(env[:-1])
    assert len(tuple(variables)) == 100 - len(env)


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (lambda name, policy: annotation_error(name, "x", policy), "annotations.allow"),
        (lambda name, policy: cdi_name_error(f"{name}=0", policy), "cdi.allow"),
    ],
    ids=["annotation", "CDI device"],
)
def test_policy_allows_annotations_and_cdi_devices(error: Callable[[str, Policy | None], str], rule: str) -> None:
    policy = Policy(annotations=("a.io/b",), cdi=("a.io/b=*",))
    assert error("a.io/b", policy) == ""
    assert error("a.io/c", None) == ""
    assert error("a.io/c", policy).startswith(f"is refused by '{rule}' of the default policy, which allows a.io/b")


@pytest.mark.parametrize(
    ("path", "normal"), [("/", "/"), ("//a", "/a"), ("///a//b/./", "/a/b"), ("/./", "/"), ("//X/X", "/X/X")]
)
def test_container_path_is_normalized_like_a_path_with_one_slash(path: str, normal: str) -> None:
    assert normalize_container_path(path) == normal


def test_path_is_not_longer_than_a_path_of_the_kernel() -> None:
    assert not path_error("/" + "x" * 4095)
    assert "no path has more than 4096" in node_target_error("/dev/" + "x" * 4096, "/dev/x")
