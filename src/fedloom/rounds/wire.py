"""Assignments and contributions as bytes: safetensors with a self-describing header, no pickle.

A factor that a client does not train does not travel back: the server knows what it dispatched. One that a client keeps
for itself never travels back, and travels out only before the client has one; one that nobody ever trains likewise.

Where numbers are packed (`Wire`), what comes back is the change since the start. The server adds it to the start that
it sent, not to the rounded one that arrived: rounding on the way down moves where a client begins, and never the
model of the server, which stays as it is for a client that learned nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import truncate
from fedloom.adapters.factors import Factors
from fedloom.adapters.io import from_bytes, to_bytes
from fedloom.adapters.packing import EXACT, Coding
from fedloom.aggregation.local_rules import Penalty
from fedloom.errors import AdapterError, RunError
from fedloom.privacy.mechanism import PrivacyPromise
from fedloom.privacy.noise_share import NoiseShare
from fedloom.rounds.messages import Assignment, Contribution, LocalWork, Masking, Wire
from fedloom.rounds.personal_facts import personal_facts, start_from
from fedloom.rounds.piece import Piece
from fedloom.rounds.sent_once import ONCE, TRAINABLE, sent_each_time, sent_once, with_once

PROTOCOL = 5
FACTS = "message"
_WHOLE, _CHANGE = "adapter", "change"  # what a contribution's adapter is called
_PIECE = "piece:"  # before the digest of a piece that travels, among the tensors; no parameter has such a name
_DIGEST = re.compile(r"[0-9a-f]{64}")


def assignment_to_bytes(assignment: Assignment) -> bytes:
    """The assignment in one block of bytes, with those of its pieces that the client does not have."""
    facts = {
        "protocol": PROTOCOL,
        "kind": assignment.kind,
        "round": assignment.round,
        "client": assignment.client,
        "trains": dict(assignment.trains),
        "keeps": dict(assignment.keeps),
        "kept_round": assignment.kept_round,
        "constant": dict(assignment.constant),
        "constant_digest": assignment.constant_digest,
        "wire": asdict(assignment.wire),
        "masking": None if assignment.masking is None else assignment.masking.table(),
        "seed": assignment.seed,
        "work": None if assignment.work is None else assignment.work.table(),
        "generate_rows": assignment.generate_rows,
        "pieces": [[piece.digest, piece.weight] for piece in assignment.pieces],
        **personal_facts(assignment),
    }
    start, once = assignment.start, sent_once(assignment)
    adapters = {TRAINABLE: start.trainable, "trunk": start.trunk}
    adapters |= {ONCE: start.trainable} if any(once.values()) else {}
    adapters |= {"rest": start.rest} if start.mixing is not None else {}
    return to_bytes(
        adapters,
        {**assignment.head, **_pieces_out(assignment)},
        facts={FACTS: json.dumps(facts, sort_keys=True)},
        sides={TRAINABLE: sent_each_time(assignment, once), ONCE: once},
        codings=dict.fromkeys(adapters.keys() - {ONCE}, assignment.wire.down),
        tensor_coding=assignment.wire.down,
    )


def _pieces_out(assignment: Assignment) -> dict[str, Tensor]:
    """The pieces that travel, as the bytes that they are."""
    digests = dict.fromkeys(piece.digest for piece in assignment.pieces if piece.digest not in assignment.has)
    try:
        found = {digest: bytearray(assignment.blobs[digest]) for digest in digests}
    except KeyError as error:
        raise RunError(
            "a piece of the global delta is damaged or missing at the server",
            where=f"round {assignment.round}",
            expected=f"digest {error.args[0]}",
            do="Remove the file of this digest from the run's pieces/, if it is there, and resume: it is made anew",
        ) from error
    return {_PIECE + digest: torch.frombuffer(data, dtype=torch.uint8) for digest, data in found.items()}


def assignment_from_bytes(data: bytes) -> Assignment:
    """The assignment as it arrives; sides that the client has are NaN until `contribute.going_on` fills them in, and a
    trunk in pieces is there when `trunk.formed` has formed it.

    Raises: AdapterError for bytes that are not one, or of another protocol, and for pieces that are not what was named.
    """
    adapters, tensors, facts = from_bytes(data, where="assignment", blank=(TRAINABLE, ONCE))
    message = message_of(facts, "assignment")
    try:
        work, wire, masking = message.pop("work"), message.pop("wire"), message.pop("masking")
        pieces = _pieces_in(message.pop("pieces"))
        _require_plain(message)
        found = Assignment(
            start=start_from(adapters, message),
            head={name: tensor for name, tensor in tensors.items() if not name.startswith(_PIECE)},
            pieces=pieces,
            blobs=_blobs_in(tensors, {piece.digest for piece in pieces}),
            work=None if work is None else _work(work),
            masking=None if masking is None else _masking(masking),
            wire=Wire(**{**wire, "up": Coding(**wire["up"]), "down": Coding(**wire["down"])}),
            **message,
        )
        return with_once(found, adapters.get(ONCE, Adapter()))
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError("the bytes hold no assignment", where="assignment", found=repr(error)) from error


def _require_plain(message: Mapping[str, Any]) -> None:
    """Raises: KeyError, ValueError where a whole number, a name or a yes is something else: they choose files."""
    for name in ("round", "kept_round", "seed", "generate_rows"):
        if type(message[name]) is not int or message[name] < 0:
            raise ValueError(f"{name} is no whole number: {message[name]!r:.100}")
    if message["kind"] not in ("train", "evaluate") or type(message["client"]) is not str:
        raise ValueError(f"no kind or client: {message['kind']!r:.100}, {message['client']!r:.100}")
    if type(message.get("resumes", False)) is not bool:
        raise ValueError(f"resumes is neither true nor false: {message['resumes']!r:.100}")


def _pieces_in(table: Any) -> tuple[Piece, ...]:
    """Raises: ValueError, TypeError for what are no pieces: a digest becomes the name of a file."""
    pieces = tuple(Piece(digest, float(weight)) for digest, weight in table)
    if not all(_DIGEST.fullmatch(piece.digest) and math.isfinite(piece.weight) for piece in pieces):
        raise ValueError("a piece is not a digest and a finite weight")
    return pieces


def _blobs_in(tensors: Mapping[str, Tensor], named: set[str]) -> dict[str, bytes]:
    """digest -> bytes of the pieces that travelled. Raises: AdapterError for one that was not named, or is another."""
    found = {
        name.removeprefix(_PIECE): tensor.numpy().tobytes()
        for name, tensor in tensors.items()
        if name.startswith(_PIECE)
    }
    for digest, data in found.items():
        if digest not in named or hashlib.sha256(data).hexdigest() != digest:
            raise AdapterError("a piece of the trunk is not what was sent", where=f"assignment, piece {digest[:12]!r}")
    return found


def _work(table: dict[str, Any]) -> LocalWork:
    privacy = table.get("privacy")
    nested = {
        "penalties": tuple(Penalty(**penalty) for penalty in table["penalties"]),
        "privacy": None if privacy is None else PrivacyPromise(**privacy),
    }
    return LocalWork(**{**table, **nested})


def _masking(table: dict[str, Any]) -> Masking:
    slots = {client: tuple((rank, scaling) for rank, scaling in own) for client, own in table["slots"].items()}
    modules = {module: (int(outputs), int(inputs)) for module, (outputs, inputs) in table["modules"].items()}
    noise = NoiseShare(**table["noise"]) if table.get("noise") is not None else None
    return Masking(**{**table, "clients": tuple(table["clients"]), "modules": modules, "slots": slots, "noise": noise})


def contribution_to_bytes(
    contribution: Contribution, sends: Mapping[str, str], *, asked: Assignment | None = None
) -> bytes:
    """What a client sends: only the sides of each module that the assignment lets travel (`Assignment.sends`).

    asked: the assignment as it arrived, if its wire is not exact: changes since its start are sent then, packed.
    """
    facts = {
        "protocol": PROTOCOL,
        "round": contribution.round,
        "client": contribution.client,
        "examples": contribution.examples,
        "metrics": dict(contribution.metrics),
        "holds": contribution.holds,
        "advertisement": contribution.advertisement,
        **({"importance": dict(contribution.importance)} if contribution.importance else {}),
        **({"ledger": contribution.ledger} if contribution.ledger else {}),
    }
    name, sent, coding = _WHOLE, contribution, EXACT
    if asked is not None and contribution.adapter and not asked.wire.is_exact:
        name, sent, coding = _CHANGE, changed(contribution, asked), asked.wire.up
    return to_bytes(
        {name: sent.adapter},
        sent.head,
        facts={FACTS: json.dumps(facts, sort_keys=True)},
        sides={name: sends},
        codings={name: coding},
        tensor_coding=coding,
    )


def changed(contribution: Contribution, asked: Assignment) -> Contribution:
    """The contribution with changes since the start, factor by factor, in place of what they led to."""

    def change(module: str, factors: Factors) -> Factors:
        start = truncate(asked.start.trainable[module], factors.rank)
        return Factors(factors.a - start.a, factors.b - start.b, factors.scaling)

    head = {name: tensor - asked.head[name] for name, tensor in contribution.head.items()}
    return replace(contribution, adapter=contribution.adapter.map(change), head=head)


def contribution_from_bytes(data: bytes, *, start: Adapter, head: Mapping[str, Tensor] | None = None) -> Contribution:
    """The contribution again; what did not travel is taken from the start that was dispatched, and changes are added to
    it. head: that was dispatched, if there is one.

    Raises: AdapterError for bytes that are none, or changes of other shapes.
    """
    restore = {_WHOLE: start, _CHANGE: start.map(_nothing)}
    adapters, found, facts = from_bytes(data, where="contribution", restore=restore)
    message = message_of(facts, "contribution")
    try:
        if _CHANGE in adapters:
            whole, found = _onto(start, adapters[_CHANGE]), _onto_head(head or {}, found)
        else:
            whole = adapters[_WHOLE]
        return Contribution(adapter=whole, head=found, **message)
    except (KeyError, TypeError) as error:
        raise AdapterError("the bytes hold no contribution", where="contribution", found=repr(error)) from error


def _nothing(_: str, factors: Factors) -> Factors:
    """Zeros in the shape of the factors (one number in memory)."""
    zero = factors.a.new_zeros(())
    return Factors(zero.expand(factors.a.shape), zero.expand(factors.b.shape), factors.scaling)


def _onto(start: Adapter, change: Adapter) -> Adapter:
    """start + change, factor by factor; of a client that pruned its rank, onto what it kept."""

    def added(module: str, factors: Factors) -> Factors:
        if module not in start:
            return factors  # refused by `validate`, in its own words
        before = truncate(start[module], factors.rank)
        if before.a.shape != factors.a.shape or before.b.shape != factors.b.shape:
            raise AdapterError(
                "the change does not fit the start",
                where=f"contribution, module {module!r}",
                expected=f"rank {start[module].rank} or less, shape {start[module].shape}",
                found=f"rank {factors.rank}, shape {factors.shape}",
            )
        return Factors(before.a + factors.a, before.b + factors.b, factors.scaling)

    return change.map(added)


def _onto_head(start: Mapping[str, Tensor], change: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in change.items():
        if name not in start or start[name].shape != tensor.shape:
            expected = {known: tuple(value.shape) for known, value in start.items()}
            found = f"{name!r} {tuple(tensor.shape)}"
            raise AdapterError(
                "the change of the head does not fit", where="contribution", expected=expected, found=found
            )
    return {name: start[name] + tensor for name, tensor in change.items()}


def message_of(facts: Mapping[str, str], where: str) -> dict[str, Any]:
    """The table of a message, without its protocol. Raises: AdapterError for none, or one of another protocol."""
    try:
        message = json.loads(facts[FACTS])
        protocol = message.pop("protocol")
    except (KeyError, ValueError, AttributeError, RecursionError) as error:
        raise AdapterError("the bytes hold no message of FedLoom", where=where, found=repr(error)) from error
    if protocol != PROTOCOL:
        raise AdapterError(
            "the message has another protocol version",
            where=where,
            expected=PROTOCOL,
            found=protocol,
            do="Install the same version of fedloom on both sides",
        )
    return message
