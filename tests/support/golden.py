"""Texts that commands and endpoints print, as files that reviewers read.

After an intended change, run the tests with ``GENPLUG_UPDATE_GOLDEN=1`` and review the difference of the files.
"""

import os
from pathlib import Path


def check_golden(path: Path, printed: str) -> None:
    """Assert that a printed text is the content of a file."""
    if os.environ.get("GENPLUG_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(printed)
    assert printed == path.read_text()
