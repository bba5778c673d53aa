"""Rules for what a container may get: the same for the literal texts of a configuration and for rendered templates.

Every function returns the reason as a clause, or an empty string.
"""

import posixpath
import re
from collections.abc import Iterable

from genplug.spec.limits import MAX_ENVIRONMENT_BYTES, MAX_GLOB_CHARACTERS, MAX_VARIABLE_BYTES
from genplug.spec.names import annotation_key_error, cdi_device_error, env_name_error
from genplug.spec.policy import Policy

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""The character in place of bytes of a file that are not UTF-8."""
_POINTER_BYTES = 8

_RUNTIME_DEVICES = frozenset(
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx")
)
"""The device nodes that a runtime creates in every container (OCI runtime specification, config-linux.md)."""
_RUNTIME_PATHS = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr")  # noqa: S108
_SYSTEM_DIRECTORIES = frozenset(
    {
        *("/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/root", "/run"),
        *("/sbin", "/usr", "/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/local"),
        *("/usr/local/bin", "/usr/local/lib", "/usr/local/sbin", "/usr/sbin", "/usr/share", "/var", "/var/lib"),
        *("/var/run",),
    }
)
"""Directories of every image (Filesystem Hierarchy Standard): a mount there hides the programs of the container."""
_PROTECTED_TREES = (
    # Kernel interfaces, and the secrets that the kubelet mounts.
    *("/proc", "/sys", "/run/secrets", "/var/run/secrets", "/etc/kubernetes", "/var/lib/kubelet"),
    # The first program of a container that runs an init system.
    *("/init", "/linuxrc", "/etc/inittab", "/lib/systemd", "/usr/lib/systemd"),
    # Accounts, authentication, name resolution, the dynamic loader and shells.
    *("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/sudoers", "/etc/sudoers.d", "/etc/pam.d"),
    *("/etc/pam.conf", "/etc/security", "/etc/ssh", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"),
    *("/etc/nsswitch.conf", "/etc/host.conf", "/etc/ld.so.preload", "/etc/ld.so.cache", "/etc/ld.so.conf"),
    *("/etc/ld.so.conf.d", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/lib/ssl"),
    *("/usr/local/share/ca-certificates", "/root/.ssh", "/root/.profile", "/root/.bashrc", "/root/.bash_profile"),
    *("/etc/profile", "/etc/profile.d", "/etc/environment", "/etc/bash.bashrc", "/etc/shells", "/etc/ssl"),
    *("/etc/crontab", "/etc/cron.d", "/etc/init.d", "/etc/systemd"),
)
"""Files and directories at and below which nothing may be mounted."""
_PROGRAM_DIRECTORIES = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/libexec")
"""The directories of programs (Filesystem Hierarchy Standard); in many images ``/bin`` is a link to ``/usr/bin``."""
_PROTECTED_PROGRAMS = frozenset(
    {
        *(
            "sh",
            "ash",
            "bash",
            "busybox",
            "csh",
            "dash",
            "fish",
            "ksh",
            "tcsh",
            "zsh",
            "env",
            "init",
            "systemd",
            "tini",
        ),
        *("ldconfig", "ldd", "login", "mount", "nsenter", "runuser", "su", "sudo", "umount", "chroot", "unshare"),
    }
)
"""Shells, and programs that start other programs with other rights, in a directory of programs."""
_LOADER = re.compile(
    # glibc and musl: ld-linux-x86-64.so.2, ld-2.31.so, ld64.so.2, ld.so.1, ld-musl-x86_64.so.1, libc.musl-x86_64.so.1.
    r"(?:/usr(?:/local)?)?/lib[^/]*/(?:.*/)?"
    r"(?:ld(?:64)?[.-][^/]*"
    r"|lib(?:c|m|dl|rt|pthread|resolv|nsl|util|nss_[^/.]+|gcc_s|stdc\+\+)(?:[.-][^/]*)?\.so(?:\.[^/]*)?"
    r"|libc\.musl-[^/]*)(?:/.*)?"
)
"""The dynamic loader, the C library and the run-time libraries of the compiler, which every program loads."""


def text_error(text: str) -> str:
    """Return why a text cannot be in an Allocate response, as a clause whose subject is the text.

    Protobuf strings are UTF-8, and a NUL byte ends a string of the kernel.
    """
    if "\0" in text:
        return "contains a NUL byte, which ends a text in the container"
    if _REPLACEMENT in text or (not text.isascii() and _has_surrogates(text)):
        return "contains bytes that are not UTF-8, which the kubelet API requires"
    return ""


def variable_error(name: str, value: str, policy: Policy | None) -> str:
    """Return why a container must not get an environment variable, as a clause whose subject is the variable.

    With None as policy, everything is allowed.
    """
    if error := env_name_error(name):
        return f"is not valid: {error}"
    if error := text_error(value):
        return error
    if (size := _byte_count(f"{name}={value}")) > MAX_VARIABLE_BYTES:
        return (
            f"has {size} bytes with its name, at most {MAX_VARIABLE_BYTES} are allowed: the kernel would not start a "
            "program with it"
        )
    error = policy.env_error(name, value) if policy is not None else ""
    return f"is {error}" if error else ""


def collect_environment(variables: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return variables up to the first with which the environment is too large, as :func:`environment_error` reports.

    The others are not rendered, because all of them together could use more memory than the agent has.
    """
    env: list[tuple[str, str]] = []
    size = 0
    for name, value in variables:
        env.append((name, value))
        if (size := size + _entry_bytes(name, value)) > MAX_ENVIRONMENT_BYTES:
            break
    return tuple(env)


def environment_error(env: tuple[tuple[str, str], ...]) -> str:
    """Return why the variables together are too large, as a clause whose subject is the environment."""
    size = sum(_entry_bytes(name, value) for name, value in env)
    if size <= MAX_ENVIRONMENT_BYTES:
        return ""
    return (
        f"has at least {size} bytes, at most {MAX_ENVIRONMENT_BYTES} are allowed: the kernel would not start a program "
        "with it"
    )


def annotation_error(key: str, value: str, policy: Policy | None) -> str:
    """Return why a container must not get an annotation, as a clause whose subject is the annotation."""
    if error := annotation_key_error(key):
        return f"is not valid: {error}"
    if error := text_error(value):
        return error
    error = policy.annotation_error(key) if policy is not None else ""
    return f"is {error}" if error else ""


def cdi_name_error(name: str, policy: Policy | None) -> str:
    """Return why a container must not get a CDI device of another program, as a clause whose subject is the device."""
    if error := cdi_device_error(name):
        return f"is not valid: {error}"
    error = policy.cdi_error(name) if policy is not None else ""
    return f"is {error}" if error else ""


def path_error(path: str) -> str:
    """Return why a text is not usable as a path of the host or of a container, as a clause."""
    if error := text_error(path):
        return error
    if not path.startswith("/"):
        return "is not an absolute path"
    if len(path) > MAX_GLOB_CHARACTERS:
        return f"has {len(path)} characters, and no path has more than {MAX_GLOB_CHARACTERS}"
    return "contains '..'" if ".." in path.split("/") else ""


def mount_target_error(path: str, policy: Policy | None = None) -> str:
    """Return why nothing may be mounted at a path of a container, as a clause whose subject is the path.

    A policy limits mounts in directories of programs; with None, only what no policy allows is an error.
    """
    if error := path_error(path):
        return error
    target = normalize_container_path(path)
    if target == "/":
        return "would hide the root file system of the container"
    if target in _SYSTEM_DIRECTORIES:
        return f"would hide {target}, which contains files of the container"
    if _is_made_by_runtime(target):
        return "would replace a file that the container runtime creates"
    tree = next((tree for tree in _PROTECTED_TREES if _is_at_or_below(target, tree)), "")
    is_program = any(_is_at_or_below(target, directory) for directory in _PROGRAM_DIRECTORIES)
    if (is_program and not _PROTECTED_PROGRAMS.isdisjoint(target.split("/"))) or _LOADER.fullmatch(target):
        tree = target
    if tree:
        return f"would change {tree}, on which the security of the container depends"
    error = policy.mount_target_error(target) if is_program and policy is not None else ""
    return f"is {error}" if error else ""


def node_target_error(path: str, host_path: str) -> str:
    """Return why a device node must not be at a path of a container, as a clause whose subject is the path.

    ``host_path`` is the path of the node on the host, without symlinks.
    """
    if error := path_error(path):
        return error
    target = normalize_container_path(path)
    if target == host_path:
        return ""
    if not target.startswith("/dev/"):
        return "is outside of /dev, where a device node could replace a file of the container"
    if _is_made_by_runtime(target):
        return "would replace a device that the container runtime creates"
    return ""


def normalize_container_path(path: str) -> str:
    """Return an absolute path without repeated slashes and without ``.``."""
    # POSIX allows a meaning for exactly two slashes at the start, so normpath keeps them.
    return posixpath.normpath(f"/{path.lstrip('/')}")


def _is_made_by_runtime(path: str) -> bool:
    return path in _RUNTIME_DEVICES or any(_is_at_or_below(path, directory) for directory in _RUNTIME_PATHS)


def _is_at_or_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _entry_bytes(name: str, value: str) -> int:
    return _byte_count(f"{name}={value}") + 1 + _POINTER_BYTES


def _byte_count(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogateescape"))
