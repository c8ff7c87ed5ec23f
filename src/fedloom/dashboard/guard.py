"""Who may talk to the dashboard: whoever has its token, from its own page, under its own name."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}
READING = ("GET", "HEAD")


@dataclass(frozen=True)
class Guard:
    """In front of the application. hosts: what the Host header may be.  token: as printed, once."""

    app: ASGIApp
    token: str
    hosts: frozenset[str]
    cookie: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        answer = self._answer(Request(scope))
        await (answer or self.app)(scope, receive, _with_headers(send))

    def _answer(self, request: Request) -> Response | None:
        """A refusal, or the way in; None where the application may answer."""
        if request.headers.get("host") not in self.hosts:
            return PlainTextResponse("This page is only served under its own address.", 403)
        if request.url.path == "/" and request.method == "GET" and "token" in request.query_params:
            return self._let_in(request)
        if not self._is(request.cookies.get(self.cookie)) and not self._scrapes(request):
            return PlainTextResponse("Open the address that `fedloom dashboard` printed: it holds the token.", 403)
        if request.method not in READING and not self._from_own_page(request):
            return PlainTextResponse("Changes are only taken from the dashboard's own page.", 403)
        return None

    def _let_in(self, request: Request) -> Response:
        """The token moves from the address into a cookie that no script and no other site sees."""
        if not self._is(parse_qs(request.url.query)["token"][0]):
            return PlainTextResponse("This is not the token of this dashboard.", 403)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
        return answer

    def _scrapes(self, request: Request) -> bool:
        """Whether it is Prometheus, which sends the token as a header and has no cookies; for /metrics alone."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        reads = request.method in READING and request.url.path.startswith("/metrics/")
        return reads and kind.lower() == "bearer" and self._is(given)

    def _is(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def _from_own_page(self, request: Request) -> bool:
        own = f"http://{request.headers['host']}"
        kind = request.headers.get("content-type", "").split(";")[0].strip()
        return request.headers.get("origin") == own and kind == "application/json"


def hosts_of(port: int) -> frozenset[str]:
    """What a browser on this machine may call the server."""
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*_without(message["headers"], HEADERS), *_pairs()]
        await send(message)

    return sending


def _without(headers: Iterable[tuple[bytes, bytes]], names: Iterable[str]) -> list[tuple[bytes, bytes]]:
    out = {name.encode() for name in names}
    return [(name, value) for name, value in headers if name.lower() not in out]


def _pairs() -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in HEADERS.items()]
