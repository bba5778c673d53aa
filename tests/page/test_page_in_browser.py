"""The status page in Chromium: live updates, accessibility, small screens, and the Content-Security-Policy."""

import asyncio
import contextlib
import json
import re
from collections import Counter

import pytest

from genplug.observe.page.live import MAX_PAGES
from genplug.testing.node.fake_node import FakeNode
from tests.page.conftest import Machine
from tests.page.machine import GPU, SERIAL
from tests.support.browser import TIMEOUT_SECONDS, Browser, BrowserError, Tab

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

MAX_COMPARISONS = 5
CONNECTION = "document.getElementById('connection').textContent"
IS_LIVE = f"{CONNECTION}.startsWith('Live')"
NEWS = "document.getElementById('news').textContent"
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


async def load_page(tab: Tab, machine: Machine) -> None:
    """Load the page and wait until it is live."""
    await tab.load(machine.url)
    await tab.wait_until(IS_LIVE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_page_has_no_accessibility_violation(tab: Tab, machine: Machine, scheme: str, width: int) -> None:
    await tab.set_screen(width, 844, is_mobile=width < 1000)
    await tab.set_media(prefers_color_scheme=scheme)
    await load_page(tab, machine)
    result = await tab.check_accessibility()
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in result["violations"]] == []
    assert "color-contrast" in {rule["id"] for rule in result["passes"]}


async def test_page_loads_nothing_else_and_logs_no_error(tab: Tab, machine: Machine) -> None:
    await load_page(tab, machine)
    assert tab.messages == []
    assert tab.requests == [machine.url, f"{machine.url}events"]
    assert await tab.run("document.querySelectorAll('[style]').length") == 0


async def test_page_shows_a_change_without_a_reload_and_announces_it(tab: Tab, machine: Machine) -> None:
    await load_page(tab, machine)
    assert await tab.run("document.getElementById('news').getAttribute('role')") == "status"
    await tab.run("window.isSamePage = true")
    cell = "[...document.querySelectorAll('th[scope=row]')].find((cell) => cell.textContent.startsWith('ttyusb1-'))"
    await tab.run(f"window.row = {cell}.parentElement")
    assert "✓healthy" in await tab.run("row.textContent")
    machine.node.unplug("/dev/ttyUSB1")
    await tab.wait_until("row.textContent.includes('/dev/ttyUSB1 is gone')")
    assert f"{SERIAL}: 2 healthy, 2 unhealthy" in await tab.run(NEWS)
    assert "✗unhealthy" in await tab.run("row.textContent")
    machine.node.plug("/dev/ttyUSB1", major=188, minor=1)
    await tab.wait_until("row.textContent.includes('✓healthy')")
    assert await tab.run("window.isSamePage && row.isConnected")
    assert tab.messages == []


async def test_page_that_the_script_updated_equals_the_page_of_the_server(tab: Tab, machine: Machine) -> None:
    # The history moves with time, so that a page of the next second can differ.
    pages = [await compare_pages(tab, machine)]
    while pages[-1][0] != pages[-1][1] and len(pages) < MAX_COMPARISONS:
        pages.append(await compare_pages(tab, machine))
    assert pages[-1][0] == pages[-1][1]


async def compare_pages(tab: Tab, machine: Machine) -> tuple[str, str]:
    """Return the section of a resource, updated by the script, and as the server sends it after that."""
    await load_page(tab, machine)
    # Each element is created again by the script.
    await tab.run("document.querySelector('main').replaceChildren()")
    machine.node.unplug("/dev/ttyUSB2")
    await tab.wait_until("document.querySelector('main').textContent.includes('/dev/ttyUSB2 is gone')")
    machine.node.plug("/dev/ttyUSB2", major=188, minor=2)
    section = "document.querySelector('section[aria-label$=serial]').outerHTML"
    await tab.wait_until(f"!{section}.includes('/dev/ttyUSB2 is gone')")
    updated = str(await tab.run(section))
    await load_page(tab, machine)
    return updated, str(await tab.run(section))


async def test_tables_have_all_facts_without_the_script(tab: Tab, machine: Machine) -> None:
    await tab.send("Emulation.setScriptExecutionDisabled", value=True)
    await tab.load(machine.url)
    text = str(await tab.run("document.body.innerText"))
    assert "The script of this page does not run" in text
    cells = "[...document.querySelectorAll('td, th')].map((cell) => cell.textContent)"
    content = json.dumps(await tab.run(cells))
    for fact in (
        GPU,
        "GPU has fallen off the bus",
        "default/train-llm-0 (worker)",
        "/dev/ttyUSB3 is gone",
        "3 of 4 expected devices are healthy",
        "last refused Allocate request",
    ):
        assert fact in content
    # The number of minutes depends on when the machine started.
    assert re.search(r"unhealthy in \d+ of ", content)


async def test_keyboard_leads_from_a_resource_to_a_device(tab: Tab, machine: Machine) -> None:
    await load_page(tab, machine)
    await tab.press("Tab")
    assert await tab.run("document.activeElement.textContent") in {GPU, SERIAL, "rdma/hca"}
    assert await tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for _ in range(30):
        if await tab.run("document.activeElement.parentElement.classList.contains('unhealthy')"):
            break
        await tab.press("Tab")
    device = str(await tab.run("document.activeElement.querySelector('.name').textContent"))
    await tab.press("Enter")
    await tab.wait_until("document.querySelector('tr:target') !== null")
    assert device in str(await tab.run("document.querySelector('tr:target').textContent"))


async def test_focus_is_kept_when_the_page_changes(tab: Tab, machine: Machine) -> None:
    await load_page(tab, machine)
    await tab.run(
        "[...document.querySelectorAll('.tile a')].find((link) => link.textContent.startsWith('ttyusb2-')).focus()"
    )
    machine.node.unplug("/dev/ttyUSB1")
    await tab.wait_until("document.querySelector('main').textContent.includes('/dev/ttyUSB1 is gone')")
    machine.node.plug("/dev/ttyUSB1", major=188, minor=1)
    await tab.wait_until("!document.querySelector('main').textContent.includes('/dev/ttyUSB1 is gone')")
    assert str(await tab.run("document.activeElement.textContent")).startswith("ttyusb2-")


@pytest.mark.parametrize(("width", "scale"), [(390, 3.0), (320, 1.0), (640, 2.0)], ids=["phone", "400 %", "200 %"])
async def test_page_has_no_horizontal_scroll_on_a_small_screen(
    tab: Tab, machine: Machine, width: int, scale: float
) -> None:
    await tab.set_screen(width, 844, scale=scale, is_mobile=width == 390)
    await load_page(tab, machine)
    assert await tab.run("innerWidth") == width
    assert await tab.run(FITS)
    # Text at twice its size (WCAG 1.4.4).
    await tab.run("document.documentElement.style.fontSize = '200%'")
    wide = "[...document.querySelectorAll('*')].filter((e) => e.getBoundingClientRect().right > innerWidth)"
    assert await tab.run(f"{wide}.map((element) => element.outerHTML.slice(0, 150))") == []
    assert await tab.run(FITS)


async def test_tables_remain_tables_for_a_screen_reader_on_a_phone(tab: Tab, machine: Machine) -> None:
    await load_page(tab, machine)
    roles = []
    for width in (1280, 390):
        await tab.set_screen(width, 844)
        nodes = (await tab.send("Accessibility.getFullAXTree"))["nodes"]
        counts = Counter(node["role"]["value"] for node in nodes if not node["ignored"])
        roles.append(
            {name: counts[name] for name in ("table", "row", "rowheader", "columnheader", "cell", "heading", "main")}
        )
    assert roles[0] == roles[1]
    assert roles[0]["table"] == 5
    assert roles[0]["main"] == 1
    assert min(roles[0].values()) > 0


async def test_page_without_motion_does_not_scroll_smoothly(tab: Tab, machine: Machine) -> None:
    behavior = "getComputedStyle(document.documentElement).scrollBehavior"
    await load_page(tab, machine)
    assert await tab.run(behavior) == "smooth"
    await tab.set_media(prefers_reduced_motion="reduce")
    assert await tab.run(behavior) == "auto"


async def test_policy_blocks_injected_scripts_styles_and_markup(tab: Tab, machine: Machine) -> None:
    await load_page(tab, machine)
    inject = "{const e = document.createElement('%s'); e.textContent = %s; document.body.append(e);}"
    with pytest.raises(BrowserError, match="TrustedScript"):
        await tab.run(inject % ("script", "'window.isInjected = true'"))
    await tab.run(inject % ("style", "'body { display: none }'"))
    assert await tab.run("getComputedStyle(document.body).display") == "block"
    with pytest.raises(BrowserError, match="TrustedHTML"):
        await tab.run("document.body.innerHTML = '<b>'")
    assert not await tab.run("window.isInjected")
    with pytest.raises(BrowserError, match="Failed to fetch"):
        await tab.run("fetch('http://192.0.2.1/')")
    assert len(tab.messages) >= 4


async def test_hostile_text_is_text_and_a_page_without_an_agent_says_so(tab: Tab) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    async with FakeNode(stand_ins=True) as node:
        config = f"""\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x: {{devices: [{{glob: "/dev/x*"}}]}}
  a.io/y: {{devices: [{{glob: "/dev/{hostile}*"}}]}}
"""
        async with node.run_agent(config, listen=("127.0.0.1", 0), node_name=hostile) as agent:
            await node.kubelet.wait_registered("a.io/x")
            await load_page(tab, Machine(node, f"http://127.0.0.1:{agent.http_port}/"))
            assert hostile in await tab.run("document.title")
            assert hostile in await tab.run("document.querySelector('h1').textContent")
            node.plug("/dev/x0")
            await tab.wait_until("document.querySelectorAll('.tile').length === 1")
            assert f"nothing matches /dev/{hostile}*" in await tab.run("document.querySelector('main').textContent")
            assert await tab.run("document.querySelectorAll('img').length") == 0
        # The agent has stopped.
        await tab.wait_until(f"{CONNECTION}.startsWith('Not connected')")


async def test_further_page_is_not_live_and_loads_again(browser: Browser, machine: Machine) -> None:
    async with browser.open_tab() as first:
        await load_page(first, machine)
        # The connections of other tabs, without their memory.
        await first.run(
            f"""Promise.all([...Array({MAX_PAGES - 1})].map(() => new Promise((resolve) => {{
              const source = new EventSource('events');
              source.addEventListener('update', resolve);
            }})))"""
        )
        async with browser.open_tab() as further:
            await further.load(machine.url)
            await further.wait_until(f"{CONNECTION}.startsWith('Not live')")
            assert await further.run("document.querySelectorAll('table').length") == 5


async def test_page_of_another_version_of_the_agent_loads_again(tab: Tab, machine: Machine) -> None:
    await load_page(tab, machine)
    requests = len(tab.requests)
    await tab.run("document.documentElement.dataset.page = 'another version'")
    # The first event of a new connection has the version of the agent.
    await set_visibility(tab, is_hidden=True)
    await set_visibility(tab, is_hidden=False)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while tab.requests[requests:].count(machine.url) != 1:
            await tab.next_request()


async def test_hidden_page_frees_its_connection(browser: Browser, machine: Machine) -> None:
    async with contextlib.AsyncExitStack() as tabs:
        opened = [await tabs.enter_async_context(browser.open_tab()) for _ in range(MAX_PAGES + 1)]
        for tab in opened[:-1]:
            await load_page(tab, machine)
            await set_visibility(tab, is_hidden=True)
        await load_page(opened[-1], machine)


async def set_visibility(tab: Tab, *, is_hidden: bool) -> None:
    """Hide the tab, or show it again."""
    await tab.run(
        f"""Object.defineProperty(document, 'hidden', {{value: {str(is_hidden).lower()}, configurable: true}});
        document.dispatchEvent(new Event('visibilitychange'));"""
    )
