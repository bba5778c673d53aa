"""The files of the mutation tests name modules, tests, functions and lines that exist."""

import ast
import tomllib

import pytest

from tests.mutation.__main__ import check_exit_codes
from tests.mutation.survivors import AcceptedSurvivor, Mutation, function_of, join_lines, parse_mutation, read_accepted
from tests.mutation.workspace import MODULES_FILE, ROOT, module_path, rewrite_decorators

MODULES = tomllib.loads(MODULES_FILE.read_text())
ACCEPTED = read_accepted()
DIFF = """\
--- genplug/health/thresholds.py
+++ genplug/health/thresholds.py
@@ -1,3 +1,3 @@
 def is_pending(self) -> bool:
     \"\"\"Whether there is neither a first result nor an error.\"\"\"
-    return not self.is_known and not self.error
+    return not self.is_known or not self.error
"""


def read_function(module: str, name: str) -> str:
    """Return the source of a function or a method, as ``Class.method``."""
    source = (ROOT / module_path(module)).read_text()
    body = ast.parse(source).body
    for part in name.split("."):
        found = next(node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part)
        body = found.body
    return ast.get_source_segment(source, found) or ""


@pytest.mark.parametrize("module", MODULES["modules"])
def test_modules_and_their_tests_exist(module: str) -> None:
    assert (ROOT / module_path(module)).is_file()
    tests = MODULES["modules"][module]
    assert tests
    assert [path for path in (*tests, *MODULES["also-copied"].get(module, [])) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("survivor", ACCEPTED, ids=lambda survivor: survivor.mutation.function)
def test_accepted_survivor_changes_lines_of_its_function(survivor: AcceptedSurvivor) -> None:
    mutation = survivor.mutation
    assert mutation.module in MODULES["modules"]
    lines = join_lines(read_function(mutation.module, mutation.function).splitlines())
    assert [line for line in mutation.original.splitlines() if line not in lines] == []
    assert mutation.mutated != mutation.original
    assert survivor.reason


def test_no_survivor_is_accepted_twice() -> None:
    mutations = [survivor.mutation for survivor in ACCEPTED]
    assert len(mutations) == len(set(mutations))


def test_mutation_is_parsed_from_name_and_diff() -> None:
    module = "genplug.health.thresholds"
    mutation = parse_mutation(module, f"{module}.xǁProbeStateǁis_pending__mutmut_2", DIFF)
    assert mutation == Mutation(
        module,
        "ProbeState.is_pending",
        original="return not self.is_known and not self.error",
        mutated="return not self.is_known or not self.error",
    )
    assert function_of(module, f"{module}.x__after_error__mutmut_12") == "_after_error"
    entry = tomllib.loads(mutation.as_toml())["survivors"][0]
    assert Mutation(**{name: entry[name] for name in ("module", "function", "original", "mutated")}) == mutation


@pytest.mark.parametrize("code", [None, 2, 4, 255])
def test_mutant_whose_tests_did_not_run_is_an_error(code: int | None) -> None:
    check_exit_codes("genplug.spec.globs", {"a": 0, "b": 1, "c": -24, "d": 33})
    with pytest.raises(RuntimeError, match=f"found exit codes {{'c': {code}}}"):
        check_exit_codes("genplug.spec.globs", {"a": 0, "b": 1, "c": code})


def test_decorators_become_calls() -> None:
    source = (
        "class Device:\n"
        "    @property\n"
        "    def name(self) -> str:\n"
        "        return 'a'\n"
        "\n"
        "    @classmethod\n"
        "    def create(cls): ...\n"
        "\n"
        "@lru_cache(maxsize=8)\n"
        "def parse(text): ...\n"
    )
    assert rewrite_decorators(source) == (
        "class Device:\n"
        "    def name(self) -> str:\n"
        "        return 'a'\n"
        "    name = property(name)\n"
        "\n"
        "    @classmethod\n"
        "    def create(cls): ...\n"
        "\n"
        "def parse(text): ...\n"
        "parse = lru_cache(maxsize=8)(parse)\n"
    )
