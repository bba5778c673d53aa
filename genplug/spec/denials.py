"""Texts of errors of system calls that the container or the service of the agent may deny."""

import errno
import os

_DENIALS = (errno.EPERM, errno.ENOSYS)
"""The errors that a seccomp profile returns: genplug's own, that of a container runtime, or that of a systemd unit."""


def describe_system_error(error: OSError) -> str:
    """Return the text of an error, and for a call that a seccomp profile may deny, what to do."""
    text = os.strerror(error.errno) if error.errno else error.strerror or str(error)
    if error.errno in _DENIALS:
        text += (
            "; the seccomp profile, AppArmor or SELinux may deny the system call: check the profile of the container"
        )
    return text
