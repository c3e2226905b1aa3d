"""The page in a real browser: it draws frames, says so to the server, and fits a desktop and a phone."""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from edgeseg_live.pipeline import Pipeline
from edgeseg_live.sinks import make_sink
from edgeseg_live.supervise import SupervisorConfig

from tests.apps.fakes import FakeSegmenter, ScriptedSource, picture, scripted

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[str]:
    """The DevTools address of a headless browser."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0"]
    flags += ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    process = subprocess.Popen([CHROMIUM, *flags, f"--user-data-dir={tmp_path}", "about:blank"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"ws://([^/]+)/", line):
            yield found.group(1)
            break
    else:
        pytest.skip("Chromium does not start here")
    process.terminate()
    process.wait(10)
    process.stderr.close()


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    steps = lambda: ScriptedSource((step for index in itertools.count() for step in (0.03, picture(index, (360, 640)))), live=True)  # noqa: E731
    made = Pipeline(FakeSegmenter(), scripted(steps), [make_sink("http://127.0.0.1:0")], SupervisorConfig(freeze_s=0))
    made.start()
    yield made
    made.stop()
    made.wait(10)


async def look(devtools: str, url: str, width: int, height: int, expression: str) -> Any:
    """What ``expression`` gives on the page at ``url``, once it is true or 10 s have passed."""
    async with aiohttp.ClientSession() as session:
        async with session.put(f"http://{devtools}/json/new?about:blank") as answer:
            tab = await answer.json()
        async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket_:
            numbers = itertools.count(1)

            async def call(method: str, **parameters: Any) -> dict[str, Any]:
                number = next(numbers)
                await socket_.send_json({"id": number, "method": method, "params": parameters})
                while (message := await socket_.receive_json(timeout=10)).get("id") != number:
                    continue
                return message["result"]

            await call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
            await call("Page.navigate", url=url)
            value: Any = None
            for _ in range(100):
                value = (await call("Runtime.evaluate", expression=expression, returnByValue=True))["result"].get("value")
                if value:
                    break
                await asyncio.sleep(0.1)
            return value


DRAWN = """(() => {
  const view = document.getElementById("view");
  if (!view || view.width !== 640 || document.getElementById("state").textContent !== "playing") return null;
  const middle = view.getContext("2d").getImageData(320, 90, 1, 1).data;
  if (middle[3] === 0 || !document.querySelector("#classes .figure").textContent) return null;
  return { fps: document.getElementById("fps").textContent, rows: document.querySelectorAll("#classes li").length,
           wide: document.documentElement.scrollWidth, inner: innerWidth, pixel: [...middle],
           elsewhere: performance.getEntriesByType("resource").filter((item) => !item.name.startsWith(location.origin)).length };
})()"""


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_page_draws_frames_and_fits(browser: str, pipeline: Pipeline, width: int, height: int) -> None:
    sink = pipeline.snapshot()["sinks"][0]
    seen = asyncio.run(look(browser, sink["url"], width, height, DRAWN))
    assert seen, "no frame was drawn"
    assert seen["rows"] == 4
    assert seen["wide"] == seen["inner"] == width, "nothing sticks out to the side"
    assert seen["elsewhere"] == 0
    assert float(seen["fps"]) > 0
    assert max(seen["pixel"][:3]) > 40
    # The tab stays open: its acknowledgement of the first frame may still be under way.
    after = wait_for(lambda: pipeline.snapshot()["sinks"][0], lambda item: item["sent"] > 1 and item["display_ms"]["p50"] > 0)
    assert after["sent"] > 1, "acknowledged frames are followed by others"
    assert after["display_ms"]["p50"] > 0


def wait_for(look_again: Callable[[], dict[str, Any]], good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What ``look_again`` gives once it is ``good`` or 10 s have passed."""
    deadline = time.monotonic() + 10
    while not good(found := look_again()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
