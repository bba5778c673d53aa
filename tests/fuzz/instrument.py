"""Imports targets so that atheris sees which code of genplug an input reaches."""

import contextlib
import io
from collections.abc import Iterable, Sequence

import atheris

from tests.fuzz.target import Target


def load_instrumented(names: Iterable[str] = ()) -> Sequence[Target]:
    """Return the targets with these names, or all targets; nothing of genplug must have been imported before.

    Raises:
        KeyError: one of the names is not that of a target.
    """
    # The hook remains, for modules that functions import later.
    atheris.instrument_imports(include=["genplug"]).__enter__()
    # atheris prints a line for each module.
    with contextlib.redirect_stderr(io.StringIO()):
        from tests.fuzz.targets import load_targets  # noqa: PLC0415 - see above

        return load_targets(names)
