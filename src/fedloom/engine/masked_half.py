"""The client half of secure sums: what was trained stays here until it is masked. Needs `fedloom[privacy]`.

The sums that a client takes part in live in its process: one that ends is a client that dropped out, and the others
recover. Its identity, and those of the peers that it met, live on its disk.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path

from fedloom.adapters.adapter import Adapter
from fedloom.engine.identities import Identities
from fedloom.errors import ContributionRefusedError, RunError
from fedloom.privacy.secagg.messages import Roster
from fedloom.privacy.secagg.session import ROSTER, ClientSession
from fedloom.rounds.masking import fixed_point_of, layout_of, sent_sides, terms_of, to_vector
from fedloom.rounds.messages import Assignment, Contribution
from fedloom.rounds.validate import validate

Sessions = MutableMapping[str, ClientSession]  # client -> the one secure sum that it takes part in


def masked(sessions: Sessions, assignment: Assignment, trained: Contribution, store: Path | None) -> Contribution:
    """What leaves openly: metrics and keys. The numbers wait in the session, in fixed point.

    Raises: ContributionRefusedError naming this client for numbers that the server would refuse, or beyond the bound;
        without the numbers themselves, as its text travels to the server.
    """
    masking = assignment.masking
    assert masking is not None
    trained = replace(trained, adapter=sent_sides(assignment, trained.adapter))
    try:
        validate(trained, assignment, rows=trained.examples, max_update_norm=masking.max_update_norm)
        words = fixed_point_of(masking).encode(to_vector(trained, assignment), assignment.client)
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
    )
    sessions[assignment.client] = session
    return replace(trained, adapter=Adapter(), head={}, examples=0, importance={}, advertisement=own.hex())


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
    if step == ROSTER:
        roster = Roster.from_bytes(body, clients=len(session.terms.clients))
        Identities.of(store, client).remember({one.client: one.identity for one in roster.clients})
    if session.is_over:
        del sessions[client]
    return answer
