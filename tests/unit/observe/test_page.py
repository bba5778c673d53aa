"""The status page: its facts without a script, its escaping, its limits and its headers."""

import asyncio
import base64
import hashlib
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.kubelet.reports import DeviceUse
from genplug.observe.events import Event
from genplug.observe.page.content import MAX_DEVICES, Clock, build_sections
from genplug.observe.page.document import build_headers, render_page
from genplug.observe.page.elements import build_element, render_html, render_json
from genplug.observe.status import DeviceStatus, ListChange, Refusal, Status
from genplug.spec.printable import escape_line, escape_lines
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.http import get
from tests.support.network import outside_addresses
from tests.unit.observe.test_status import CONFIG, HEALTH, LIVE, STATUS

CLOCK = Clock(1_795_802_800.0, 90_000.0)
LISTEN = ("127.0.0.1", 0)
X_CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.io/x: {devices: [{glob: /dev/x*}]}
"""


class PageReader(HTMLParser):
    """Reads the tags with their attributes, the texts of elements, and the cells of tables from a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.cells: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self._is_in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name == "href" and value]
        if tag in {"td", "th", "caption"}:
            self.cells.append("")
            self._is_in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", ()))
        if tag in {"td", "th", "caption"}:
            self._is_in_cell = False

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._is_in_cell:
            self.cells[-1] += data


def read_page(status: Status) -> PageReader:
    """Return the content of the page of a status."""
    return PageReader(render_page(status, {}, CLOCK))


def test_page_has_each_fact_as_a_text() -> None:
    page = read_page(STATUS)
    text = " ".join(page.texts)
    for fact in (
        "genplug on node-1",
        "Not ready",
        "0.1.0",
        "cd21c713",
        "/etc/genplug/genplug.yaml",
        "2026-11-27 17:12:17 UTC",
        "genplug.yaml:4:3: error",
        "genplug.yaml:9:5: GP101: the timeout is longer than the period",
        "the device scanner failed and is started again",
        "example.com/camera: probe link cannot check video0-a2b4c6: permission denied",
    ):
        assert fact in text


def test_tables_have_the_facts_of_resources_devices_and_containers() -> None:
    cells = read_page(STATUS).cells
    for fact in (
        "example.com/camera",
        "video1-d7e2f3",
        "✗unhealthy",
        "/dev/video1",
        "/dev/video1 is gone",
        "default/viewer (main)",
        "2026-11-27 18:04:51 UTC",
    ):
        assert fact in cells
    assert any("last refused Allocate request at 2026-11-27T18:05:00Z: /dev/video1 is gone" in cell for cell in cells)
    assert any("2 of 3 expected devices are healthy" in cell for cell in cells)
    resource = cells[cells.index("example.com/camera") :][:7]
    assert resource == ["example.com/camera", "", "2", "1", "1", "1", "yes"]


def test_devices_have_the_last_change_of_their_resource() -> None:
    change = ListChange(1_795_802_700.5, "video1-d7e2f3: unhealthy: /dev/video1 is gone")
    texts = read_page(replace(STATUS, resources=(replace(LIVE, last_change=change),))).texts
    assert f"Last change at 2026-11-27T18:05:00Z: {change.message}" in texts


def test_unknown_use_of_devices_is_not_shown_as_no_use() -> None:
    cells = read_page(replace(STATUS, resources=(replace(LIVE, in_use=None),))).cells
    resource = cells[cells.index("example.com/camera") :][:6]
    assert resource == ["example.com/camera", "", "2", "1", "not known", "not known"]


def test_devices_are_grouped_by_numa_node() -> None:
    devices = tuple(
        DeviceStatus(f"x{number}", (), healthy=True, reason="", numa_nodes=(number % 2,)) for number in range(4)
    )
    page = read_page(replace(STATUS, resources=(replace(LIVE, devices=devices),)))
    texts = [text for text in page.texts if text.startswith(("NUMA node ", "x"))]
    assert texts[:6] == ["NUMA node 0", "x0", "x2", "NUMA node 1", "x1", "x3"]


def test_links_of_the_page_have_targets() -> None:
    page = read_page(STATUS)
    fragments = [link[1:] for link in page.links if link.startswith("#")]
    assert len(fragments) > len(LIVE.devices)
    assert set(fragments) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_page_of_10_000_devices_is_bounded_and_has_the_unhealthy_devices() -> None:
    healthy = [DeviceStatus(f"x{number}", (f"/dev/x{number}",), healthy=True, reason="") for number in range(10_000)]
    devices = (*healthy, DeviceStatus("last", ("/dev/last",), healthy=False, reason="gone", since=1_795_802_691))
    text = render_page(replace(STATUS, resources=(replace(LIVE, devices=devices),)), {}, CLOCK)
    assert "9501 more devices are not shown; &#x27;genplug status -o wide example.com/camera&#x27; shows all." in text
    page = PageReader(text)
    assert page.tags.count(("li", ("class",))) == MAX_DEVICES
    assert "last" in page.cells
    assert len(text) < 2_000_000


HOSTILE = st.text(min_size=1, max_size=20) | st.sampled_from(
    (
        "<script>alert(1)</script>",
        '"><img src=x onerror=a>',
        "</pre><b>",
        "' onload='a",
        "</style></script>",
        "<!--",
        "&lt;",
        "\x00\ud800\u2028",
    )
)
TEXTS = 13
ERROR = 9
"""The position of the error of the configuration, which can have several lines."""


def build_status(texts: Sequence[str]) -> Status:
    """Return a status with texts of devices, files, pods and other programs."""
    device = DeviceStatus(texts[0], (texts[1],), healthy=False, reason=texts[2], probe="p", since=1)
    resource = replace(
        LIVE,
        name=texts[3],
        devices=(device,),
        notes=(texts[4],),
        last_refusal=Refusal(1.0, texts[5]),
        in_use=(DeviceUse(texts[3], texts[6], texts[7], texts[8], (texts[0],)),),
    )
    config = replace(CONFIG, error=texts[ERROR], files=(texts[10],), warnings=(texts[11],), policy=texts[12])
    return replace(STATUS, node=texts[12], config=config, resources=(resource,), failures=(texts[11],))


@settings(deadline=None, max_examples=50)
@given(st.lists(HOSTILE, min_size=TEXTS, max_size=TEXTS))
def test_text_of_devices_pods_and_files_is_never_markup(texts: Sequence[str]) -> None:
    harmless = build_status([f"text {number}" for number in range(TEXTS)])
    hostile = build_status(texts)
    page = read_page(hostile)
    assert page.tags == read_page(harmless).tags
    content = "".join(page.texts)
    assert escape_lines(texts[ERROR]) in content
    assert all(escape_line(text) in content for text in (*texts[:ERROR], *texts[ERROR + 1 :]))
    for _, section in build_sections(hostile, {}, CLOCK):
        # A newline would end the event that contains the section.
        assert render_json(section).isprintable()
        assert json.loads(render_json(section))


def test_attributes_and_texts_are_escaped() -> None:
    element = build_element("p", "<&>\x1b", title="\"'>", hidden=True, lang=None)
    assert render_html(element) == '<p title="&quot;&#x27;&gt;" hidden="">&lt;&amp;&gt;\\x1b</p>'
    assert json.loads(render_json(element)) == ["p", {"title": "\"'>", "hidden": ""}, ["<&>\\x1b"]]


def test_policy_allows_only_the_script_and_the_style_sheet_of_the_page() -> None:
    text = render_page(STATUS, {}, CLOCK)
    hashes = {
        name: base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        for name in ("script", "style")
        if (found := re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL))
    }
    policy = build_headers()["Content-Security-Policy"]
    assert f"script-src 'sha256-{hashes['script']}';" in policy
    assert f"style-src 'sha256-{hashes['style']}';" in policy
    for directive in ("default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        assert directive in policy
    assert "unsafe" not in policy
    assert " style=" not in text
    assert not re.search(r"\son\w+=", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))


async def request_page(
    port: int | None, headers: dict[str, str], path: str = "/", method: str = "GET"
) -> tuple[int, dict[str, str]]:
    """Return the code and the headers of a response."""

    def send() -> tuple[int, dict[str, str]]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, dict(response.headers)
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers)

    return await asyncio.to_thread(send)


async def test_page_is_served_to_local_clients_by_safe_methods_only(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(X_CONFIG, listen=LISTEN) as agent:
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        code, headers = await request_page(agent.http_port, {"Host": f"localhost:{agent.http_port}"})
        assert code == 200
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert not any(name.lower().startswith("access-control") for name in headers)
        for path in ("/", "/events"):
            assert (await request_page(agent.http_port, {"Host": "evil.example"}, path))[0] == 421
            assert (await request_page(agent.http_port, {"X-Forwarded-For": "192.0.2.1"}, path))[0] == 403
            assert (await request_page(agent.http_port, {}, path, "POST"))[0] == 405
            assert (await request_page(agent.http_port, {}, path, "HEAD"))[0] == 200
        assert "/ (a page for browsers), /healthz" in (await get(agent, "/elsewhere"))[1]


async def test_agent_that_is_not_ready_shows_the_page(node: FakeNode) -> None:
    async with node.run_agent("resources: [", listen=LISTEN) as agent:
        await next_event(record_events(agent), Event.CONFIG_INVALID)
        code, text = await get(agent, "/")
        assert code == 200
        assert "Not ready" in text
        assert "no configuration is loaded" in text


async def test_page_shows_the_health_of_a_device_over_the_last_hour(node: FakeNode) -> None:
    node.plug("/dev/x0")
    async with node.run_agent(X_CONFIG, listen=LISTEN) as agent:
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        node.unplug("/dev/x0")
        await node.kubelet.wait_for_list("a.io/x", unhealthy={"x0"})
        node.plug("/dev/x0")
        await node.kubelet.wait_for_list("a.io/x", healthy={"x0"})
        cells = PageReader((await get(agent, "/"))[1]).cells
    assert any(cell.startswith("unhealthy in ") for cell in cells)


@pytest.mark.network
async def test_page_is_refused_to_clients_that_do_not_use_a_loopback_address(node: FakeNode) -> None:
    async with node.run_agent(X_CONFIG, listen=("", 0)) as agent:
        await node.kubelet.wait_registered("a.io/x")
        addresses = outside_addresses()
        assert addresses
        for address in addresses:
            for path in ("/", "/events"):
                assert (await get(agent, path, address))[0] == 403


def test_agent_without_a_request_of_the_page_does_not_load_its_modules() -> None:
    modules = "genplug.agent.agent, genplug.observe.http"
    script = f"import sys, {modules}; print([name for name in sys.modules if 'observe.page' in name])"
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_health_of_probes_is_a_warning_of_the_page() -> None:
    page = read_page(replace(STATUS, health=HEALTH))
    assert "example.com/camera: probe heat warns about video0-a2b4c6: /sys/t is '90', expected at most 80" in page.texts


def test_section_of_dynamic_resource_allocation_has_its_resources_and_claims() -> None:
    page = PageReader(render_page(STATUS, {}, CLOCK))
    assert "dra" in page.ids
    cells = page.cells[page.cells.index("Published resources") :]
    assert cells[6:11] == [
        "example.com/gpu",
        "1",
        "3",
        "1",
        "publish.attributes.model has no valuethe pod default/viewer uses it by the device plugin API",
    ]
    assert cells[-3:] == ["default/training", "trainer", "example.com/gpu gpu0"]
    assert any("did not answer 'update resourceslices/a' within 15 s" in text for text in page.texts)
    assert "dra" not in PageReader(render_page(replace(STATUS, dra=None), {}, CLOCK)).ids
