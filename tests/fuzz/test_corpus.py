"""The inputs of the fuzzing targets as tests: only documented errors, and no hang; needs no fuzzer."""

import pytest

from tests.fuzz.inputs import CORPUS, FINDINGS, all_inputs
from tests.fuzz.target import Target, try_input
from tests.fuzz.targets import load_targets

TARGETS = load_targets()
MAX_CORPUS_BYTES = 320 << 10


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_target_reads_every_kept_input(target: Target) -> None:
    inputs = all_inputs(target)
    assert inputs
    for content in inputs:
        failure = try_input(target, content)
        assert failure is None, f"{content[:200]!r}: {failure}"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_seed_is_shorter_than_the_limit_of_the_target(target: Target) -> None:
    for content in target.seeds():
        assert len(content) <= target.max_bytes, content[:200]


def test_kept_inputs_belong_to_targets_and_are_small() -> None:
    names = {target.name for target in TARGETS}
    assert {path.stem for path in CORPUS.iterdir()} <= names
    assert {path.name for path in FINDINGS.iterdir()} <= names
    assert sum(path.stat().st_size for path in (*CORPUS.iterdir(), *FINDINGS.rglob("*"))) <= MAX_CORPUS_BYTES
