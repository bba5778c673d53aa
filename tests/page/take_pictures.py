"""Writes the pictures of the status page and the report on its accessibility into ``docs``.

Run ``python -m tests.page.take_pictures`` after a change of the page; it needs what ``.ci/tools`` installs.
"""

import asyncio
import time
from typing import Any

from msgspec import Struct

from genplug.agent import Agent
from genplug.observe.health_history import MINUTES, HealthEntry
from tests.page.machine import run_machine
from tests.support.browser import Tab, start_browser
from tests.support.pages import ROOT

IMAGES = ROOT / "docs" / "images"
REPORT = ROOT / "docs" / "reference" / "page-accessibility.md"
MAX_BYTES = 150_000
"""Bytes of a picture: a clone of the repository has all of its versions."""
_ALL = (1 << MINUTES) - 1


class View(Struct, frozen=True):
    """A picture: the part of the page that a screen of a size shows, with the pixels of the screen per CSS pixel."""

    name: str
    description: str
    scheme: str
    width: int
    height: int
    scale: float = 1.0
    target: str = "body"


VIEWS = (
    View("page-light", "1280 pixels wide, light", "light", 1280, 1060),
    View("page-dark", "1280 pixels wide, dark", "dark", 1280, 730, target="section[aria-label$=gpu]"),
    View("page-phone", "390 pixels wide (a phone), dark", "dark", 390, 844, 1.5),
    View("page-phone-light", "390 pixels wide (a phone), light", "light", 390, 844, 1.5),
)
PICTURES = VIEWS[:3]


def fill_history(agent: Agent) -> None:
    """Replace the last minutes by an hour, so that a picture does not take an hour."""
    now = time.monotonic()
    history = agent._kubelet.health_history  # noqa: SLF001 - the script runs for seconds
    for resource in agent.status.resources:
        for number, device in enumerate(resource.devices):
            lost = 0
            if not device.healthy:
                lost = (1 << 7) - 1
            elif number % 5 == 2:
                lost = 0b111 << 31
            entry = HealthEntry(_ALL & ~(lost >> 1), lost, int(now // 60), device.healthy, now)
            history._entries[resource.name, device.id] = entry  # noqa: SLF001 - as above


async def show(tab: Tab, url: str, view: View) -> None:
    """Load the page as a view."""
    await tab.set_media(prefers_color_scheme=view.scheme)
    await tab.set_screen(view.width, view.height, scale=view.scale, is_mobile=view.width < 1000)
    await tab.load(url)
    await tab.wait_until("document.getElementById('connection').textContent.startsWith('Live')")
    # Show the usual directory instead of the temporary directory.
    await tab.run(
        """for (const walker = document.createTreeWalker(document.body); walker.nextNode();) {
          const node = walker.currentNode;
          if (node instanceof Text) node.data = node.data.replace(/\\/tmp\\/gp\\w+\\/c\\//g, '/etc/genplug/')
            .replace(/\\/tmp\\/gp\\w+\\//g, '/etc/genplug/');
        }"""
    )
    await tab.run(f"document.querySelector('{view.target}').scrollIntoView({{behavior: 'instant'}})")


def describe_result(view: View, result: dict[str, Any]) -> list[str]:
    """Return the lines of the report for a view."""
    counts = ", ".join(f"{len(result[kind])} {kind}" for kind in ("violations", "passes", "incomplete"))
    lines = [f"## View: {view.description}", "", f"Rules: {counts}.", ""]
    lines += [f"- Violation of `{rule['id']}`: {rule['help']}" for rule in result["violations"]]
    for rule in result["incomplete"]:
        nodes = len(rule["nodes"])
        lines += [f"- Incomplete, for a check by eye: `{rule['id']}` for {nodes} elements.", f"  {explain(rule)}"]
    passed = ", ".join(f"`{rule['id']}`" for rule in result["passes"])
    lines.append(f"- Passed: {passed}.")
    return [*lines, ""]


def explain(rule: dict[str, Any]) -> str:
    """Return the first sentence of axe-core about the first element of an incomplete rule."""
    checks = [check for kind in ("any", "all", "none") for check in rule["nodes"][0][kind]]
    return str(checks[0]["message"]).rstrip(".") + "."


async def main() -> None:
    """Write all files."""
    IMAGES.mkdir(exist_ok=True)
    lines = []
    async with run_machine() as (_, agent), start_browser() as browser:
        fill_history(agent)
        url = f"http://127.0.0.1:{agent.http_port}/"
        version = (await browser.send("Browser.getVersion"))["product"].partition("/")[2].partition(".")[0]
        for view in VIEWS:
            async with browser.open_tab() as tab:
                await show(tab, url, view)
                if view in PICTURES:
                    picture = await tab.take_picture()
                    (IMAGES / f"{view.name}.png").write_bytes(picture)
                    print(f"{view.name}: {len(picture)} bytes")
                result = await tab.check_accessibility()
                lines += describe_result(view, result)
    engine = result["testEngine"]
    head = [
        "# Accessibility of the status page",
        "",
        "`python -m tests.page.take_pictures` writes this report; the tests in `tests/page` fail at a violation.",
        f"It is the result of {engine['name']} {engine['version']} with all of its rules, in Chromium {version}.",
        "The page is the [status page](../how-to/status-page.md) of a node with faults and pods.",
        "",
    ]
    REPORT.write_text("\n".join([*head, *lines]).rstrip() + "\n")


if __name__ == "__main__":
    asyncio.run(main())
