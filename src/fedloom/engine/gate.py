"""The gate: a round's new state is measured at the clients before it is committed, and kept or not.

What is committed for a round that is rejected is the last good state with one round more behind it. The decision is in
the journal before the commit and in the checkpoint with it; a round that was interrupted between the two is done again,
measured again and decided again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fedloom.engine.asking import CANDIDATE
from fedloom.engine.loop import Loop
from fedloom.rounds.gate import Gate, Losses, Verdict, verdict
from fedloom.rounds.standing import excluded_clients
from fedloom.rounds.state import RunState

KIND, REJECTED = "gate", "rejected"
Measured = dict[str, dict[str, Any]]  # client -> its metrics
Measure = Callable[[Loop, RunState, str], None]
OF_THE_RECORD = frozenset({"number", "time", "kind", "previous", "record_digest", "not_finite"})
OF_THE_MESSAGE = frozenset({"round", "client", "stage", "bytes_up", "bytes_down", "holds"})


def gated(loop: Loop, before: RunState, candidate: RunState, measure: Measure) -> tuple[RunState, dict[str, str]]:
    """The state to commit, and what the checkpoint says of the decision; without a gate the candidate, and nothing."""
    if not loop.experiment.gate.enabled:
        return candidate, {}
    measure(loop, candidate, CANDIDATE)
    found = _verdict(loop, candidate.round)
    loop.journal(
        KIND,
        round=candidate.round,
        decision=found.decision,
        reasons=list(found.reasons),
        pooled_loss=found.pooled_loss,
        best_loss=found.best_loss,
        worst_client=found.worst_client,
        worst_change=found.worst_change,
    )
    return candidate if found.accepted else as_it_was(before), {KIND: found.decision}


def as_it_was(state: RunState) -> RunState:
    """The same state with one round more behind it. Nobody's contribution counted: clients that keep something go on
    from where they were, and no server optimizer remembers the round."""
    return replace(state, learned=state.learned.next(), change=None)


def settle(loop: Loop, round: int, decision: Mapping[str, str]) -> None:
    """After the commit: what was measured of the committed state is that of its round, without asking again."""
    if not decision:
        return
    committed, candidate = _measured(loop, round)
    source = committed.get(round - 1, {}) if decision[KIND] == REJECTED else candidate
    for client, metrics in source.items():
        loop.journal("evaluation", stage="round", round=round, client=client, bytes_down=0, bytes_up=0, **metrics)


def stopped_by_gate(loop: Loop, round: int) -> bool:
    """Whether the run ends after this committed round, as its state was rejected; journaled once."""
    if not loop.experiment.gate.enabled or loop.experiment.gate.on_reject != "stop":
        return False
    decisions = [record for record in loop.records() if record["kind"] == KIND and record["round"] == round]
    if not decisions or decisions[-1]["decision"] != REJECTED:
        return False
    if not any(record["kind"] == "stopped_early" for record in loop.records()):
        reason = f"the model of round {round} was rejected: {'; '.join(decisions[-1]['reasons'])}"
        loop.journal("stopped_early", round=round, reason=reason)
    return True


def _verdict(loop: Loop, round: int) -> Verdict:
    """Clients that are shut out have no vote; others one for each held-out row that they registered and measure."""
    table, most = loop.experiment.gate, loop.experiment.evaluation.max_rows
    shut_out = excluded_clients(loop.directory.journal.records())
    rows = {
        client: float(min(most, known.held_out))
        for client, known in loop.federation.rows.items()
        if client not in shut_out
    }
    committed, candidate = _measured(loop, round)
    history = {earlier: _losses(measured) for earlier, measured in committed.items()}
    limits = Gate(table.max_client_loss, table.max_pooled_loss)
    return verdict(_losses(candidate), history, round - 1, rows, limits)


def _losses(measured: Measured) -> Losses:
    return {client: metrics["loss"] for client, metrics in measured.items()}


def _measured(loop: Loop, round: int) -> tuple[dict[int, Measured], Measured]:
    """What was measured of the committed states before a round, and of the candidate of this attempt at it."""
    committed: dict[int, Measured] = {}
    candidate: Measured = {}
    for record in loop.records():
        if record["kind"] == "round_started" and record["round"] == round:
            candidate = {}
        elif record["kind"] == "evaluation" and record["stage"] == CANDIDATE and record["round"] == round:
            candidate[record["client"]] = _metrics(record)
        elif record["kind"] == "evaluation" and record["stage"] in ("base", "round") and record["round"] < round:
            committed.setdefault(record["round"], {})[record["client"]] = _metrics(record)
    return committed, candidate


def _metrics(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the client measured, numbers that are not finite among it."""
    skipped = OF_THE_RECORD | OF_THE_MESSAGE
    metrics = {name: value for name, value in record.items() if name not in skipped}
    return metrics | {name: float(text) for name, text in record.get("not_finite", {}).items()}
