"""Who may look, and how much of the machine all of them together may take."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

MAX_VIEWERS = 16
MAX_CONNECTIONS = 64
MAX_BODY_BYTES = 4096
MAX_MESSAGE_BYTES = 1024
MAX_MESSAGES_PER_S = 200
FIRST_REQUEST_S = 5.0
KEEP_ALIVE_S = 15.0
SEND_S = 10.0
COOKIE = "edgeseg_token"
_OPEN_PATHS = ("/healthz",)
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def is_local(host: str) -> bool:
    """``host`` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """The middleware, and the factory of connections.

    Args:
        host: what the server is bound to.
        token: when not empty, asked for on all but ``/healthz``: as ``Authorization: Bearer``, or once as ``?token=``, which
            is kept in a cookie so that it does not stay in the address bar.
    """

    def __init__(self, host: str, token: str) -> None:
        self._host, self._token = host, token
        self._silent: set[int] = set()
        self.refused = 0

    # --- requests --------------------------------------------------------------------------------------------------

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._silent.discard(id(request.protocol))
        try:
            refusal = self._refusal(request)
            response = refusal if refusal is not None else await handler(request)
        except web.HTTPException as error:
            error.headers.update(SECURITY_HEADERS)
            raise
        if not response.prepared:
            response.headers.update(SECURITY_HEADERS)
        return response

    def _refusal(self, request: web.Request) -> web.StreamResponse | None:
        if not self._host_is_ours(request):
            return web.Response(status=403, text="wrong Host\n")
        if not self._origin_is_ours(request):
            return web.Response(status=403, text="wrong Origin\n")
        if not self._token or request.path in _OPEN_PATHS:
            return None
        if self._matches(request.query.get("token", "")):
            return self._remember(request)
        if self._matches(request.cookies.get(COOKIE, "")) or self._matches(_bearer(request)):
            return None
        return web.Response(status=401, text="token needed: open /?token=...\n", headers={"WWW-Authenticate": "Bearer"})

    def _host_is_ours(self, request: web.Request) -> bool:
        # A page of somebody else may make its own name resolve to 127.0.0.1; the Host header tells. A token settles it too.
        return bool(self._token) or _host_name(request.host) in (*_LOCAL_NAMES, self._host)

    def _origin_is_ours(self, request: web.Request) -> bool:
        # Browsers let any page open a WebSocket anywhere, cookies included; they always say whose page it is.
        origin = request.headers.get("Origin")
        return origin is None or urlsplit(origin).netloc == request.host

    def _matches(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _remember(self, request: web.Request) -> web.StreamResponse | None:
        if request.path != "/":
            return None
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(COOKIE, self._token, httponly=True, samesite="Strict", path="/")
        return response

    # --- connections -----------------------------------------------------------------------------------------------

    def factory(self, server: Any) -> Callable[[], asyncio.BaseProtocol]:
        """For ``loop.create_server``: ``server`` makes the protocols; too many connections, and silent ones, are closed."""

        def make() -> asyncio.BaseProtocol:
            if len(server.connections) >= MAX_CONNECTIONS:
                self.refused += 1
                return _Refused()
            protocol: Any = server()
            self._silent.add(id(protocol))  # the timer below keeps the object, so no other can have its id meanwhile
            asyncio.get_running_loop().call_later(FIRST_REQUEST_S, self._check, protocol)
            return protocol  # type: ignore[no-any-return]

        return make

    def _check(self, protocol: Any) -> None:
        # A client that trickles its headers in holds a connection and sends no request.
        if id(protocol) in self._silent:
            self._silent.discard(id(protocol))
            self.refused += 1
            protocol.force_close()


class _Refused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class RateLimit:
    """At most ``per_second`` events in any second that starts with an event."""

    def __init__(self, per_second: int) -> None:
        self._most, self._count, self._since = per_second, 0, 0.0

    def exceeded(self, now: float) -> bool:
        """Count an event at ``now`` seconds of any steady clock."""
        if now - self._since >= 1:
            self._since, self._count = now, 0
        self._count += 1
        return self._count > self._most


def _bearer(request: web.Request) -> str:
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    return value if kind.lower() == "bearer" else ""


def _host_name(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""
