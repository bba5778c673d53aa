"""Single errors of task groups, on every version of Python."""

import ast
from pathlib import Path

import pytest

import genplug
from genplug.error_groups import unwrap_error_group


def test_first_error_of_nested_groups_is_raised() -> None:
    group = ExceptionGroup("", [ExceptionGroup("", [OSError("first"), OSError("second")]), OSError("third")])
    with pytest.raises(OSError, match="first") as raised, unwrap_error_group(ValueError, OSError):
        raise group
    assert raised.value.__suppress_context__


def test_group_with_other_errors_is_raised_unchanged() -> None:
    group = ExceptionGroup("", [OSError("expected"), TypeError("a defect")])
    with pytest.raises(ExceptionGroup) as raised, unwrap_error_group(OSError):
        raise group
    assert raised.value is group


def test_single_error_is_raised_unchanged() -> None:
    with pytest.raises(OSError, match="alone"), unwrap_error_group(OSError):
        raise OSError("alone")


def test_no_error_is_raised_inside_except_star() -> None:
    # Python before 3.11.4 raises it in a group.
    package = Path(genplug.__file__).parent
    found = [
        f"{path.relative_to(package)}:{statement.lineno}"
        for path in package.rglob("*.py")
        for block in ast.walk(ast.parse(path.read_text()))
        if isinstance(block, ast.TryStar)
        for handler in block.handlers
        for statement in ast.walk(handler)
        if isinstance(statement, ast.Raise)
    ]
    assert not found
