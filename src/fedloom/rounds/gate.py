"""Whether a new model may be kept, by what the clients measured of it: pure, on losses.

With l_k the held-out losses of a candidate, b_k those of the last accepted model, n_k the clients' held-out rows and
L = sum_k n_k l_k / sum_k n_k, it is accepted if for all k (where that is asked for) and all accepted models before it

    l_k <= b_k (1 + max_client_loss / 100)        L <= (1 + max_pooled_loss / 100) min L'

A loss that is not finite is infinite: a model that diverged is never accepted, where the one before had not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Losses = Mapping[str, float]  # by client


@dataclass(frozen=True)
class Gate:
    """Both in percent: how much worse one client (None: as much as it likes), and all together, may become."""

    max_client_loss: float | None
    max_pooled_loss: float


@dataclass(frozen=True)
class Verdict:
    """reasons: against the candidate; it is accepted if there are none.

    pooled_loss: of the candidate.  best_loss: of the models before; infinite if none is known.  worst_client and by
    how many percent its loss rose (negative: fell); None if no client measured both.
    """

    reasons: tuple[str, ...]
    pooled_loss: float
    best_loss: float
    worst_client: str | None = None
    worst_change: float | None = None

    @property
    def accepted(self) -> bool:
        return not self.reasons

    @property
    def decision(self) -> str:
        return "accepted" if self.accepted else "rejected"


def pooled(losses: Losses, rows: Mapping[str, float]) -> float:
    """L over those who measured it; infinite if nobody with rows did."""
    total = sum(rows.get(client, 0.0) for client in losses)
    if not total > 0:
        return math.inf
    return (
        sum(rows.get(client, 0.0) * _or_infinite(loss) for client, loss in losses.items() if rows.get(client)) / total
    )


def verdict(
    candidate: Losses, history: Mapping[int, Losses], last: int, rows: Mapping[str, float], gate: Gate
) -> Verdict:
    """The decision on one candidate.

    history: round -> what was measured of its model, all of them accepted.  last: the round before the candidate's.
    rows: that the clients registered; who has none, or is not named, has no vote. Pooled losses are compared only with
    those of rounds that all of the candidate's clients measured.
    """
    votes = {client: _or_infinite(loss) for client, loss in candidate.items() if rows.get(client)}
    whole = pooled(votes, rows)
    comparable = [_among(losses, votes) for losses in history.values() if votes.keys() <= losses.keys()]
    best = min((pooled(losses, rows) for losses in comparable), default=math.inf)
    if not votes:
        return Verdict(("no client with held-out rows measured the new model",), whole, best)
    changes = {client: _percent(votes[client], loss) for client, loss in _among(history.get(last, {}), votes).items()}
    worst = max(sorted(changes), key=lambda client: changes[client], default=None)
    reasons = [*_of_clients(votes, history.get(last, {}), changes, gate), *_of_all(whole, best, gate)]
    return Verdict(tuple(reasons), whole, best, worst, None if worst is None else changes[worst])


def _of_clients(votes: Losses, before: Losses, changes: Mapping[str, float], gate: Gate) -> Iterable[str]:
    most = math.inf if gate.max_client_loss is None else gate.max_client_loss
    for client in sorted(changes):
        if changes[client] > most:
            yield (
                f"the held-out loss of {client} rose by {changes[client]:.1f} % ({before[client]:.4f} to "
                f"{votes[client]:.4f}); max_client_loss allows {most:g} %"
            )


def _of_all(whole: float, best: float, gate: Gate) -> Iterable[str]:
    if not math.isfinite(whole):
        yield "the held-out loss of all clients is not finite"
    elif math.isfinite(best) and _percent(whole, best) > gate.max_pooled_loss:
        yield (
            f"the held-out loss of all clients is {whole:.4f}, {_percent(whole, best):.1f} % above the best so far "
            f"({best:.4f}); max_pooled_loss allows {gate.max_pooled_loss:g} %"
        )


def _among(losses: Losses, votes: Losses) -> dict[str, float]:
    return {client: loss for client, loss in losses.items() if client in votes}


def _percent(after: float, before: float) -> float:
    """By how much a loss rose; infinite from 0 or to infinity, 0 where it is what it was."""
    if after == before or not math.isfinite(before):
        return 0.0
    return 100.0 * (after / before - 1.0) if before > 0 else math.inf


def _or_infinite(loss: float | None) -> float:
    return loss if loss is not None and math.isfinite(loss) else math.inf
