"""What the loop does with every answer, whenever it comes: check it, and write it down."""

from __future__ import annotations

from typing import Any

from fedloom.engine.base import Reply
from fedloom.engine.loop import Loop
from fedloom.rounds.messages import Dropout
from fedloom.rounds.piece import holding
from fedloom.rounds.validate import update_norm, validate, validate_masked, validate_measured


def journal_asking(loop: Loop, answer: Reply | Dropout) -> None:
    """That a client was asked again, if it was."""
    if answer.asked_again:
        of = answer if isinstance(answer, Dropout) else answer.assignment
        loop.journal("asked_again", round=of.round, client=of.client, reason=answer.asked_again)


def held(loop: Loop, answer: Reply) -> dict[str, str]:
    """For the journal: what the client confirmed to have, if that is what it was to have. It is not sent that again."""
    asked, holds = answer.assignment, answer.contribution.holds
    if not asked.pieces or holds != holding(asked.pieces):
        return {}
    loop.holds[asked.client] = holds
    return {"holds": holds}


def validate_answer(loop: Loop, answer: Reply) -> None:
    """Raises: ContributionRefusedError."""
    if answer.assignment.kind != "train":
        validate_measured(answer.contribution, answer.assignment)
        return
    if answer.assignment.masking is not None:
        validate_masked(answer.contribution, answer.assignment)
        return
    rows = loop.federation.rows[answer.assignment.client].train
    bound = loop.experiment.rounds.max_update_norm
    validate(answer.contribution, answer.assignment, rows=rows, max_update_norm=bound)


def journal_contribution(loop: Loop, answer: Reply, **more: Any) -> None:
    """Write what one client trained. more: further facts, and others in place of its own."""
    contribution = answer.contribution
    facts = {
        "round": contribution.round,
        "client": contribution.client,
        "examples": contribution.examples,
        "bytes_down": answer.bytes_down,
        "bytes_up": answer.bytes_up,
        "update_norm": update_norm(contribution, answer.assignment),
        **more,
        **({"busy_seconds": answer.busy_seconds} if answer.busy_seconds else {}),
        **({"ledger": contribution.ledger} if contribution.ledger else {}),
        **contribution.metrics,
    }
    loop.journal("contribution", **facts)
