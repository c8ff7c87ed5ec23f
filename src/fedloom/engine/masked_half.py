"""The client half of secure sums: what was trained stays here until it is masked. Needs `fedloom[privacy]`.

The sums that a client takes part in live in its process: one that ends is a client that dropped out, and the others
recover. Its identity, and those of the peers that it met, live on its disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from pathlib import Path

from fedloom.adapters.adapter import Adapter
from fedloom.engine.identities import Identities
from fedloom.engine.releasing import identified
from fedloom.engine.sum_release import leaves, part_of_sum
from fedloom.errors import ContributionRefusedError, RunError
from fedloom.privacy.entropy import Entropy
from fedloom.privacy.secagg.masks import Words
from fedloom.privacy.secagg.messages import Roster
from fedloom.privacy.secagg.session import DELIVERY, ROSTER, ClientSession
from fedloom.rounds.masking import fixed_point_of, layout_of, sent_sides, terms_of, to_vector
from fedloom.rounds.messages import Assignment, Contribution
from fedloom.rounds.noise_shares import noisy_words
from fedloom.rounds.validate import validate

TIMES = ("seconds", "steps")  # metrics that tell nothing of what was learned

Sessions = MutableMapping[str, ClientSession]  # client -> the one secure sum that it takes part in


def masked(
    sessions: Sessions,
    assignment: Assignment,
    trained: Contribution,
    store: Path | None,
    entropy: Callable[[], Entropy] = Entropy,
) -> Contribution:
    """What leaves openly: metrics and keys. The numbers wait in the session, in fixed point.

    Where the sum is noisy, they are clipped, have their noise and are in the ledger; of the metrics only what took how
    long leaves then.  entropy: a new source of noise, for tests another one.

    Raises: ContributionRefusedError naming this client for numbers that the server would refuse, or beyond the bound;
        without the numbers themselves, as its text travels to the server.
    """
    masking = assignment.masking
    assert masking is not None
    trained = replace(trained, adapter=sent_sides(assignment, trained.adapter))
    # A change that is clipped needs no other bound: to refuse what is beyond one would tell something of it.
    bound = masking.max_update_norm if masking.noise is None else None
    try:
        validate(trained, assignment, rows=trained.examples, max_update_norm=bound)
        words, openly, release = _words(assignment, trained, store, entropy)
    except ContributionRefusedError as error:
        raise ContributionRefusedError(
            error.client, error.what, module=error.module, expected=error.expected, do=error.do
        ) from None
    identities = Identities.of(store, assignment.client)
    session, own = ClientSession.begin(
        terms_of(masking, layout_of(masking, assignment)),
        assignment.client,
        words,
        identity=identities.own,
        entropy=os.urandom,
        known=identities.known,
        release=release,
    )
    sessions[assignment.client] = session
    return replace(openly, adapter=Adapter(), head={}, examples=0, importance={}, advertisement=own.hex())


def _words(
    assignment: Assignment, trained: Contribution, store: Path | None, entropy: Callable[[], Entropy]
) -> tuple[Words, Contribution, str]:
    """What is masked, what may be told of it openly, and the name of the release, if it is one under noise."""
    masking = assignment.masking
    assert masking is not None
    if masking.noise is None:
        return fixed_point_of(masking).encode(to_vector(trained, assignment), assignment.client), trained, ""
    if not assignment.identity:
        assignment = identified(assignment)
    part = part_of_sum(assignment, masking.noise, store, lambda: noisy_words(trained, assignment, entropy()))
    metrics = {name: value for name, value in trained.metrics.items() if name in TIMES} | dict(part.facts)
    return part.words, replace(trained, metrics=metrics, ledger=part.ledger), assignment.identity


def masked_answer(sessions: Sessions, client: str, step: str, body: bytes, store: Path | None) -> bytes:
    """The client's message of one step. Raises: FedLoomError; the client takes no further part in the sum then."""
    session = sessions.get(client)
    if session is None:
        raise RunError(
            "this client is in no secure sum",
            where=f"client {client!r}, step {step!r}",
            expected="the process that trained in this round",
            found="another one",
            do="Let one process answer for the client all the time, as `fedloom join` does",
        )
    answer = session.answer(step, body)
    if step == DELIVERY and session.release:
        leaves(store, client, session.release)
    if step == ROSTER:
        roster = Roster.from_bytes(body, clients=len(session.terms.clients))
        Identities.of(store, client).remember({one.client: one.identity for one in roster.clients})
    if session.is_over:
        del sessions[client]
    return answer
