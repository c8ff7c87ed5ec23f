"""How a served kit stands: its nodes, its latest run directory, and what each client did last."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.engine.flower import commands
from fedloom.engine.flower.processes import ask
from fedloom.engine.flower.serving import Server, node_ids
from fedloom.store.in_force import in_force
from fedloom.store.run_directory import RunDirectory

_OF_CLIENTS = {
    "contribution": "contributed",
    "evaluation": "evaluated",
    "dropout": "did not answer",
    "late": "late",
    "late_dropped": "late, and dropped",
    "refused": "refused",
    "client_refused": "refused",
}


@dataclass(frozen=True)
class ClientStanding:
    """One line of the table, as text."""

    name: str
    node: str
    last: str = "nothing yet"
    round: str = ""
    when: str = ""


@dataclass(frozen=True)
class Standing:
    """clients in the kit's order; runs as Flower lists them, the latest first; rounds: 0 before there is a run."""

    clients: tuple[ClientStanding, ...]
    runs: Sequence[Mapping[str, Any]]
    round: int = 0
    rounds: int = 0
    seconds_left: float | None = None


def standing(server: Server) -> Standing:
    """Ask Flower, and read the journal of the kit's run if there is one. Raises: RunError if nobody serves the kit."""
    found = ask(commands.registered(), lambda _: None, env=server.environment)
    nodes = {str(node["node-id"]): str(node["status"]) for node in found["nodes"]}
    runs = ask(commands.listed(), lambda _: None, env=server.environment)["runs"]
    ids = node_ids(server)
    statuses = {name: nodes.get(ids.get(name, ""), "unknown to Flower") for name in server.kit.clients}
    path = _latest(server)
    if path is None:
        return Standing(tuple(ClientStanding(name, status) for name, status in statuses.items()), runs)
    directory = RunDirectory.open(path)
    records = in_force(directory.journal.records())
    rounds = directory.experiment().training.rounds
    committed = [record for record in records if record["kind"] == "round_committed"]
    return Standing(
        tuple(_client(name, status, records) for name, status in statuses.items()),
        runs,
        len(committed),
        rounds,
        (rounds - len(committed)) * statistics.median(record["seconds"] for record in committed) if committed else None,
    )


def _latest(server: Server) -> Path | None:
    """The run directory that was written last."""
    journals = sorted(server.runs.glob("[!.]*/journal.jsonl"), key=lambda path: path.stat().st_mtime)
    return journals[-1].parent if journals else None


def _client(name: str, node: str, records: Sequence[Mapping[str, Any]]) -> ClientStanding:
    own = [record for record in records if record.get("client") == name and record["kind"] in _OF_CLIENTS]
    if not own:
        return ClientStanding(name, node)
    last = own[-1]
    what = _OF_CLIENTS[last["kind"]] + (f": {last['reason']}" if last.get("reason") else "")
    return ClientStanding(name, node, what, str(last.get("round", "")), str(last["time"]))
