"""The routes of the dashboard. Reading never writes; the one change is a request, which the engine takes or refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request as Http
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from fedloom.dashboard.guard import Guard, hosts_of
from fedloom.dashboard.shown import SORTS, delta
from fedloom.dashboard.watch import Watch, Watches
from fedloom.engine.control import ask
from fedloom.errors import FedLoomError
from fedloom.store.requests import Request

POLL_SECONDS = 0.05  # between looks at the size of the journal
IDLE_SECONDS = 1.0  # until all is reckoned again though nothing came: times go on
LONGEST_BODY = 16_384  # bytes
MOST_ROWS = 100
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FIELDS = frozenset({"id", "action", "seen", "to", "client", "reason"})


def make_app(watches: Watches, token: str, port: int) -> Guard:
    """The application, behind its guard. port: where it is served, as the Host header must name it."""
    routes: list[BaseRoute] = [
        *(Route(path, _static(name), methods=["GET"]) for path, name in _files().items()),
        Route("/metrics/{run}", _Runs(watches).metrics, methods=["GET"]),
        Route("/api/runs", _Runs(watches).listed, methods=["GET"]),
        Route("/api/runs/{run}/view", _Runs(watches).view, methods=["GET"]),
        Route("/api/runs/{run}/events", _Runs(watches).events, methods=["GET"]),
        Route("/api/runs/{run}/clients", _Runs(watches).clients, methods=["GET"]),
        Route("/api/runs/{run}/curve", _Runs(watches).curve, methods=["GET"]),
        Route("/api/runs/{run}/requests", _Runs(watches).ask, methods=["POST"]),
    ]
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, routes=routes)
    return Guard(app, token, hosts_of(port), f"fedloom_{port}")


def _files() -> dict[str, str]:
    """path -> name of each file of the page."""
    names = [entry.name for entry in files("fedloom.dashboard").joinpath("static").iterdir()]
    return {f"/{name}": name for name in sorted(names) if PurePosixPath(name).suffix in KINDS} | {"/": "index.html"}


def _static(name: str) -> Any:
    content = files("fedloom.dashboard").joinpath("static", name).read_bytes()

    async def served(_: Http) -> Response:
        return Response(content, media_type=KINDS[PurePosixPath(name).suffix])

    return served


class _Runs:
    """The routes below /api/runs."""

    def __init__(self, watches: Watches) -> None:
        self.watches = watches

    async def listed(self, _: Http) -> Response:
        return JSONResponse(await asyncio.to_thread(self.watches.names))

    async def view(self, http: Http) -> Response:
        watch = await self._watch(http)
        return _no_run() if watch is None else JSONResponse(await asyncio.to_thread(watch.look))

    async def metrics(self, http: Http) -> Response:
        watch = await self._watch(http)
        if watch is None:
            return _no_run()
        return Response(await asyncio.to_thread(watch.metrics), media_type="text/plain; version=0.0.4")

    async def events(self, http: Http) -> Response:
        watch = await self._watch(http)
        if watch is None:
            return _no_run()
        return StreamingResponse(messages(watch), media_type="text/event-stream")

    async def clients(self, http: Http) -> Response:
        watch, asked = await self._watch(http), http.query_params
        sort = asked.get("sort", "name")
        try:
            offset, limit = int(asked.get("offset", 0)), int(asked.get("limit", 25))
        except ValueError:
            return _said("offset and limit are whole numbers", 422)
        if watch is None:
            return _no_run()
        if sort not in SORTS or offset < 0 or not 1 <= limit <= MOST_ROWS:
            return _said(f"sort: one of {', '.join(SORTS)}; limit: 1 to {MOST_ROWS}; offset: 0 or more", 422)
        page = {"sort": sort, "descending": asked.get("descending") == "true", "search": asked.get("search", "")}
        return JSONResponse(await asyncio.to_thread(watch.clients, **page, offset=offset, limit=limit))

    async def curve(self, http: Http) -> Response:
        watch = await self._watch(http)
        if watch is None:
            return _no_run()
        return JSONResponse(await asyncio.to_thread(watch.curve, http.query_params.get("client", "")))

    async def ask(self, http: Http) -> Response:
        """Ask something of the run: 200 with whether it is done, 409 with why it is not, 422 for what is no request."""
        watch = await self._watch(http)
        if watch is None:
            return _no_run()
        given = await _table(http)
        if given is None or not given.keys() <= FIELDS or not {"id", "action", "seen"} <= given.keys():
            return _said(f"a request is a JSON object of {', '.join(sorted(FIELDS))}", 422)
        if type(given["seen"]) is not int:
            return _said("a request says in `seen` which round the page showed last", 422)
        try:
            done = await asyncio.to_thread(ask, watch.path, Request(**given))
        except FedLoomError as error:
            return _said(str(error), 409)
        return JSONResponse({"done": done})

    async def _watch(self, http: Http) -> Watch | None:
        return await asyncio.to_thread(self.watches.get, http.path_params["run"])


async def messages(watch: Watch) -> AsyncIterator[str]:
    """Server-sent events without end: first "all" of the view, then a "delta" whenever something changed."""
    before: dict[str, Any] = await asyncio.to_thread(watch.look)
    yield _event("all", before)
    while True:
        await _something_new(watch)
        after = await asyncio.to_thread(watch.look)
        if after != before:
            yield _event("delta", delta(before, after))
            before = after
        else:
            yield ": nothing new\n\n"  # so that a page that is gone is noticed


async def _something_new(watch: Watch) -> None:
    """Until the journal grew, or times on the page have gone on."""
    for _ in range(round(IDLE_SECONDS / POLL_SECONDS)):
        await asyncio.sleep(POLL_SECONDS)
        if watch.unread():
            return


def _event(name: str, value: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(value, separators=(',', ':'))}\n\n"


async def _table(http: Http) -> dict[str, Any] | None:
    """The JSON object of a body that is not too long; None where there is none."""
    body = b""
    async for part in http.stream():
        body += part
        if len(body) > LONGEST_BODY:
            return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_run() -> Response:
    return _said("there is no such run", 404)


def _said(error: str, status: int) -> Response:
    return JSONResponse({"error": error}, status)
