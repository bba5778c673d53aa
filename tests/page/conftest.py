"""A browser, and the machine whose page it shows: both are started once for all tests."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec import Struct

from genplug.observe.page import live
from genplug.testing.node.fake_node import FakeNode
from tests.page.machine import run_machine
from tests.support.browser import Browser, Tab, start_browser


class Machine(Struct, frozen=True):
    """A machine with an agent, and the address of its page."""

    node: FakeNode
    url: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Return a browser without tabs."""
    async with start_browser() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def machine() -> AsyncIterator[Machine]:
    """Return the machine of the pictures; its page follows the agent with short pauses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "MIN_SECONDS", 0.1)
        async with run_machine() as (node, agent):
            yield Machine(node, f"http://127.0.0.1:{agent.http_port}/")


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Browser) -> AsyncIterator[Tab]:
    """Return an empty tab of the size of a laptop."""
    async with browser.open_tab() as tab:
        await tab.set_screen(1280, 800)
        yield tab
