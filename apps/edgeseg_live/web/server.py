"""The HTTP server of the page: an asyncio loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from edgeseg.errors import SourceError
from edgeseg_live.web.guard import (
    KEEP_ALIVE_S,
    MAX_BODY_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGES_PER_S,
    MAX_VIEWERS,
    SECURITY_HEADERS,
    SEND_S,
    Guard,
    RateLimit,
)
from edgeseg_live.web.hub import Hub, Packet, Viewer

_HERE = Path(__file__).parent
_STATS_PERIOD_S = 0.5
_BOUNDARY = "frame"
_FILES = {"/": ("index.html", "text/html"), "/app.js": ("app.js", "text/javascript"), "/style.css": ("style.css", "text/css")}


class PageServer:
    """Serves the page, ``/ws``, ``/mjpeg``, ``/stats`` and ``/healthz``.

    Args:
        stats: gives what ``/stats`` answers; called in the server's thread, must not wait.
        classes: what ``/classes`` answers: name and colour of each.
    """

    def __init__(
        self, host: str, port: int, token: str, stats: Callable[[], dict[str, Any]], classes: list[dict[str, Any]]
    ) -> None:
        self._host, self._port, self._token = host, port, token
        self._stats, self._classes = stats, classes
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._serving = threading.Event()
        self.hub = Hub(self._loop, MAX_VIEWERS)
        self.guard = Guard(host, token)

    # --- life, called from other threads ---------------------------------------------------------------------------

    def start(self) -> str:
        """Bind and serve; returns the URL.

        Raises:
            SourceError: the address cannot be bound.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            self._socket = socket.create_server((self._host, self._port), family=family, backlog=64)
        except (OSError, OverflowError) as error:
            self._loop.close()
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceError(
                f"--sink http://{self._host}:{self._port}: {reason}", "a free port of this machine", "port 0 takes any"
            ) from error
        self._port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=(self._socket,), name="web", daemon=True)
        self._thread.start()
        self._serving.wait()
        return self.url

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/"

    def close(self) -> None:
        """Let the viewers go and stop serving."""
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
        if self._socket is not None:
            self._socket.close()

    def _run(self, bound: socket.socket) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            runner, server = self._loop.run_until_complete(self._serve(bound))
        finally:
            self._serving.set()
        self._loop.run_forever()
        self.hub.close()
        server.close()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _serve(self, bound: socket.socket) -> tuple[web.AppRunner, asyncio.AbstractServer]:
        limits: dict[str, Any] = {"keepalive_timeout": KEEP_ALIVE_S, "lingering_time": 0, "shutdown_timeout": 1.0}
        runner = web.AppRunner(self.application(), access_log=None, handle_signals=False, handler_cancellation=True, **limits)
        await runner.setup()
        server = await self._loop.create_server(self.guard.factory(runner.server), sock=bound)
        return runner, server

    # --- routes ----------------------------------------------------------------------------------------------------

    def application(self) -> web.Application:
        """The routes and their guard."""
        app = web.Application(middlewares=[self.guard.middleware], client_max_size=MAX_BODY_BYTES)
        for path in _FILES:
            app.router.add_get(path, self._file)
        app.router.add_get("/ws", self._websocket)
        app.router.add_get("/mjpeg", self._mjpeg)
        app.router.add_get("/stats", self._get_stats)
        app.router.add_get("/classes", self._get_classes)
        app.router.add_get("/healthz", self._health)
        return app

    async def _file(self, request: web.Request) -> web.Response:
        name, kind = _FILES[request.path]
        return web.Response(body=(_HERE / name).read_bytes(), content_type=kind, charset="utf-8")

    async def _get_stats(self, request: web.Request) -> web.Response:
        return web.json_response(self._stats())

    async def _get_classes(self, request: web.Request) -> web.Response:
        return web.json_response({"classes": self._classes})

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _mjpeg(self, request: web.Request) -> web.StreamResponse:
        viewer = self.hub.join("mjpeg")
        if viewer is None:
            return _full()
        headers = {"Content-Type": f"multipart/x-mixed-replace; boundary={_BOUNDARY}", **SECURITY_HEADERS}
        response = web.StreamResponse(headers=headers)
        try:
            await response.prepare(request)
            await response.write(f"--{_BOUNDARY}\r\n".encode())
            while (packet := await self.hub.next_packet(viewer)) is not None:
                await asyncio.wait_for(response.write(_part(packet)), SEND_S)
                viewer.acknowledge(packet.number)
        except (TimeoutError, asyncio.TimeoutError, ConnectionError):
            request.protocol.force_close()
        finally:
            self.hub.leave(viewer)
        return response

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        viewer = self.hub.join("websocket")
        if viewer is None:
            return _full()
        socket_ = web.WebSocketResponse(heartbeat=20, max_msg_size=MAX_MESSAGE_BYTES, compress=False, timeout=1.0)
        tasks: list[asyncio.Task[None]] = []
        try:
            await socket_.prepare(request)
            tasks = [asyncio.ensure_future(self._send_frames(socket_, viewer)), asyncio.ensure_future(self._send_stats(socket_))]
            await self._receive(socket_, viewer)
        finally:
            self.hub.leave(viewer)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return socket_

    async def _send_frames(self, socket_: web.WebSocketResponse, viewer: Viewer) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.TimeoutError):
            while (packet := await self.hub.next_packet(viewer)) is not None:
                await asyncio.wait_for(socket_.send_bytes(packet.message), SEND_S)
        await socket_.close()

    async def _send_stats(self, socket_: web.WebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.TimeoutError):
            while not socket_.closed:
                await asyncio.wait_for(socket_.send_str(json.dumps({"stats": self._stats()})), SEND_S)
                await asyncio.sleep(_STATS_PERIOD_S)

    async def _receive(self, socket_: web.WebSocketResponse, viewer: Viewer) -> None:
        limit = RateLimit(MAX_MESSAGES_PER_S)
        async for message in socket_:
            number = _acknowledged(message.data) if message.type is WSMsgType.TEXT else None
            if number is None or limit.exceeded(self._loop.time()):
                await socket_.close(code=1008, message=b'only {"ack": number} is understood, 200 a second')
                return
            self.hub.seen(viewer, number)


def _part(packet: Packet) -> bytes:
    # The boundary follows at once: browsers show a part when they see where it ends.
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(packet.jpeg)}\r\n\r\n"
    return head.encode() + packet.jpeg + f"\r\n--{_BOUNDARY}\r\n".encode()


def _full() -> web.Response:
    return web.Response(status=503, text=f"{MAX_VIEWERS} viewers are here already\n", headers={"Retry-After": "10"})


def _acknowledged(text: str) -> int | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    number = value.get("ack") if isinstance(value, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None
