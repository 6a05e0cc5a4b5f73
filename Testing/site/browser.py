"""Headless Chromium by its DevTools protocol: opens a page and says what a reader's browser would have met there."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
]
_SECONDS = 60.0
_READ = """JSON.stringify({
  ids: [...document.querySelectorAll('[id],a[name]')].map(e => e.id || e.name),
  links: [...document.querySelectorAll('a[href]')].map(e => [e.getAttribute('href'), e.href]),
  pictures: [...document.images].map(e => [e.src, e.complete && e.naturalWidth > 0, e.alt]),
  wider: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  title: document.title,
  sticking_out: [...document.querySelectorAll('.md-content *')].filter(e => {
    const box = e.getBoundingClientRect();
    if (!box.width || box.right <= window.innerWidth + 1) return false;
    for (let p = e.parentElement; p; p = p.parentElement) if (getComputedStyle(p).overflowX !== 'visible') return false;
    return true;
  }).map(e => e.tagName + ' ' + e.textContent.trim().slice(0, 40)),
})"""


def chromium() -> str | None:
    """The program, where there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Visit:
    """What opening a page at a width (px) showed.

    ``links``: as written and as resolved; ``pictures``: address, whether it was shown, its text; ``wider``: pixels that
    the page is wider than the window; ``errors``: of the console, scripts and requests; ``requests``: all addresses.
    """

    url: str
    width: int
    title: str = ""
    ids: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[tuple[str, bool, str]] = field(default_factory=list)
    wider: int = 0
    sticking_out: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Browser:
    """A browser of its own, with a fresh profile in ``profile``; use it in a ``with`` block."""

    def __init__(self, program: str, profile: Path) -> None:
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._asked, self._events = 0, list[dict[str, Any]]()
        try:
            port, path = self._address(profile / "DevToolsActivePort")
            self._socket = websocket.create_connection(
                f"ws://127.0.0.1:{port}{path}", timeout=_SECONDS, suppress_origin=True
            )
            target = self._ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = ""
            self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                self._ask(f"{domain}.enable")
        except BaseException:
            self._process.kill()
            raise

    _session = ""

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _address(self, told: Path) -> tuple[int, str]:
        """Port and path of the protocol, which the browser writes when it listens."""
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise RuntimeError(f"the browser ended at once with code {self._process.returncode}")
            lines = told.read_text().splitlines() if told.exists() else []
            if len(lines) == 2:
                return int(lines[0]), lines[1]
            time.sleep(0.05)
        raise RuntimeError("the browser did not start to listen")

    def visit(self, url: str, width: int, height: int = 900) -> Visit:
        """Open a page in a window of this size, wait until nothing is loaded any more, and look."""
        phone = width < 600
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self._ask("Page.navigate", url="about:blank")
        self._events.clear()
        self._ask("Page.navigate", url=url)
        self._until_quiet()
        found = Visit(url, width)
        vars(found).update(json.loads(self._evaluate(_READ)))
        for event in self._events:
            _note(found, event["method"], event["params"])
        return found

    def picture(self, path: Path, whole: bool = True) -> None:
        """The page as a PNG."""
        data = self._ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def _until_quiet(self, pause: float = 0.3) -> None:
        """Wait for the page's load event, then until no event has come for a while."""
        end = time.monotonic() + _SECONDS
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._receive(end)
        while True:
            try:
                self._receive(time.monotonic() + pause)
            except TimeoutError:
                return

    def _evaluate(self, script: str) -> Any:
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"]["value"]

    def _ask(self, method: str, **params: Any) -> Any:
        self._asked += 1
        asked, end = self._asked, time.monotonic() + _SECONDS
        session = {"sessionId": self._session} if self._session else {}
        self._socket.send(json.dumps({"id": asked, "method": method, "params": params, **session}))
        while True:
            answer = self._receive(end)
            if answer.get("id") == asked:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self, end: float) -> dict[str, Any]:
        """The next message; events are kept.

        Raises:
            TimeoutError: none came before ``end``.
        """
        self._socket.settimeout(max(0.001, end - time.monotonic()))
        try:
            message: dict[str, Any] = json.loads(self._socket.recv())
        except websocket.WebSocketTimeoutException as error:
            raise TimeoutError("the browser says nothing any more") from error
        if "method" in message:
            self._events.append(message)
        return message


def _note(visit: Visit, method: str, params: dict[str, Any]) -> None:
    if method == "Network.requestWillBeSent":
        visit.requests.append(params["request"]["url"])
    elif method == "Network.responseReceived" and params["response"]["status"] >= 400:
        visit.errors.append(f"{params['response']['status']} for {params['response']['url']}")
    elif method == "Network.loadingFailed" and not params.get("canceled"):
        visit.errors.append(f"a request failed: {params['errorText']}")
    elif method == "Runtime.exceptionThrown":
        visit.errors.append(f"script: {params['exceptionDetails'].get('exception', {}).get('description', params)}")
    elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
        visit.errors.append(f"console: {[part.get('value') for part in params['args']]}")
    elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
        visit.errors.append(f"log: {params['entry']['text']}")
