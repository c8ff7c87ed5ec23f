"""Robust rules in a round: contributions are held, judged, journaled and folded; who stays suspicious is shut out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedloom.aggregation.robust.anomaly import averaged
from fedloom.aggregation.robust.judge import Judgement, judged
from fedloom.engine.base import Reply
from fedloom.engine.loop import Loop
from fedloom.errors import RunError
from fedloom.rounds.robust import evidence_of, folded, trimmed
from fedloom.rounds.standing import EXCLUDED, READMITTED, excluded_clients
from fedloom.rounds.step import Tally
from fedloom.spec.robust_rules import least_clients

KIND = "robust"
DIGITS = 6


def robust_tally(loop: Loop, round: int, replies: Sequence[Reply]) -> Tally:
    """The sum of a round as [robust] bounds it. Raises: RunError if too few contributed for its rule."""
    table, weighting = loop.experiment.robust, loop.experiment.rounds.weighting
    answers = [(reply.assignment, reply.contribution) for reply in replies]
    if not answers:
        return Tally()
    _require_enough(loop, round, len(answers))
    evidence = evidence_of(loop.method, loop.world, answers, weighting)
    by_number = table.rule == "trimmed-mean"
    ratios = (None, 0.0) if by_number else (table.max_norm_ratio, table.drop_norm_ratio)
    judgement = judged(evidence, table.rule, ratios[0], table.max_bad, ratios[1])
    _journal(loop, round, dict(zip(evidence.names, evidence.norms[0], strict=True)), judgement)
    if by_number:
        answers = trimmed(answers, table.max_bad)
    return folded(loop.method, loop.world, answers, judgement, weighting)


def _require_enough(loop: Loop, round: int, found: int) -> None:
    table = loop.experiment.robust
    least = least_clients(table.rule, table.max_bad)
    if found < least:
        raise RunError(
            f"too few contributions for the rule {table.rule}",
            where=f"round {round}",
            expected=f"at least {least}, of which {table.max_bad} may be malicious",
            found=found,
            do=f"The journal says why the others failed; round {round - 1} is intact: repair and resume",
        )


def _journal(loop: Loop, round: int, norms: Mapping[str, float], judgement: Judgement) -> None:
    """norms: of the deltas' changes.  scales: what each client's change was multiplied by, in the sum."""
    scales = {name: share * judgement.factors[name] for name, share in judgement.shares.items()}
    scores = averaged(scores_before(loop.directory.journal.records(), round), judgement.scores)
    loop.journal(
        KIND,
        round=round,
        norms=_rounded(norms),
        scales=_rounded(scales),
        cosines=_rounded(judgement.cosines),
        dropped=judgement.dropped,
        scores=_rounded(scores),
    )


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.{DIGITS}g}") for name, value in values.items()}


def scores_before(records: Iterable[Mapping[str, Any]], round: int) -> dict[str, float]:
    """client -> its score after the last round before this one that it took part in."""
    found: dict[str, float] = {}
    for scores in _by_round(records, round - 1).values():
        found.update(scores)
    return found


def quarantine(loop: Loop, round: int) -> None:
    """Shut out who was suspicious in as many of its rounds in a row as [robust] says, up to this committed round.

    From the journal alone, before the next round begins: a round that is done again decides nothing twice.
    """
    table = loop.experiment.robust
    if not table.enabled or not table.quarantine_after:
        return
    records = loop.directory.journal.records()
    shut_out = excluded_clients(records)
    for client, scores in _histories(_by_round(records, round)).items():
        last = scores[-table.quarantine_after :]
        suspicious = len(last) == table.quarantine_after and min(last) > table.suspicious_above
        if client not in shut_out and suspicious:
            reason = (
                f"its anomaly score was above {table.suspicious_above:g} in {len(last)} rounds in a row "
                f"({', '.join(f'{score:.1f}' for score in last)})"
            )
            loop.journal(EXCLUDED, round=round, client=client, by=KIND, reason=reason)


def _histories(rounds: Mapping[int, Mapping[str, float]]) -> dict[str, list[float]]:
    """client -> its scores, from the first of its rounds on."""
    found: dict[str, list[float]] = {}
    for _, scores in sorted(rounds.items()):
        for client, score in scores.items():
            found.setdefault(client, []).append(score)
    return found


def _by_round(records: Iterable[Mapping[str, Any]], last: int) -> dict[int, dict[str, float]]:
    """round -> the scores that it ended with, up to `last`, in order; of a round that was done again the latest ones.
    Whoever is let in again begins anew."""
    found: dict[int, dict[str, float]] = {}
    for record in records:
        if record["kind"] == KIND and record["round"] <= last:
            found[record["round"]] = dict(record["scores"])
        elif record["kind"] == READMITTED:
            found = {
                round: {client: score for client, score in scores.items() if client != record["client"]}
                for round, scores in found.items()
            }
    return dict(sorted(found.items()))
