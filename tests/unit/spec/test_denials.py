"""Errors of system calls: a call that a profile may deny has a hint, and others have the text of the system."""

import errno
import os

import pytest

from genplug.spec.denials import describe_system_error


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_denied_call_names_what_may_deny_it(number: int) -> None:
    text = describe_system_error(OSError(number, "text of a library"))
    assert text.startswith(f"{os.strerror(number)}; the seccomp profile, AppArmor or SELinux may deny")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EADDRINUSE, errno.ENOSPC])
def test_other_error_has_the_text_of_the_system(number: int) -> None:
    assert describe_system_error(OSError(number, "text of a library")) == os.strerror(number)


def test_error_without_a_number_has_its_own_text() -> None:
    assert describe_system_error(OSError("no number")) == "no number"
