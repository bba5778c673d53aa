"""A headless Chromium, driven by the DevTools protocol over a pair of pipes.

The pipes are descriptors 3 and 4 of the browser, and a message ends with a zero byte
(https://chromedevtools.github.io/devtools-protocol, ``--remote-debugging-pipe``). No driver or library is needed.
"""

import asyncio
import base64
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
TOOLS = Path(os.environ.get("GENPLUG_TOOLS", Path.home() / ".cache/genplug/tools"))
AXE = TOOLS / "axe.min.js"
"""The script of axe-core, which ``.ci/tools`` installs."""
TIMEOUT_SECONDS = 30.0
_MAX_MESSAGE_BYTES = 64 << 20
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    # The tests run as root, for which Chromium has no sandbox.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--hide-scrollbars",
    "--no-first-run",
)


class BrowserError(Exception):
    """The browser refused a command, or a script raised an error."""


class Browser:
    """The connection to a browser."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tabs: dict[str, Tab] = {}
        self._task = asyncio.create_task(self._read())

    async def close(self) -> None:
        """End the connection, which ends the browser."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._writer.close()

    async def send(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Return the result of a command.

        Raises:
            BrowserError: the browser refuses the command.
        """
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._replies[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reply = await self._replies[number]
        if "error" in reply:
            raise BrowserError(f"{method}: {reply['error']}")
        return dict(reply["result"])

    @contextlib.asynccontextmanager
    async def open_tab(self) -> AsyncIterator["Tab"]:
        """Open an empty tab with storage of its own; close it at the end of the context."""
        context = (await self.send("Target.createBrowserContext"))["browserContextId"]
        target = (await self.send("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
        session = (await self.send("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        tab = self._tabs[session] = Tab(self, session)
        try:
            for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
                await tab.send(f"{domain}.enable")
            yield tab
        finally:
            await self.send("Target.disposeBrowserContext", browserContextId=context)

    async def _read(self) -> None:
        while True:
            message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
            if "id" in message:
                self._replies.pop(message["id"]).set_result(message)
            elif tab := self._tabs.get(message.get("sessionId", "")):
                tab.on_event(message["method"], message["params"])


class Tab:
    """A tab of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.messages: list[str] = []
        """The errors and warnings of the console, among them the violations of the Content-Security-Policy."""
        self.requests: list[str] = []
        """The addresses that the tab has requested."""
        self._loaded = asyncio.Event()
        self._requested = asyncio.Event()

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command for this tab."""
        return await self._browser.send(method, self._session, **parameters)

    async def load(self, url: str) -> None:
        """Load a page and wait for its ``load`` event.

        Raises:
            BrowserError: the page cannot be loaded.
        """
        self._loaded.clear()
        result = await self.send("Page.navigate", url=url)
        if error := result.get("errorText"):
            raise BrowserError(f"{url}: {error}")
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self._loaded.wait()

    async def next_request(self) -> None:
        """Wait until the tab requests another address."""
        self._requested.clear()
        await self._requested.wait()

    async def run(self, script: str) -> Any:
        """Return the value of an expression, or of the promise that it is.

        Raises:
            BrowserError: the script raises an error.
        """
        result = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise BrowserError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    async def wait_until(self, condition: str) -> None:
        """Wait until an expression is true; it is evaluated at each change of the document.

        Raises:
            BrowserError: it is not true in time.
        """
        await self.run(
            f"""new Promise((resolve, reject) => {{
              const check = () => {{ if ({condition}) {{ observer.disconnect(); resolve(); }} }};
              const observer = new MutationObserver(check);
              observer.observe(document, {{subtree: true, childList: true, characterData: true, attributes: true}});
              setTimeout(() => reject(document.body.innerText), {int(TIMEOUT_SECONDS * 500)});
              check();
            }})"""
        )

    async def set_screen(self, width: int, height: int, *, scale: float = 1.0, is_mobile: bool = False) -> None:
        """Set the size of the window (CSS pixels) and the pixels of the device per CSS pixel."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=is_mobile
        )

    async def set_media(self, **features: str) -> None:
        """Set media features, for example ``prefers_color_scheme="dark"``."""
        values = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        await self.send("Emulation.setEmulatedMedia", features=values)

    async def press(self, key: str) -> None:
        """Press and release a key: ``Tab`` or ``Enter``."""
        codes = {"Tab": 9, "Enter": 13}
        event = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        await self.send("Input.dispatchKeyEvent", type="keyDown", text="\r" if key == "Enter" else "", **event)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    async def take_picture(self) -> bytes:
        """Return a picture of what the screen shows as PNG."""
        result = await self.send("Page.captureScreenshot", format="png", optimizeForSpeed=False)
        return base64.b64decode(result["data"])

    async def check_accessibility(self) -> dict[str, Any]:
        """Return the result of axe-core with all of its rules."""
        # The policy of the page forbids what axe-core does.
        await self.send("Page.setBypassCSP", enabled=True)
        await self.run(AXE.read_text())
        return dict(await self.run("axe.run(document, {resultTypes: ['violations', 'incomplete', 'passes']})"))

    def on_event(self, method: str, parameters: dict[str, Any]) -> None:
        """Record an event of the tab."""
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
                self._requested.set()
            case "Runtime.exceptionThrown":
                self.messages.append(str(parameters["exceptionDetails"]))
            case "Log.entryAdded":
                entry = parameters["entry"]
                self.messages.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
            case "Runtime.consoleAPICalled":
                self.messages.append(f"{parameters['type']}: {parameters['args']}")


@contextlib.asynccontextmanager
async def start_browser(options: Sequence[str] = ()) -> AsyncIterator[Browser]:
    """Run a browser with a new profile until the end of the context."""
    assert CHROMIUM is not None
    with contextlib.ExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory(prefix="gp-chromium", ignore_cleanup_errors=True))
        (commands_out, commands_in), (replies_out, replies_in) = os.pipe(), os.pipe()
        # Above the descriptors 3 and 4 that the browser uses, so that neither is overwritten before it is duplicated.
        for_browser = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in (commands_out, replies_in)]
        for descriptor in (commands_out, replies_in):
            os.close(descriptor)
        redirected = 'exec "$@" 3<&{} 4>&{}'.format(*for_browser)
        process = await asyncio.create_subprocess_exec(
            *(
                "bash",
                "-c",
                redirected,
                "bash",
                CHROMIUM,
                *_OPTIONS,
                *options,
                f"--user-data-dir={profile}",
                "about:blank",
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=for_browser,
            env={**os.environ, "HOME": profile},
        )
        for descriptor in for_browser:
            os.close(descriptor)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_MAX_MESSAGE_BYTES)
        source, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(replies_out, "rb", buffering=0)
        )
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, os.fdopen(commands_in, "wb", buffering=0)
        )
        browser = Browser(reader, asyncio.StreamWriter(transport, protocol, None, loop))
        try:
            yield browser
        finally:
            await browser.close()
            source.close()
            try:
                await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
