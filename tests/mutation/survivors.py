"""The mutants that no test kills: how to recognize them in a later run, and the list of those that are accepted."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct

ACCEPTED_FILE: Final = Path(__file__).parent / "survivors.toml"


class Mutation(Struct, frozen=True):
    """A change of a function. The lines of the change are its key: mutmut's numbers shift with each edit.

    ``function`` has the class before it, if there is one: ``ProbeState.is_pending``. ``original`` and ``mutated`` are
    the lines that the mutation removes and adds, without indentation.
    """

    module: str
    function: str
    original: str
    mutated: str

    def as_diff(self) -> str:
        """Return the change for a person."""
        removed, added = (text.splitlines() for text in (self.original, self.mutated))
        lines = [*(f"  - {line}" for line in removed), *(f"  + {line}" for line in added)]
        return "\n".join([f"{self.module}.{self.function}", *lines])

    def as_toml(self) -> str:
        """Return the entry for the list of accepted survivors, without a reason."""
        lines = [f'module = "{self.module}"', f'function = "{self.function}"']
        lines += [
            f"{key} = {_toml_text(text)}" for key, text in (("original", self.original), ("mutated", self.mutated))
        ]
        return "\n".join(["[[survivors]]", *lines, 'reason = ""'])


class AcceptedSurvivor(Struct, frozen=True):
    """A mutation that tests need not notice, and why."""

    mutation: Mutation
    reason: str


def read_accepted(path: Path = ACCEPTED_FILE) -> tuple[AcceptedSurvivor, ...]:
    """Return the accepted survivors."""
    return tuple(
        AcceptedSurvivor(
            Mutation(entry["module"], entry["function"], entry["original"].strip(), entry["mutated"].strip()),
            entry["reason"],
        )
        for entry in tomllib.loads(path.read_text())["survivors"]
    )


def parse_mutation(module: str, name: str, diff: str) -> Mutation:
    """Return the mutation of a mutant from its name in mutmut and its unified diff."""
    return Mutation(module, function_of(module, name), *(_changed_lines(diff, sign) for sign in "-+"))


def function_of(module: str, name: str) -> str:
    """Return the function that a mutant changes: ``MODULE.xǁCLASSǁNAME__mutmut_N`` or ``MODULE.x_NAME__mutmut_N``."""
    mangled = name.removeprefix(f"{module}.")
    found = re.fullmatch(r"x(?:_|ǁ(?P<owner>.+)ǁ)(?P<name>.+)__mutmut_[0-9]+", mangled)
    if found is None:
        message = f"expected the name of a mutant of {module}, found {name!r}"
        raise ValueError(message)
    return f"{found['owner']}.{found['name']}" if found["owner"] else found["name"]


def _changed_lines(diff: str, sign: str) -> str:
    return "\n".join(join_lines(line[1:] for line in _body(diff) if line.startswith(sign)))


def _body(diff: str) -> list[str]:
    """Return the lines of a unified diff after its header."""
    lines = diff.splitlines()
    start = next((index for index, line in enumerate(lines) if line.startswith("@@")), len(lines))
    return lines[start + 1 :]


def join_lines(lines: Iterable[str]) -> list[str]:
    """Return lines without indentation, and without empty lines."""
    return [line.strip() for line in lines if line.strip()]


def _toml_text(text: str) -> str:
    quote = "'''" if "\n" in text or "'" in text else "'"
    return f"{quote}{text}{quote}"
