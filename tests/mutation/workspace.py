"""The directory in which mutmut runs on a module: copies of the package and of the tests, and a configuration."""

import ast
import json
import shutil
from pathlib import Path
from typing import Final

from tests.mutation.profile import STATISTICS

ROOT: Final = Path(__file__).parent.parent.parent
MODULES_FILE: Final = Path(__file__).parent / "modules.toml"

PACKAGE: Final = "genplug"
DATA: Final = ("schemas",)
"""Files that tests read by way of the package."""
TESTS: Final = ("tests/__init__.py", "tests/conftest.py", "tests/mutation", "tests/support", "tests/unit")

REWRITTEN_DECORATORS: Final = {
    "cache",
    "cached_property",
    "contextmanager",
    "default",
    "lru_cache",
    "property",
    "validator",
}
"""Decorators that :func:`rewrite_decorators` replaces by a call."""


def create_workspace(directory: Path, module: str, tests: list[str], also_copied: list[str]) -> None:
    """Write what mutmut needs to mutate a module into a new directory."""
    shutil.rmtree(directory, ignore_errors=True)
    for name in (PACKAGE, *DATA, *TESTS, *also_copied):
        _copy(name, directory)
    _rewrite_module(directory, module)
    project = (ROOT / "pyproject.toml").read_text()
    (directory / "pyproject.toml").write_text(project + _configuration(module, tests, also_copied))


def update_workspace(directory: Path, module: str) -> None:
    """Copy the package and the tests again into the directory of an earlier run.

    mutmut keeps the results of functions of the module that have not changed.
    """
    for name in (PACKAGE, *DATA, *TESTS):
        _copy(name, directory)
    _rewrite_module(directory, module)
    # It lists the functions that each test executes. mutmut updates it for new tests, but not for changed tests.
    (directory / "mutants" / STATISTICS).unlink(missing_ok=True)


def _rewrite_module(directory: Path, module: str) -> None:
    path = directory / module_path(module)
    path.write_text(rewrite_decorators(path.read_text()))


def _copy(name: str, directory: Path) -> None:
    source, target = ROOT / name, directory / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def module_path(module: str) -> str:
    """Return the path of a module, relative to the root of the repository."""
    return f"{module.replace('.', '/')}.py"


def _configuration(module: str, tests: list[str], also_copied: list[str]) -> str:
    """Return the table for mutmut that is appended to pyproject.toml."""
    values = {
        "source_paths": ["genplug"],
        "only_mutate": [module_path(module)],
        "also_copy": [*DATA, *also_copied],
        "pytest_add_cli_args": [
            "-p",
            "tests.mutation.profile",
            "--hypothesis-profile=mutation",
            "-p",
            "no:cacheprovider",
            # mutmut collects the tests twice in a process, and pytest escapes the IDs of parameters again each time.
            "-o",
            "disable_test_id_escaping_and_forfeit_all_rights_to_community_support=true",
            # These tests count executed lines, and a module with mutants executes others.
            "-k",
            "not test_work_of_",
        ],
        "pytest_add_cli_args_test_selection": tests,
        # A process that has run no test yet: the caches of a process that ran the tests hide mutants.
        "process_isolation": "forkserver",
        # The limit for a mutant in seconds: the duration of its tests and one second, ten times.
        "timeout_multiplier": 10,
        "use_git_change_detection": False,
        "use_setproctitle": False,
    }
    lines = (f"{key} = {json.dumps(value)}" for key, value in values.items())
    return "\n[tool.mutmut]\n" + "\n".join(lines) + "\n"


def rewrite_decorators(source: str) -> str:
    """Return the source with ``@decorator`` before a function replaced by a call of the decorator after it.

    mutmut mutates undecorated functions only, and most properties decide something.
    """
    lines = source.splitlines()
    # From the end, so that line numbers are valid until they are used.
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for function in sorted(functions, key=lambda function: -function.lineno):
        if len(function.decorator_list) != 1 or function.end_lineno is None:
            continue
        decorator = function.decorator_list[0]
        if _last_name(decorator) not in REWRITTEN_DECORATORS or decorator.end_lineno is None:
            continue
        indent = " " * function.col_offset
        call = f"{indent}{function.name} = {ast.unparse(decorator)}({function.name})"
        lines.insert(function.end_lineno, call)
        del lines[decorator.lineno - 1 : decorator.end_lineno]
    return "\n".join(lines) + "\n"


def _last_name(decorator: ast.expr) -> str:
    expression = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""
