"""Configure Sphinx: ``sphinx-build -W -n -b html docs build/docs`` builds the documentation without network access."""
# ruff: noqa: INP001 - Sphinx executes this file; it is not part of a package

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

from genplug import __version__

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent
REPOSITORY_URL = "https://github.com/genplug/genplug/blob/main"

project = "genplug"
author = "The genplug authors"
release = version = __version__
project_copyright = f"2026, {author}"

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
nitpicky = True

# Heading anchors are those of GitHub, so that a link works in both renderings. MyST checks each of them.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

html_theme = "furo"
html_title = f"genplug {release}"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False

_LINK = re.compile(r"(?<=\]\()(?P<path>\.\./[^()\s#]*)(?P<anchor>#[^()\s]*)?(?=\))")
_LOGGER = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    """Register the transformation of links."""
    app.connect("source-read", _link_to_repository)


def _link_to_repository(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace relative links to files outside ``docs/`` by links to the public repository.

    Relative links work where the pages are read as plain files. Warn about a link whose target does not exist.
    """
    directory = (DOCS / docname).parent

    def replace(match: re.Match[str]) -> str:
        target = (directory / match["path"]).resolve()
        if target.is_relative_to(DOCS) or not target.is_relative_to(REPOSITORY):
            return match[0]
        if not target.exists():
            _LOGGER.warning("link to a missing file: %s", match["path"], location=docname)
        return f"{REPOSITORY_URL}/{target.relative_to(REPOSITORY)}{match['anchor'] or ''}"

    source[0] = _LINK.sub(replace, source[0])
