"""The HTML document of the status page, with its style sheet, its script and its security headers."""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from msgspec import Struct

from genplug.observe.page.content import Clock, Entries, build_sections, build_title
from genplug.observe.page.elements import build_element, render_html
from genplug.observe.status import Status

_RELOAD_HINT = "The script of this page does not run, so the page does not change by itself. Reload it for newer facts."


class PageCode(Struct, frozen=True):
    """The style sheet and the script, their policy, and a checksum of both."""

    style: str
    script: str
    policy: str
    checksum: str


@cache
def read_code() -> PageCode:
    """Return the style sheet and the script, which are read from the package once."""
    directory = files(__package__)
    style, script = ((directory / name).read_text() for name in ("page.css", "page.js"))
    # Without any other source, markup that a name could inject would neither run nor load anything (CSP level 3).
    policy = (
        f"default-src 'none'; script-src '{_hash_source(script)}'; style-src '{_hash_source(style)}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return PageCode(style, script, policy, hashlib.sha256(f"{style}\0{script}".encode()).hexdigest()[:16])


def build_headers() -> Mapping[str, str]:
    """Return the headers of the page that restrict what a browser does with it."""
    return {
        "Content-Security-Policy": read_code().policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
    }


def render_page(status: Status, entries: Entries, clock: Clock) -> str:
    """Return the HTML document of a status."""
    code = read_code()
    title = render_html(build_element("title", build_title(status)))
    sections = "".join(render_html(section) for _, section in build_sections(status, entries, clock))
    return (
        f'<!doctype html>\n<html lang="en" data-page="{code.checksum}"><head><meta charset="utf-8">{title}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{code.style}</style></head><body>'
        f'<header><p id="connection" role="status"></p><p id="news" role="status"></p>'
        f"<noscript><p>{_RELOAD_HINT}</p></noscript></header><main>{sections}</main>"
        '<footer><p>The page is read-only. The same facts: <a href="statusz">/statusz</a>, '
        '<a href="metrics">/metrics</a>, <a href="readyz?verbose">/readyz?verbose</a>.</p></footer>'
        f"<script>{code.script}</script></body></html>\n"
    )


def _hash_source(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
