"""Imports of libraries without the parts that genplug does not use, which cost time at a start and memory afterwards.

Each context manager changes what import statements do inside its context, and nothing after it: a later import of the
same modules works as usual. Use them in the main thread before other threads start.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import Any

_BUILTIN_DIGESTS = ("_blake2", "_md5", "_sha1", "_sha256" if sys.version_info < (3, 12) else "_sha2")
_compile = re.compile
_CO_OPTIMIZED = 1
"""The flag of the code of functions; the module ``inspect``, which has it too, takes 5 ms to import."""


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
    from importlib.util import find_spec  # noqa: PLC0415 - probe workers do not need it

    if all(map(find_spec, _BUILTIN_DIGESTS)):
        with hide_modules("_hashlib"):
            yield
    else:
        yield


@contextmanager
def use_builtin_datetime() -> Iterator[None]:
    """Make import statements of ``datetime`` return its implementation in C.

    Before Python 3.12, the module first makes all of its classes in Python, which needs 0.5 MiB of memory. A Python
    without the implementation in C imports the module as usual.
    """
    builtin = None
    if "datetime" not in sys.modules:
        with suppress(ImportError):
            builtin = sys.modules["datetime"] = import_module("_datetime")
    try:
        yield
    finally:
        if builtin is not None:
            del sys.modules["datetime"]


@contextmanager
def replace_modules(*names: str) -> Iterator[None]:
    """Replace modules that are not imported yet by modules in which each name is an empty class.

    A package keeps its modules, but does not run itself; its parent has to be imported before. The replacements are
    removed at the end; the modules of packages that were imported in the context remain.
    """
    replaced = [name for name in names if name not in sys.modules]
    for name in replaced:
        parent, _, last = name.rpartition(".")
        module = sys.modules[name] = _Replacement(name)
        locations = getattr(sys.modules.get(parent), "__path__", ())
        module.__path__ = [os.path.join(location, last) for location in locations]  # noqa: PTH118 - without pathlib
    try:
        yield
    finally:
        for name in replaced:
            del sys.modules[name]


class _Replacement(ModuleType):
    """A module in which each name is an empty class, which other classes can have as a base."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the attributes of a module
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextmanager
def postpone_patterns() -> Iterator[None]:
    """Make :func:`re.compile` return patterns that are compiled when they are used first, to imported modules.

    Modules compile dozens of patterns when they are imported, and a process uses few of them. A function that calls
    :func:`re.compile` gets a compiled pattern, or the error of an invalid one.
    """
    previous = re.compile
    re.compile = _compile_later
    try:
        yield
    finally:
        re.compile = previous


def _compile_later(*arguments: Any, **flags: Any) -> Any:  # noqa: ANN401 - the types of re.compile
    # Unlike a function, the body of a module or of a class has no variables at fixed places.
    is_function = sys._getframe(1).f_code.co_flags & _CO_OPTIMIZED  # noqa: SLF001 - as in logging and warnings
    return (_compile if is_function else _PostponedPattern)(*arguments, **flags)


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
