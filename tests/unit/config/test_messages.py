"""Every message is a text in ``golden/``, to be reviewed as prose: the configuration, and beside it what is said to it.

After a change of words, ``GENPLUG_UPDATE_GOLDEN=1 pytest tests/unit/config/test_messages.py`` writes the texts; read
the difference before you commit it.
"""

import os
import re
from pathlib import Path

import pytest

from genplug.config.diagnostics import ConfigInvalidError, ErrorCode, format_diagnostics
from genplug.config.load import load

GOLDEN = Path(__file__).parent / "golden"
POLICIES = {
    "gp017-mounts.yaml": Path("policies", "mounts.yaml"),
    "gp019-policy.yaml": Path("policies", "narrow.yaml"),
    "gp019-programs-and-cdi.yaml": Path("policies", "narrow.yaml"),
}
"""The policy, for those that are not told about the default one."""
CASES = sorted(path.name for path in GOLDEN.glob("*.yaml"))


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_in_these_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    with pytest.raises(ConfigInvalidError) as caught:
        load([Path(name)], policy=POLICIES.get(name))
    said = format_diagnostics(caught.value.problems) + "\n"
    golden = Path(name).with_suffix(".txt")
    if os.environ.get("GENPLUG_UPDATE_GOLDEN"):
        golden.write_text(said)
    assert said == golden.read_text()


@pytest.mark.parametrize("name", CASES)
def test_a_text_is_named_after_the_code_that_it_shows(name: str) -> None:
    said = (GOLDEN / name).with_suffix(".txt").read_text()
    code = name.partition("-")[0].upper()
    assert set(re.findall(r"error\[(GP\d+)]", said)) == {code}


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_its_texts(code: ErrorCode) -> None:
    assert [name for name in CASES if name.startswith(code.value.lower())]


def test_no_text_is_left_behind() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == sorted(Path(name).stem for name in CASES)
