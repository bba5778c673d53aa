"""Errors of the tasks of a group as single errors."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwrap_error_group(*types: type[Exception]) -> Iterator[None]:
    """Raise the first error of these types instead of a group of such errors, for example that of a TaskGroup.

    A group that also contains other errors is raised unchanged. ``raise`` in an ``except*`` does not replace this
    function: Python before 3.11.4, such as that of Debian 12, raises the error in a group again (gh-103590 of CPython).
    """
    try:
        yield
    except BaseExceptionGroup as group:
        error, others = group.split(types)
        if error is None or others is not None:
            raise
        raise first_error(error) from None


def first_error(error: BaseException) -> BaseException:
    """Return the first error of a group, which can contain groups, or an error that is not a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
