"""Every diagnostic is a text in ``golden/`` beside its configuration, so that it can be reviewed as prose.

After a change of words, run ``GENPLUG_UPDATE_GOLDEN=1 pytest tests/unit/config/test_diagnostic_texts.py`` and review
the difference of the texts.
"""

import re
from pathlib import Path

import pytest

from genplug.config.diagnostics import ConfigInvalidError, format_diagnostics
from genplug.config.load import load
from genplug.spec.diagnostic import ErrorCode, WarningCode
from tests.support.golden import check_golden

GOLDEN = Path(__file__).parent / "golden"
POLICIES = {
    "gp017-mounts.yaml": Path("policies", "mounts.yaml"),
    "gp017-node-access.yaml": Path("policies", "groups.yaml"),
    "gp019-policy.yaml": Path("policies", "narrow.yaml"),
    "gp019-programs-and-cdi.yaml": Path("policies", "narrow.yaml"),
    "gp022-serve-dra.yaml": Path("policies", "annotations.yaml"),
    "gp120-unsafe-policy.yaml": Path("policies", "unsafe.yaml"),
}
"""The policy of a configuration; the others are loaded under the default policy."""
CASES = sorted(path.name for path in GOLDEN.glob("*.yaml"))


@pytest.mark.parametrize("name", CASES)
def test_diagnostics_match_the_golden_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    try:
        diagnostics = load([Path(name)], policy=POLICIES.get(name)).config.warnings
    except ConfigInvalidError as error:
        diagnostics = error.diagnostics
    check_golden(Path(name).with_suffix(".txt"), format_diagnostics(diagnostics) + "\n")


@pytest.mark.parametrize("name", CASES)
def test_golden_text_is_named_after_its_code(name: str) -> None:
    text = (GOLDEN / name).with_suffix(".txt").read_text()
    code = name.partition("-")[0].upper()
    severity = "warning" if code in set(WarningCode) else "error"
    assert set(re.findall(r"^\S+: (\w+\[GP\d+])", text, re.MULTILINE)) == {f"{severity}[{code}]"}


# tests/unit/cli/test_inputs.py tests the errors of values files.
@pytest.mark.parametrize("code", sorted({*ErrorCode, *WarningCode} - {ErrorCode.CHART}))
def test_each_code_has_a_golden_text(code: ErrorCode | WarningCode) -> None:
    assert [name for name in CASES if name.startswith(code.value.lower())]


def test_golden_text_belongs_to_a_configuration() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == sorted(Path(name).stem for name in CASES)
