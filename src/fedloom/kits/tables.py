"""kit.toml: what a kit is, for whom and until when."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import AwareDatetime

from fedloom.errors import ConfigError, KitError
from fedloom.kits.layout import KIT
from fedloom.rounds.wire import PROTOCOL
from fedloom.spec.dump import literal
from fedloom.spec.experiment import Name, Table
from fedloom.spec.positions import positions
from fedloom.spec.toml import tables_of, text_of
from fedloom.spec.validate import table_of

Kind = Literal["server", "client"]


class KitTable(Table):
    """What both kinds say.

    run: name of the run.  server: host:port.  protocol: of assignments and contributions.  id: of this kit alone.
    """

    kind: Kind
    id: str
    run: Name
    server: str
    protocol: int
    created: AwareDatetime
    expires: AwareDatetime


class ClientKitTable(KitTable):
    """ca_fingerprint: SHA-256 of the only authority that may speak for the server."""

    client: Name
    ca_fingerprint: str


T = TypeVar("T", bound=Table)
K = TypeVar("K", bound=KitTable)
_HOW = {
    "server": "the operator serves it: fedloom serve DIRECTORY",
    "client": "a site joins with it: fedloom join DIRECTORY",
}


def current_time() -> datetime:
    """Now, in whole seconds of UTC: what kits and certificates hold."""
    return datetime.now(UTC).replace(microsecond=0)


def checked_table(raw: dict[str, Any], model: type[T], text: str, path: Path) -> T:
    """The table of a text that was read. Raises: ConfigError with every problem and its line."""
    value, problems = table_of(model, raw)
    if value is None:
        lines = positions(text)
        raise ConfigError([problem.line(lines, raw) for problem in problems], where=path)
    return value


def read_kit_table(directory: Path, kind: Kind, model: type[K], now: datetime) -> K:
    """kit.toml of a kit of this kind.

    Raises: KitError if it is of the other kind or another protocol, or has expired; ConfigError for wrong keys.
    """
    path = directory / KIT
    text = text_of(path)
    raw = tables_of(text, str(path))
    found = raw.get("kind")
    if found != kind and found in _HOW:
        raise KitError(f"this is the kit of a {found}", where=directory, expected=f"that of a {kind}", do=_do(found))
    if isinstance(raw.get("protocol"), int) and raw["protocol"] != PROTOCOL:
        what = "the kit is for another version of the protocol"
        do = "Install the version of fedloom that made it, or ask the operator for a new kit"
        raise KitError(what, where=path, expected=PROTOCOL, found=raw["protocol"], do=do)
    table = checked_table(raw, model, text, path)
    if now >= table.expires:
        do = "Ask the operator for a new one; fedloom provision makes it"
        raise KitError(f"the kit expired on {table.expires:%Y-%m-%d}", where=path, do=do)
    return table


def _do(kind: str) -> str:
    return f"Of this one, {_HOW[kind]}"


def dumped(table: KitTable) -> str:
    """kit.toml as a text."""
    return "".join(f"{name} = {literal(value)}\n" for name, value in table)
