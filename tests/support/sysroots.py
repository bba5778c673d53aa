"""File trees of real machines, captured as archives in ``tests/sysroots``."""

import tarfile
from pathlib import Path

SYSROOTS = Path(__file__).parents[1] / "sysroots"


def extract_sysroot(name: str, root: Path) -> None:
    """Extract a machine's file tree, absolute symlinks included, into ``root``."""
    with tarfile.open(SYSROOTS / f"{name}.tar.gz") as archive:
        # Python 3.14 rejects absolute symlinks by default; Python before 3.11.4 has no filters.
        archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        archive.extractall(root)
