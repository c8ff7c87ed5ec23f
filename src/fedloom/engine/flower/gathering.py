"""Who is there before a round: nodes say which client they are, and clients say what they have."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from fedloom.engine.base import ClientRows
from fedloom.engine.flower.calls import CLASSES, DESCRIBE, HELLO, allowed_by, call
from fedloom.engine.flower.pins import Pin
from fedloom.engine.flower.post import TooLateError, ask_all
from fedloom.engine.flower.wire import Envelope
from fedloom.engine.for_client import experiment_of
from fedloom.errors import AdapterError, FedLoomError, RunError
from fedloom.rounds.description import Description, description_from_bytes
from fedloom.rounds.world import active_clients
from fedloom.spec.dump import dump
from fedloom.spec.experiment import Experiment

Refuse = Callable[[str, str], None]  # (client or node, reason): written down where the operator sees it
OTHER_BASE = "its base model has other weights, layers or classes than that of most clients; put the same model there"
PAUSE = 1.0  # seconds between two looks for nodes
MOST_TOLD = 8  # refusals in one message
LARGEST = 64 * 2**20  # bytes of a description: names, shapes and the head as it begins


@dataclass
class Gathered:
    """Nodes that were asked who they are, and what became of it.

    nodes: client -> node.  descriptions: client -> what it said.  known: nodes that were asked before.
    rows: client -> its counts, filled in as clients describe themselves.
    base: as of `_base_of`, which all who come later are held to; empty before the run has begun.
    facts: of a run that has begun (base_digest, labels, rows by client), which all who come later are held to.
    refused: clients that a node said to be, and was not believed.
    limits: client -> bytes that its site said last that training may take; None for any.
    """

    nodes: dict[str, int] = field(default_factory=dict)
    descriptions: dict[str, Description] = field(default_factory=dict)
    rows: dict[str, ClientRows] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)
    base: str = ""
    labels: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    limits: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Gathering:
    """The rules by which nodes become clients.

    pins: client -> the key of the only node that may be it; empty: any node may say who it is.
    seconds: that a node has for an answer.  refused: whoever was refused so far, and why, for who reads an error.
    """

    grid: Grid
    experiment: Experiment
    refuse: Refuse
    pins: Mapping[str, Pin] = field(default_factory=dict)
    seconds: float = 600.0
    refused: Sequence[tuple[str, str]] = ()

    @property
    def clients(self) -> list[str]:
        return [client.name for client in active_clients(self.experiment)]

    def begin(self, gathered: Gathered, *, seconds: float, minimum: int) -> None:
        """Wait until all clients are there, or the time is over, and let them describe themselves.

        Raises: RunError if fewer than `minimum` of them fit together.
        """
        ends = time.monotonic() + seconds
        self.look(gathered)
        while set(gathered.nodes) != set(self.clients) and time.monotonic() < ends:
            time.sleep(PAUSE)
            self.look(gathered)
        for client in [client for client in self.clients if client not in gathered.nodes.keys() | gathered.refused]:
            self.refuse(client, "not there when the run began; it takes part as soon as it comes")
        self.describe(gathered)
        self._keep_one_base(gathered)
        if len(gathered.descriptions) < max(1, minimum):
            raise RunError(
                "too few clients are there to begin",
                where=f"run {self.experiment.name!r}",
                expected=f"at least {max(1, minimum)} of {', '.join(self.clients)}",
                found="; ".join([", ".join(gathered.descriptions) or "none", *self._reasons()]),
                do="Start `fedloom join` at the sites, see to what was refused, and submit the run again",
            )

    def _reasons(self) -> list[str]:
        """Of the first who were refused: the server's log, which is elsewhere, has all."""
        told = [f"{who}: {reason}" for who, reason in self.refused[:MOST_TOLD]]
        more = len(self.refused) - len(told)
        return [*told, f"{more} more in the server's log"] if more else told

    def look(self, gathered: Gathered) -> None:
        """Ask the nodes that have come since the last time who they are, and forget those that have gone."""
        there = {node.node_id: node.public_key.hex() for node in self.grid.get_nodes()}
        self._forget_gone(gathered, set(there))
        new = {str(node): node for node in there if node not in gathered.known}
        gathered.known |= set(new.values())
        hellos = ask_all(self.grid, new, [(node, call(HELLO)) for node in new], seconds=self.seconds, at_most=LARGEST)
        for node, answer in hellos.items():
            client = self._who(gathered, answer, node, there[new[node]])
            if client in gathered.nodes:
                self.refuse(client, f"node {node} says that it is {client!r}, which node {gathered.nodes[client]} is")
            elif client is not None:
                gathered.nodes[client] = new[node]
                if isinstance(answer, Envelope):
                    gathered.limits[client] = allowed_by(answer)

    def describe(self, gathered: Gathered) -> None:
        """Let clients that are there, and were not asked yet, say what they have; what does not fit is sent away."""
        new = {client: node for client, node in gathered.nodes.items() if client not in gathered.descriptions}
        if not new:
            return
        gathered.labels = gathered.labels or self._labels(new, gathered.facts)
        labels = json.dumps(gathered.labels)
        calls = [(client, call(DESCRIBE, client=client, run=self.run_for(client), labels=labels)) for client in new]
        for client, answer in ask_all(self.grid, new, calls, seconds=self.seconds, at_most=LARGEST).items():
            try:
                self._take_in(gathered, _accepted(client, answer, gathered))
            except TooLateError as error:
                gathered.known.discard(new[client])
                self._send_away(gathered, client, str(error))
            except FedLoomError as error:
                self._send_away(gathered, client, str(error))

    def _take_in(self, gathered: Gathered, described: Description) -> None:
        gathered.descriptions[described.client] = described
        gathered.rows[described.client] = ClientRows(described.train, described.held_out, described.dropped)

    def _send_away(self, gathered: Gathered, client: str, reason: str) -> None:
        del gathered.nodes[client]
        gathered.descriptions.pop(client, None)
        gathered.rows.pop(client, None)
        self.refuse(client, reason)

    def _keep_one_base(self, gathered: Gathered) -> None:
        """All have the base that most have, its layers and head; of equally many, that of the first by name."""
        if not gathered.descriptions:
            return
        bases = {client: _base_of(gathered.descriptions[client]) for client in sorted(gathered.descriptions)}
        gathered.base, _ = Counter(bases.values()).most_common(1)[0]
        for client in [client for client, base in bases.items() if base != gathered.base]:
            self._send_away(gathered, client, OTHER_BASE)

    def _forget_gone(self, gathered: Gathered, there: set[int]) -> None:
        gathered.known &= there
        for client in [client for client, node in gathered.nodes.items() if node not in there]:
            del gathered.nodes[client]

    def _who(self, gathered: Gathered, answer: Envelope | FedLoomError, node: str, key: str) -> str | None:
        """The client that a node is; None if it may not be one, which is written down."""
        if isinstance(answer, FedLoomError):
            self.refuse(f"node {node}", str(answer))
            return None
        client, clients = str(answer.facts.get("client", "")), self.clients
        partition = answer.facts.get("partition", -1)
        if not client and isinstance(partition, int) and 0 <= partition < len(clients):
            client = clients[partition]
        if client not in clients:
            self.refuse(f"node {node}", f"it says that it is {client!r}, which is no client of this run")
        elif reason := self._pinned_otherwise(client, key):
            gathered.refused.add(client)
            self.refuse(client, f"node {node} says that it is {client!r}: {reason}")
        else:
            return client
        return None

    def _pinned_otherwise(self, client: str, key: str) -> str | None:
        if not self.pins:
            return None
        pin = self.pins.get(client)
        return "no kit was made for it" if pin is None else pin.refusal(key)

    def run_for(self, client: str) -> str:
        """What one client is told of the experiment, as TOML."""
        return dump(experiment_of(self.experiment, client))

    def _labels(self, come: Mapping[str, int], facts: Mapping[str, object]) -> tuple[str, ...]:
        """The class names: those of the run, of the configuration, or else all that the clients have, sorted."""
        if not self.experiment.model.classifies:
            return ()
        fixed = facts.get("labels") or self.experiment.model.labels
        if isinstance(fixed, Sequence):
            return tuple(fixed)
        found: set[str] = set()
        calls = [(client, call(CLASSES, client=client, run=self.run_for(client))) for client in come]
        for client, answer in ask_all(self.grid, come, calls, seconds=self.seconds, at_most=LARGEST).items():
            try:
                found |= set(_classes(answer))
            except FedLoomError as error:
                self.refuse(client, str(error))
        if len(found) < 2:
            raise RunError(
                "the clients' rows have fewer than two labels",
                where=f"run {self.experiment.name!r}",
                expected="at least 2",
                found=sorted(found),
                do="Look at the label columns of the sites, or name the classes in [model] labels",
            )
        return tuple(sorted(found))


def _base_of(description: Description) -> str:
    """A digest of everything that must be the same for all: weights, layers, head, dtype, classes."""
    head = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in sorted(description.head.items())}
    facts = (description.base_digest, sorted(description.modules.items()), head, description.dtype, description.labels)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _accepted(client: str, answer: Envelope | FedLoomError, gathered: Gathered) -> Description:
    """Raises: FedLoomError for an answer that is none, or a client that does not fit the run."""
    if isinstance(answer, FedLoomError):
        raise answer
    description = description_from_bytes(answer.body)
    where = f"client {client!r}"
    if description.client != client:
        raise AdapterError("the description is of another client", where=where, found=repr(description.client))
    if gathered.base and _base_of(description) != gathered.base:
        raise RunError(OTHER_BASE, where=where)
    _refuse_other(description, gathered.facts)
    return description


def _classes(answer: Envelope | FedLoomError) -> list[str]:
    if isinstance(answer, FedLoomError):
        raise answer
    try:
        found = json.loads(answer.text("classes"))
    except (ValueError, RecursionError) as error:
        raise AdapterError("the class names cannot be read", where="a client's answer", found=str(error)) from error
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise AdapterError("the class names are not a list of texts", where="a client's answer", found=repr(found)[:80])
    return found


def _refuse_other(description: Description, facts: Mapping[str, object]) -> None:
    """A client of a run that has begun has its base, and the rows that it had. Raises: RunError."""
    rows = facts.get("rows")
    digest = rows.get(description.client) if isinstance(rows, Mapping) else None
    pairs = (
        ("base model", description.base_digest, facts.get("base_digest")),
        ("rows", description.rows_digest, digest),
    )
    for what, found, expected in pairs:
        if expected is not None and found != expected:
            raise RunError(
                f"client {description.client!r} has another {what} than when the run was started",
                expected=f"digest {str(expected)[:12]}",
                found=f"digest {found[:12]}",
                do="Put it back as it was, or start a new run",
            )
