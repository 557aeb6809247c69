"""A headless Chromium spoken to over its debugging pipe: opens a page, says what went wrong, takes pictures."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """The browser's command, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for found in map(shutil.which, names) if found), None)


@dataclasses.dataclass
class Page:
    """What became of opening a page.

    Attributes:
        requests: the addresses that it asked for, its own one and data: left out.
        complaints: what the console and the security policy said.
        width: of what it contains, in CSS pixels.
        broken_pictures: texts of the pictures that have no pixels.
        text: what a reader sees.
        screenshot: PNG of the whole page.
    """

    requests: list[str]
    complaints: list[str]
    width: float
    broken_pictures: list[str]
    text: str
    screenshot: bytes


class Browser:
    """One tab."""

    def __init__(self, send: Any, receive: Any) -> None:
        """Takes the two ends of the pipe; messages are JSON with a NUL after each."""
        self._send, self._receive = send, receive
        self._last_id = 0
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        self._features: list[dict[str, str]] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def open(self, file: Path, *, width: int = 1280, height: int = 900, scheme: str = "light") -> Page:
        """Opens a local file in a window of `width` x `height` with a light or dark colour scheme."""
        self._events.clear()
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", features=self._features)
        address = file.absolute().as_uri()
        self._call("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._read()
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = self._call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        broken = "JSON.stringify([...document.images].filter(i => !i.naturalWidth).map(i => i.alt))"
        return Page(
            requests=[url for url in self._requested() if not url.startswith((address, "data:"))],
            complaints=[self._complaint(event) for event in self._events if self._complaint(event)],
            width=size["width"],
            broken_pictures=json.loads(self._evaluate(broken)),
            text=self._evaluate("document.body.innerText"),
            screenshot=base64.b64decode(picture),
        )

    def value_of(self, expression: str) -> Any:
        """What a JavaScript expression is in the page as it is now."""
        return self._evaluate(expression)

    def let_scripts_run(self, allowed: bool) -> None:
        """Whether pages that are opened from now on may run scripts."""
        self._call("Emulation.setScriptExecutionDisabled", value=not allowed)

    def print_on_paper(self, printed: bool) -> None:
        """Whether the open page looks as it does on paper, with the colour scheme that it was opened with."""
        self._call("Emulation.setEmulatedMedia", media="print" if printed else "", features=self._features)

    def title(self) -> str:
        """The title of the page as it is now."""
        return str(self._evaluate("document.title"))

    def _requested(self) -> list[str]:
        sent = (event for event in self._events if event["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    @staticmethod
    def _complaint(event: dict[str, Any]) -> str:
        if event["method"] == "Log.entryAdded":
            return str(event["params"]["entry"]["text"])
        if event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            return json.dumps(event["params"])
        return ""

    def _evaluate(self, expression: str) -> Any:
        return self._call("Runtime.evaluate", expression=expression)["result"]["value"]

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._receive.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser closed its pipe")
            data += byte
        message = json.loads(data)
        if "method" in message:
            self._events.append(message)
        return message


@contextlib.contextmanager
def started_browser(command: str, profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, ended afterwards."""
    to_browser, send = os.pipe()
    receive, from_browser = os.pipe()
    pipes = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
    flags = [*FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        ["bash", "-c", pipes, "bash", command, *flags],
        pass_fds=(to_browser, from_browser),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    with os.fdopen(send, "wb") as sending, os.fdopen(receive, "rb") as receiving:
        try:
            yield Browser(sending, receiving)
        finally:
            process.terminate()
            process.wait(timeout=30)
