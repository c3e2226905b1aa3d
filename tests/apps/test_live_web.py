"""The page: one frame in flight per viewer and always the newest, MJPEG, who may look, and what nobody may take."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest
from edgeseg_live.frames import ArrayPool, Frame, Result
from edgeseg_live.sinks import SinkOptions, make_sink
from edgeseg_live.sinks.page import PageSink, class_areas
from edgeseg_live.web import guard
from edgeseg_live.web.guard import RateLimit, is_local

from edgeseg.errors import SourceError
from tests.apps.fakes import make_manifest

SECRET = "open-sesame"


class Host:
    """A pipeline as far as a sink sees it."""

    manifest = make_manifest()

    def snapshot(self) -> dict[str, Any]:
        return {"frames": 7, "source": {"uri": "rtsp://***@camera"}}


def result(index: int, size: tuple[int, int] = (36, 64)) -> Result:
    image = np.full((*size, 3), index % 256, np.uint8)
    labels = np.zeros(size, np.uint8)
    labels[: size[0] // 2] = 1
    return Result(Frame(index, image, time.monotonic_ns(), index), labels, image, (ArrayPool(np.uint8), ArrayPool(np.uint8)))


def open_page(uri: str = "http://127.0.0.1:0?fps=0", token: str = "") -> PageSink:
    sink = make_sink(uri, SinkOptions(token=token))
    assert isinstance(sink, PageSink)
    sink.open(Host())
    return sink


@pytest.fixture
def page() -> Iterator[PageSink]:
    sink = open_page()
    yield sink
    sink.close()


@pytest.fixture
def secret_page() -> Iterator[PageSink]:
    sink = open_page(token=SECRET)
    yield sink
    sink.close()


def get(url: str, **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def parse(data: bytes) -> tuple[dict[str, Any], np.ndarray]:
    (length,) = struct.unpack(">I", data[:4])
    image = cv2.imdecode(np.frombuffer(data[4 + length :], np.uint8), cv2.IMREAD_COLOR)
    return json.loads(data[4 : 4 + length]), image


async def next_frame(socket_: aiohttp.ClientWebSocketResponse, timeout_s: float = 5.0) -> tuple[dict[str, Any], np.ndarray] | None:
    """The next frame message, past the figures; None when none comes in time."""
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = await socket_.receive(timeout=left)
        except asyncio.TimeoutError:
            return None
        if message.type is aiohttp.WSMsgType.BINARY:
            return parse(message.data)
        if message.type is not aiohttp.WSMsgType.TEXT:
            return None
    return None


def talk(page: PageSink, conversation: Callable[[aiohttp.ClientWebSocketResponse], Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        async with aiohttp.ClientSession() as session, session.ws_connect(page.url + "ws", max_msg_size=0, **options) as socket_:
            await until(lambda: page._server.hub.watched)
            return await conversation(socket_)

    return asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


# --- frames --------------------------------------------------------------------------------------------------------


def test_a_frame_carries_its_picture_number_and_areas(page: PageSink) -> None:
    async def conversation(socket_: aiohttp.ClientWebSocketResponse) -> tuple[dict[str, Any], np.ndarray] | None:
        page.write(result(41))
        return await next_frame(socket_)

    meta, image = talk(page, conversation)
    assert meta["seq"] == 41
    assert meta["area"] == [0.4444, 0.5556, 0.0, 0.0]
    assert image.shape == (36, 64, 3)
    assert abs(int(image[0, 0, 0]) - 41) < 4


def test_nothing_is_sent_before_the_acknowledgement_and_then_the_newest(page: PageSink) -> None:
    async def conversation(socket_: aiohttp.ClientWebSocketResponse) -> list[int]:
        page.write(result(1))
        seen = [(await next_frame(socket_))[0]["seq"]]
        for index in (2, 3, 4):
            page.write(result(index))
        assert await next_frame(socket_, 0.5) is None
        await socket_.send_json({"ack": 3})  # not what was sent: it means nothing
        assert await next_frame(socket_, 0.3) is None
        await socket_.send_json({"ack": 1})
        seen.append((await next_frame(socket_))[0]["seq"])
        await socket_.send_json({"ack": 4})
        assert await next_frame(socket_, 0.3) is None
        page.write(result(5))
        seen.append((await next_frame(socket_))[0]["seq"])
        return seen

    assert talk(page, conversation) == [1, 4, 5]
    assert page.details()["display_ms"]["max"] > 0


def test_a_slow_viewer_does_not_hold_up_a_fast_one(page: PageSink) -> None:
    async def run() -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(page.url + "ws"),
            session.ws_connect(page.url + "ws") as fast,
        ):
            await until(lambda: page._server.hub.counts()["websocket"] == 2)
            for index in range(20):
                page.write(result(index))
                meta, _ = await next_frame(fast)
                await fast.send_json({"ack": meta["seq"]})
            return meta["seq"]

    assert asyncio.run(run()) == 19


def test_nothing_is_encoded_when_nobody_watches(page: PageSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imencode", lambda *_: pytest.fail("a JPEG for nobody"))
    page.write(result(1))


def test_figures_come_by_themselves(page: PageSink) -> None:
    async def conversation(socket_: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
        return json.loads((await socket_.receive(timeout=5)).data)

    stats = talk(page, conversation)["stats"]
    assert stats["frames"] == 7
    assert stats["model"] == "fake"


def test_wide_frames_are_made_smaller_for_the_page() -> None:
    page = open_page("http://127.0.0.1:0?width=64&quality=50")

    async def conversation(socket_: aiohttp.ClientWebSocketResponse) -> tuple[int, ...]:
        page.write(result(1, (200, 320)))
        return (await next_frame(socket_))[1].shape

    assert talk(page, conversation) == (40, 64, 3)
    page.close()


def test_mjpeg_for_browsers_without_script(page: PageSink) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", page._server._port, timeout=10)
    connection.request("GET", "/mjpeg")
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "multipart/x-mixed-replace; boundary=frame"
    for index in (3, 9):
        deadline = time.monotonic() + 5
        while not page._server.hub.watched and time.monotonic() < deadline:
            time.sleep(0.01)
        page.write(result(index))
        assert answer.readline() == b"--frame\r\n"
        headers = http.client.parse_headers(answer)
        jpeg = answer.read(int(headers["Content-Length"]))
        assert abs(int(cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1)[0, 0, 0]) - index) < 4
        assert answer.readline() == b"\r\n"
    connection.close()


def test_page_files_and_classes(page: PageSink) -> None:
    status, body, headers = get(page.url)
    assert (status, b"app.js" in body, b"<noscript>" in body) == (200, True, True)
    assert b"//" not in body.replace(b"<!doctype", b""), "nothing is loaded from elsewhere"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    for name in ("app.js", "style.css"):
        status, body, _ = get(page.url + name)
        assert status == 200
        assert b"http://" not in body
        assert b"https://" not in body
    assert json.loads(get(page.url + "classes")[1])["classes"][1] == {"name": "road", "colour": [128, 64, 128]}
    assert json.loads(get(page.url + "stats")[1])["frames"] == 7
    assert get(page.url + "healthz")[0] == 200
    assert get(page.url + "../../etc/passwd")[0] == 404
    assert get(page.url + "server.py")[0] == 404


def test_closing_lets_the_viewers_go() -> None:
    page = open_page()

    async def conversation(socket_: aiohttp.ClientWebSocketResponse) -> bool:
        await asyncio.to_thread(page.close)
        while (await socket_.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
            continue
        return socket_.closed

    assert talk(page, conversation)
    with pytest.raises(urllib.error.URLError):
        get(page.url)


# --- who may look --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.168.1.7", "example.org"])
def test_an_address_that_others_can_reach_needs_a_token(host: str) -> None:
    with pytest.raises(SourceError, match="token"):
        make_sink(f"http://{host}:0")
    assert make_sink(f"http://{host}:0", SinkOptions(token=SECRET)).shown == f"http://{host}:0"


def test_local_addresses() -> None:
    assert all(is_local(host) for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"))
    assert not any(is_local(host) for host in ("0.0.0.0", "::", "10.0.0.1", "", "localhost.evil.example"))


@pytest.mark.parametrize("path", ["", "ws", "mjpeg", "stats", "classes", "app.js"])
def test_without_the_token_nothing_is_shown(secret_page: PageSink, path: str) -> None:
    for url, headers in (
        (path, {}),
        (path + "?token=wrong", {}),
        (path, {"Authorization": "Bearer wrong"}),
        (path, {"Cookie": "edgeseg_token=x"}),
    ):
        status, body, _ = get(secret_page.url + url, **headers)
        assert status == 401
        assert SECRET.encode() not in body


def test_the_token_opens_the_door(secret_page: PageSink) -> None:
    assert get(secret_page.url + "stats", Authorization=f"Bearer {SECRET}")[0] == 200
    assert get(secret_page.url + f"stats?token={SECRET}")[0] == 200
    assert get(secret_page.url + "healthz")[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", secret_page._server._port, timeout=10)
    connection.request("GET", f"/?token={SECRET}")
    answer = connection.getresponse()
    assert answer.status == 303
    assert answer.getheader("Location") == "/", "the token leaves the address bar"
    cookie = answer.getheader("Set-Cookie")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    connection.close()
    assert get(secret_page.url, Cookie=cookie.split(";")[0])[0] == 200


def test_the_token_is_not_in_the_report(secret_page: PageSink) -> None:
    assert SECRET not in json.dumps(secret_page.details())
    assert SECRET not in make_sink(f"http://127.0.0.1:0?token={SECRET}").shown
    body = get(secret_page.url + "stats", Authorization=f"Bearer {SECRET}")[1]
    assert SECRET.encode() not in body


def test_a_page_of_somebody_else_may_not_look(page: PageSink) -> None:
    assert get(page.url + "stats", Host="evil.example")[0] == 403
    assert get(page.url + "stats", Origin="http://evil.example")[0] == 403
    port = page._server._port
    assert get(page.url + "stats", Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200


# --- limits --------------------------------------------------------------------------------------------------------


def test_viewers_are_limited(page: PageSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page._server.hub, "_max", 2)

    async def run() -> list[int]:
        async with aiohttp.ClientSession() as session, session.ws_connect(page.url + "ws"), session.ws_connect(page.url + "ws"):
            await until(lambda: page._server.hub.counts()["websocket"] == 2)
            statuses = [(await session.get(page.url + path)).status for path in ("ws", "mjpeg", "stats")]
        await until(lambda: not page._server.hub.watched)
        async with aiohttp.ClientSession() as session, session.ws_connect(page.url + "ws"):
            return statuses

    assert asyncio.run(run()) == [503, 503, 200]


def test_a_thousand_connections_do_not_stop_the_page(page: PageSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "FIRST_REQUEST_S", 0.3)
    crowd = []
    for _ in range(300):
        crowd.append(socket.create_connection(("127.0.0.1", page._server._port), timeout=5))
    deadline = time.monotonic() + 10
    status = 0
    while status != 200 and time.monotonic() < deadline:
        try:
            status = get(page.url + "healthz")[0]
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
    for connection in crowd:
        connection.close()
    assert status == 200
    assert page._server.guard.refused >= 200


def test_a_client_that_trickles_its_request_is_cut_off(page: PageSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "FIRST_REQUEST_S", 0.3)
    with socket.create_connection(("127.0.0.1", page._server._port), timeout=5) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ")
        assert slow.recv(100) == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_sent_to_it(page: PageSink, method: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", page._server._port, timeout=10)
    connection.request(method, "/stats", body=b"x" * 100)
    assert connection.getresponse().status == 405
    connection.close()


def test_a_body_without_end_is_not_read(page: PageSink) -> None:
    with socket.create_connection(("127.0.0.1", page._server._port), timeout=10) as flood:
        flood.sendall(b"GET /stats HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        with pytest.raises(OSError):
            flood.sendall(chunk * 2000)


def test_oversize_headers_and_messages_are_refused(page: PageSink) -> None:
    assert get(page.url, **{"X-Long": "x" * 20_000})[0] == 400

    async def conversation(socket_: aiohttp.ClientWebSocketResponse) -> int | None:
        await socket_.send_str("x" * 5000)
        while (await socket_.receive(timeout=5)).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            continue
        return socket_.close_code

    assert talk(page, conversation) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


@pytest.mark.parametrize("text", ["hello", "[1]", "{}", '{"ack": "1"}', '{"ack": true}', "[" * 900])
def test_nonsense_ends_the_conversation(page: PageSink, text: str) -> None:
    async def conversation(socket_: aiohttp.ClientWebSocketResponse) -> int | None:
        await socket_.send_str(text)
        while (await socket_.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
            continue
        return socket_.close_code

    assert talk(page, conversation) == aiohttp.WSCloseCode.POLICY_VIOLATION


def test_a_flood_of_messages_ends_the_conversation(page: PageSink) -> None:
    async def conversation(socket_: aiohttp.ClientWebSocketResponse) -> int | None:
        for _ in range(guard.MAX_MESSAGES_PER_S + 50):
            if not socket_.closed:
                await socket_.send_json({"ack": 0})
        while (await socket_.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
            continue
        return socket_.close_code

    assert talk(page, conversation) == aiohttp.WSCloseCode.POLICY_VIOLATION


def test_rate_limit_counts_within_a_second() -> None:
    limit = RateLimit(3)
    assert [limit.exceeded(10.0 + index / 10) for index in range(5)] == [False, False, False, True, True]
    assert not limit.exceeded(11.5)


def test_a_taken_port_is_told(page: PageSink) -> None:
    second = make_sink(f"http://127.0.0.1:{page._server._port}")
    with pytest.raises(SourceError, match="in use"):
        second.open(Host())


def test_areas_leave_out_what_is_ignored() -> None:
    labels = np.full((8, 8), 255, np.uint8)
    labels[:4] = 2
    assert class_areas(labels, 4) == [0.0, 0.0, 0.5, 0.0]
