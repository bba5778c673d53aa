"""``python -m tests.mutation [MODULE...]``: mutate modules, run their tests, report the mutants that no test kills."""

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from msgspec import Struct

from genplug import __version__
from genplug.cli.output import format_table
from tests.mutation.survivors import ACCEPTED_FILE, Mutation, parse_mutation, read_accepted
from tests.mutation.workspace import MODULES_FILE, ROOT, create_workspace, module_path, update_workspace

WORK_DIRECTORY: Final = ROOT / "build/mutation"
COLUMNS: Final = ("Module", "Mutants", "Killed", "Timed out", "Survivors, explained", "Score")
TOTAL: Final = "all modules"

KILLED: Final = {1, 3}
"""Exit codes of pytest if a test or pytest itself failed."""
TIMED_OUT: Final = {-24, 24, 36, 152}
"""mutmut's codes of a mutant that exceeded its time: SIGXCPU in several forms.

mutmut also takes 255 for one of them, but returns 255 if it could not run the tests of a mutant.
"""
PRINT_DIFFS: Final = """
import json, sys
from mutmut.mutation.diff_apply import get_diff_for_mutant
print(json.dumps({name: get_diff_for_mutant(name, path=sys.argv[1]) for name in sys.argv[2:]}))
"""
SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
"""The first characters of lines in which mutmut shows its progress."""
SURVIVED: Final = {0, 5, 33}
"""Exit codes if all tests passed, and mutmut's code of a mutant in a function that no test executes."""


class ModuleResult(Struct, frozen=True):
    """The result of the mutants of a module."""

    module: str
    mutants: int
    killed: int
    timed_out: int
    survivors: tuple[Mutation, ...]

    def as_row(self) -> list[str]:
        """Return the cells of the table."""
        return make_row(self.module, self.mutants, self.killed, self.timed_out, len(self.survivors))


def main() -> int:
    """Return 1 if a mutant survives that is not accepted, or an accepted survivor is killed."""
    modules = tomllib.loads(MODULES_FILE.read_text())
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="default: all")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the figures to FILE, as JSON")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="test N mutants at a time (default: 1)")
    parser.add_argument(
        "--continue",
        dest="is_continued",
        action="store_true",
        help="keep the results of the previous run, except those of changed functions and of survivors",
    )
    arguments = parser.parse_args()
    if unknown := [module for module in arguments.modules if module not in modules["modules"]]:
        parser.error(f"expected modules of {MODULES_FILE.relative_to(ROOT)}, found {', '.join(unknown)}")
    results = []
    for module in arguments.modules or modules["modules"]:
        if arguments.is_continued:
            continue_module(module, arguments.jobs)
        else:
            mutate_module(module, modules["modules"][module], modules["also-copied"].get(module, []), arguments.jobs)
        result = read_result(module)
        print(f"{module}: {result.mutants} mutants, {len(result.survivors)} survivors", flush=True)
        results.append(result)
    print(format_table([column.upper() for column in COLUMNS], [*(result.as_row() for result in results)]))
    if arguments.record:
        update_record(arguments.record, results, modules["modules"])
    return report_differences(results)


def mutate_module(module: str, tests: list[str], also_copied: list[str], jobs: int) -> None:
    """Run mutmut on a module in ``build/mutation/MODULE``."""
    directory = WORK_DIRECTORY / module
    create_workspace(directory, module, tests, also_copied)
    _run_mutmut(directory, "run", "--max-children", str(jobs))


def continue_module(module: str, jobs: int) -> None:
    """Run the current tests on the mutants of changed functions, and on those that survived the previous run."""
    directory = WORK_DIRECTORY / module
    update_workspace(directory, module)
    _run_mutmut(directory, "run", "--max-children", str(jobs))
    survivors = [name for name, code in _read_exit_codes(module).items() if code in SURVIVED]
    if survivors:
        _run_mutmut(directory, "run", "--max-children", str(jobs), *survivors)


def read_result(module: str) -> ModuleResult:
    """Return the result of the last run; raise RuntimeError if a mutant could not be tested."""
    codes = _read_exit_codes(module)
    check_exit_codes(module, codes)
    survivors = tuple(
        parse_mutation(module, name, diff)
        for name, diff in _read_diffs(module, [name for name, code in codes.items() if code in SURVIVED]).items()
    )
    killed, timed_out = (sum(code in group for code in codes.values()) for group in (KILLED, TIMED_OUT))
    return ModuleResult(module, len(codes), killed, timed_out, survivors)


def check_exit_codes(module: str, codes: Mapping[str, int | None]) -> None:
    """Raise RuntimeError if a mutant could not be tested."""
    unknown = {name: code for name, code in codes.items() if code not in KILLED | TIMED_OUT | SURVIVED}
    if unknown:
        message = f"{module}: expected mutants that are killed, time out or survive, found exit codes {unknown}"
        raise RuntimeError(message)


def _read_exit_codes(module: str) -> Mapping[str, int | None]:
    meta = json.loads((WORK_DIRECTORY / module / f"mutants/{module_path(module)}.meta").read_text())
    codes: dict[str, int | None] = meta["exit_code_by_key"]
    return codes


def _read_diffs(module: str, mutants: Iterable[str]) -> Mapping[str, str]:
    """Return the unified diff of each mutant, as ``mutmut show`` prints it; a process for each takes a second."""
    arguments = (sys.executable, "-c", PRINT_DIFFS, module_path(module), *mutants)
    diffs: dict[str, str] = json.loads(_run(WORK_DIRECTORY / module, *arguments))
    return diffs


def _run_mutmut(directory: Path, *arguments: str) -> None:
    _run(directory, str(Path(sys.executable).with_name("mutmut")), *arguments)


def _run(directory: Path, *command: str) -> str:
    # mutmut imports the mutated package from the current directory; a path from outside would hide it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode:
        lines = (finished.stdout + finished.stderr).splitlines()
        output = "\n".join(line for line in lines if line and line[0] not in SPINNER)
        message = f"{' '.join(command)} in {directory} failed with exit code {finished.returncode}:\n{output}"
        raise RuntimeError(message)
    return finished.stdout


def report_differences(results: Iterable[ModuleResult]) -> int:
    """Print the survivors that are not accepted, and the accepted survivors that are killed; return the exit code."""
    finished = list(results)
    modules = {result.module for result in finished}
    found = Counter(mutation for result in finished for mutation in result.survivors)
    accepted = {survivor.mutation for survivor in read_accepted() if survivor.mutation.module in modules}
    missing, stale = [mutation for mutation in found if mutation not in accepted], accepted - found.keys()
    name = ACCEPTED_FILE.relative_to(ROOT)
    if missing:
        entries = WORK_DIRECTORY / "survivors.toml"
        entries.write_text("\n\n".join(mutation.as_toml() for mutation in missing) + "\n")
        print(f"\n{len(missing)} mutations are not detected:\n")
        print("\n\n".join(mutation.as_diff() for mutation in missing))
        print(
            f"\nWrite tests that detect them, or copy entries from {entries.relative_to(ROOT)} to {name} with a reason."
        )
    if stale:
        print(f"\n{len(stale)} entries of {name} are not survivors of this run; remove them:\n")
        print("\n\n".join(mutation.as_diff() for mutation in stale))
    return int(bool(missing or stale))


def update_record(path: Path, results: Iterable[ModuleResult], order: Iterable[str]) -> None:
    """Write the figures with the conditions of the run; rows of other modules are kept."""
    previous = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {row[0]: row for row in previous} | {result.module: result.as_row() for result in results}
    kept = [rows[module] for module in order if module in rows]
    totals = (sum(int(row[column].replace(" ", "")) for row in kept) for column in range(1, 5))
    record = {
        "conditions": {
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "genplug": __version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cores": len(os.sched_getaffinity(0)),
            "mutmut": version("mutmut"),
        },
        "columns": COLUMNS,
        "rows": [*kept, make_row(TOTAL, *totals)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def make_row(module: str, mutants: int, killed: int, timed_out: int, survivors: int) -> list[str]:
    score = 100 * (killed + timed_out) / mutants if mutants else 100.0
    counts = (f"{count:,}".replace(",", " ") for count in (mutants, killed, timed_out, survivors))
    return [module, *counts, f"{score:.1f} %"]


if __name__ == "__main__":
    sys.exit(main())
