"""Imports of libraries without the parts that genplug does not use, which cost time at a start and memory afterwards.

Each context manager changes what import statements do inside its context, and nothing after it: a later import of the
same modules works as usual. Use them in the main thread before other threads start.
"""

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_BUILTIN_DIGESTS = ("_blake2", "_md5", "_sha1", "_sha256" if sys.version_info < (3, 12) else "_sha2")
_compile = re.compile


@contextmanager
def hide_modules(*names: str) -> Iterator[None]:
    """Make import statements raise ImportError for modules that are not imported yet."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        # None makes the import statement raise ImportError.
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def hide_openssl_digests() -> Iterator[None]:
    """Make ``hashlib`` use the digests of Python, without OpenSSL: 5 ms of a start, and 2 MiB of memory.

    A Python without digests of its own keeps those of OpenSSL.
    """
    if all(importlib.util.find_spec(name) for name in _BUILTIN_DIGESTS):
        with hide_modules("_hashlib"):
            yield
    else:
        yield


@contextmanager
def replace_modules(*names: str) -> Iterator[None]:
    """Replace modules that are not imported yet by empty modules. A package keeps its modules, but does not run itself.

    The empty modules are removed at the end; the modules of packages that were imported in the context remain.
    """
    replaced = [name for name in names if name not in sys.modules]
    for name in replaced:
        module = sys.modules[name] = ModuleType(name)
        spec = importlib.util.find_spec(name.rpartition(".")[0])
        locations = spec.submodule_search_locations if spec is not None else None
        module.__path__ = [os.path.join(location, name.rpartition(".")[2]) for location in locations or ()]  # noqa: PTH118
    try:
        yield
    finally:
        for name in replaced:
            del sys.modules[name]


@contextmanager
def postpone_patterns() -> Iterator[None]:
    """Make :func:`re.compile` return patterns that are compiled when they are used first.

    Libraries compile dozens of patterns when they are imported, and most of these are never used. An invalid pattern is
    reported at its first use.
    """
    re.compile = _PostponedPattern  # type: ignore[assignment]
    try:
        yield
    finally:
        re.compile = _compile


class _PostponedPattern:
    """A pattern that is compiled at the first access to an attribute."""

    def __init__(self, *arguments: Any, **flags: Any) -> None:  # noqa: ANN401 - the arguments of re.compile
        self._arguments, self._flags = arguments, flags

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the attributes of a pattern
        pattern = _compile(*self._arguments, **self._flags)
        # The next access to one of these finds it without this method.
        for method in ("match", "fullmatch", "search", "sub", "split", "findall", "finditer"):
            setattr(self, method, getattr(pattern, method))
        return getattr(pattern, name)
