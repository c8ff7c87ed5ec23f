"""A private client's releases: what is asked, whether it may be answered, and the ledger before anything is sent."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedloom.adapters.io import to_bytes
from fedloom.errors import RunError
from fedloom.privacy.ledger import Entry, afforded, known, spent
from fedloom.privacy.mechanism import Mechanism, mechanism_of
from fedloom.privacy.noise_share import NoiseShare
from fedloom.rounds.messages import Assignment, Masking
from fedloom.store.ledger import Ledger


@dataclass(frozen=True)
class PrivateRound:
    """One round that the budget allows. epsilon: at the client once it is released, over all its rounds."""

    mechanism: Mechanism
    ledger: Ledger
    epsilon: float

    @property
    def facts(self) -> dict[str, float]:
        """What the server and the auditor are told: nothing of the rows but their number."""
        return {
            "epsilon": self.epsilon,
            "delta": self.mechanism.delta,
            "noise_multiplier": self.mechanism.noise_multiplier,
            "sampling_rate": self.mechanism.sampling_rate,
            "max_example_norm": self.mechanism.max_grad_norm,
        }


def refuse_without_noise(assignment: Assignment, budget: float | None) -> None:
    """Raises: RunError if a site with a budget is asked to train without noise, whatever the experiment said."""
    share = None if assignment.masking is None else assignment.masking.noise
    if budget is not None and assignment.kind == "train" and assignment.promise is None:
        raise RunError(
            "the assignment asks for training without noise",
            where=f"client {assignment.client!r}, round {assignment.round}",
            expected=f"noise of this client's own, as privacy.epsilon of site.toml is {budget:g}",
            found="no promise of privacy" if share is None else "a share of a sum's noise, little without its peers",
            do='Ask the server\'s operator for a run with [privacy] unit = "example"',
        )


def ledger_of(root: Path | None, assignment: Assignment) -> Ledger | None:
    """The client's ledger, if the assignment asks for noise. Raises: RunError if there is no place for one."""
    return None if assignment.promise is None else ledger_at(root, assignment.client)


def ledger_at(root: Path | None, client: str) -> Ledger:
    """A client's ledger. Raises: RunError if there is no place for one."""
    if root is None:
        raise RunError(
            "there is no place for the privacy ledger",
            where=f"client {client!r}",
            expected="a directory for the clients of this engine",
            found="none",
        )
    return Ledger(root / client)


def identified(assignment: Assignment, *here: str) -> Assignment:
    """With the digest of all that decides the answer: equal for an assignment that is sent again after a crash.

    here: digests of the base and the rows at this client, which decide it too.
    """
    noise = assignment.masking.noise if assignment.masking is not None else None
    if assignment.promise is None and noise is None:
        return assignment
    start = assignment.start
    facts = {
        "here": here,
        "round": assignment.round,
        "client": assignment.client,
        "trains": dict(assignment.trains),
        "seed": assignment.seed,
        "kept_round": assignment.kept_round,
        "work": assignment.work.table() if assignment.work else None,
        "wire": asdict(assignment.wire),
        "trainable": start.trainable.digest(),
        "trunk": [start.trunk.digest(), *(asdict(piece) for piece in assignment.pieces)],
        **_of_the_sum(assignment.masking, noise),
    }
    head = to_bytes({}, dict(sorted(assignment.head.items())), facts={})
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + head).hexdigest()
    return replace(assignment, identity=digest)


def _of_the_sum(masking: Masking | None, noise: NoiseShare | None) -> dict[str, Any]:
    """What decides a share of a sum's noise: all of the sum but its name, which is another in every attempt."""
    return {} if masking is None or noise is None else {"sum": {**masking.table(), "round_id": ""}}


def answered(assignment: Assignment, ledger: Ledger | None) -> bytes | None:
    """The answer that was made to this very assignment, if it is the last one that was made."""
    return None if ledger is None else ledger.answer_to(assignment.identity)


def resent(assignment: Assignment, ledger: Ledger, answer: bytes, rows: int, budget: float | None) -> bytes:
    """An answer that was made before; its line is written if a crash kept it from the ledger.

    Raises: as `begun_privately`, in that case.
    """
    if known(ledger.entries(), assignment.identity):
        return answer
    return released(assignment, begun_privately(assignment, ledger, rows, budget), answer)


def begun_privately(assignment: Assignment, ledger: Ledger, rows: int, budget: float | None) -> PrivateRound:
    """The noise of a round, if the ledger allows it. budget: of the site, beside what the run promises.

    Raises: RunError if the round would go beyond one of the two, or the rounds to come beyond what the run promises; if
        the ledger lacks what was released before, a batch is larger than all rows, or delta too large for them;
        JournalDamagedError for a ledger that was edited.
    """
    promise, work = assignment.promise, assignment.work
    assert promise is not None, "without a promise there is no ledger"
    assert work is not None, "the promise is part of the work"
    where = f"client {assignment.client!r}, round {assignment.round}"
    ledger.require_round(assignment.kept_round)
    mechanism = mechanism_of(promise, rows=rows, batch=work.rows_per_step, steps=work.steps, client=assignment.client)
    whose, to_come = "privacy.epsilon of the run", max(1, promise.rounds - assignment.round + 1)
    facts = spent(ledger.entries()), mechanism.round
    bound = mechanism.delta, mechanism.accountant
    epsilon = afforded(*facts, promise.epsilon, *bound, where=where, whose=whose, rounds=to_come)
    if budget is not None:
        afforded(*facts, budget, *bound, where=where, whose="privacy.epsilon of site.toml")
    return PrivateRound(mechanism, ledger, epsilon)


def released(assignment: Assignment, private: PrivateRound, answer: bytes) -> bytes:
    """The answer, once it and its line are on the disk."""
    entry = Entry(assignment.round, assignment.identity, private.mechanism.round, private.mechanism.delta)
    facts = {
        "epsilon": private.epsilon,
        "rows": private.mechanism.rows,
        "max_grad_norm": private.mechanism.max_grad_norm,
    }
    private.ledger.release(entry, answer, **facts)
    return answer
