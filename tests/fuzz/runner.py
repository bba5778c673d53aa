"""Runs targets with atheris, each in a process of its own, and keeps inputs, findings and statistics in a directory."""

import mmap
import os
import random
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import atheris
from msgspec import Struct

from tests.fuzz.inputs import name_input, read_corpus, read_findings
from tests.fuzz.state import State, Statistics
from tests.fuzz.target import Failure, Target, try_input

_WALL_SECONDS = 120
"""Seconds after which libFuzzer ends a process whose input still runs; processor time decides what counts as a hang."""
_MEMORY_MIB = 1500
_PROGRESS = re.compile(r"^#\d+\t.*?cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)


class Limits(Struct, frozen=True):
    """When a run ends: after a number of inputs, or after a time; ``seed`` makes two runs equal, 0 is a random seed."""

    inputs: int | None = None
    seconds: float | None = None
    seed: int = 0


def fuzz(target: Target, state: State, limits: Limits) -> Statistics:
    """Run a target in a child process, and return the statistics of the run."""
    seeds = state.directory("seeds", target)
    shutil.rmtree(seeds)
    seeds.mkdir()
    for content in (*target.seeds(), *read_corpus(target).values(), *read_findings(target).values()):
        (seeds / name_input(content)).write_bytes(content)
    log = state.path / f"{target.name}.log"
    counter = mmap.mmap(-1, mmap.PAGESIZE)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run_child(target, state, _build_options(target, state, limits), log, counter)
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - started
    shutil.rmtree(state.directory("scratch", target))
    _add_crash(target, state, status, log)
    progress = _PROGRESS.findall(log.read_text(errors="replace"))
    edges, features, _ = map(int, progress[-1]) if progress else (0, 0, 0)
    run = Statistics(
        int.from_bytes(counter[:8], "little"), round(seconds, 1), edges, features, f"{datetime.now(UTC):%Y-%m-%d}"
    )
    state.add(target, run)
    return run


def minimize(target: Target, state: State) -> list[bytes]:
    """Return the smallest inputs that together reach what all inputs in the directory of a target reach."""
    merged = state.path / "merged" / target.name
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    seeds = state.directory("seeds", target)
    for content in (*target.seeds(), *read_findings(target).values()):
        (seeds / name_input(content)).write_bytes(content)
    options = ["-merge=1", f"-max_len={target.max_bytes}", f"-rss_limit_mb={_MEMORY_MIB}", f"-timeout={_WALL_SECONDS}"]
    # libFuzzer starts the program again with other options, and knows its path only.
    program = state.path / f"{target.name}.sh"
    command = (sys.executable, "-m", "tests.fuzz.single", str(program), target.name)
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    program.chmod(0o755)
    # The seeds come first: what they reach needs no further input.
    directories = (merged, seeds, state.directory("corpus", target))
    with (state.path / f"{target.name}.merge.log").open("wb") as log:
        subprocess.run((program, *options, *directories), check=True, stdout=log, stderr=log)
    own = {path.read_bytes() for path in seeds.iterdir()}
    return sorted({path.read_bytes() for path in merged.iterdir()} - own, key=len)


def _build_options(target: Target, state: State, limits: Limits) -> list[str]:
    artifacts = state.directory("crashes", target)
    options = [
        f"-artifact_prefix={artifacts}/",
        f"-max_len={target.max_bytes}",
        f"-rss_limit_mb={_MEMORY_MIB}",
        f"-timeout={_WALL_SECONDS}",
        f"-seed={limits.seed}",
        "-len_control=20",
    ]
    if limits.inputs is not None:
        options.append(f"-runs={limits.inputs}")
    if limits.seconds is not None:
        options.append(f"-max_total_time={max(int(limits.seconds), 1)}")
    if target.words:
        path = state.path / f"{target.name}.dict"
        path.write_text("".join(f'"{_escape_word(word)}"\n' for word in target.words))
        options.append(f"-dict={path}")
    return [*options, str(state.directory("corpus", target)), str(state.directory("seeds", target))]


def _escape_word(word: str) -> str:
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\x{byte:02x}"
        for byte in word.encode("utf-8", "surrogateescape")
    )


def _run_child(target: Target, state: State, options: Iterable[str], log: Path, counter: mmap.mmap) -> NoReturn:
    """Fuzz until libFuzzer ends this process."""
    scratch = state.directory("scratch", target)
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        tempfile.tempdir = str(scratch)
        # Not in the parent: a target can start threads.
        state.recheck_findings(target)
        number = 0

        def run(content: bytes) -> None:
            nonlocal number
            number += 1
            counter[:8] = number.to_bytes(8, "little")
            if (failure := try_input(target, content)) is not None:
                state.add_finding(target, content, failure)

        def mutate(content: bytes, max_size: int, seed: int) -> bytes:
            source = random.Random(seed)
            changed = None
            if target.mutate is not None and source.random() < 0.5:
                try:
                    changed = target.mutate(content, source)
                except Exception:  # noqa: BLE001 - an error of a mutator is in the log, and does not end the run
                    traceback.print_exc()
            if changed is None or len(changed) > max_size:
                return bytes(atheris.Mutate(content, max_size))
            return changed

        arguments = [sys.argv[0], *options]
        if target.mutate is None:
            atheris.Setup(arguments, run)
        else:
            atheris.Setup(arguments, run, custom_mutator=mutate)
        atheris.Fuzz()
    finally:
        # The child must never return into the code of the parent.
        os._exit(70)


def _add_crash(target: Target, state: State, status: int, log: Path) -> None:
    """Add a finding if the process did not end regularly: libFuzzer has written its last input."""
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return
    end = log.read_text(errors="replace")[-4000:]
    crashes = sorted(state.directory("crashes", target).iterdir())
    summary = f"the process ended with {code}: a crash, more than {_MEMORY_MIB} MiB, or no end within {_WALL_SECONDS} s"
    for crash in crashes:
        kind = crash.name.partition("-")[0]
        state.add_finding(target, crash.read_bytes(), Failure(f"{kind}: {summary}", f"{kind} {crash.name}", end))
        crash.unlink()
    if not crashes:
        state.add_finding(target, b"", Failure(f"{summary}; no input was written", f"end {code}", end))
