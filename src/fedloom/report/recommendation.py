"""What a comparison of methods comes to, in words: which one to take, how sure that is, and what it costs.

Two runs are compared client by client. With losses l_k and m_k of client k over w_k labels and W = sum_k w_k,
    d = sum_k w_k (m_k - l_k) / W,    e^2 = K / (K - 1) sum_k (w_k / W)^2 (m_k - l_k - d)^2
d is how much higher the second one's loss is, e its standard error over K clients. Differences of at most 2 e, or of
what rounds to nothing, are a tie. It says nothing of other seeds: those are for the user to run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedloom.aggregation.registry import METHODS
from fedloom.report.units import bytes_text, listed, loss_text
from fedloom.report.values import RunSummary

ERRORS_OF_A_TIE = 2.0
ROUNDING = 5e-4  # of a loss as it is shown


@dataclass(frozen=True)
class Gap:
    """How much higher the loss of one run is than that of another: d and e above; e is infinite for one client."""

    mean: float
    error: float

    @property
    def is_tie(self) -> bool:
        return self.mean <= max(ERRORS_OF_A_TIE * self.error, ROUNDING)

    def __str__(self) -> str:
        error = "one client does not tell how sure that is" if math.isinf(self.error) else f"± {self.error:.3f}"
        return f"{self.mean:.3f}, {error}"


def gap(lower: RunSummary, higher: RunSummary) -> Gap:
    """The gap over the clients that both runs measured; not a number where there is none."""
    first, second = lower.federated.clients, higher.federated.clients
    common = [name for name in sorted(first.keys() & second.keys()) if first[name].label_tokens]
    if not common:
        return Gap(math.nan, math.inf)
    weights = [first[name].label_tokens for name in common]
    whole = sum(weights)
    apart = [second[name].loss - first[name].loss for name in common]
    mean = sum(weight * one for weight, one in zip(weights, apart, strict=True)) / whole
    squares = sum((weight / whole * (one - mean)) ** 2 for weight, one in zip(weights, apart, strict=True))
    count = len(common)
    return Gap(mean, math.sqrt(count / (count - 1) * squares) if count > 1 else math.inf)


def recommendation(summaries: Mapping[str, RunSummary]) -> tuple[str, ...]:
    """Sentences for a comparison, by label; none where fewer than two runs have a finite loss."""
    losses = {
        label: run.federated.pooled.loss
        for label, run in summaries.items()
        if run.federated.pooled is not None and math.isfinite(run.federated.pooled.loss)
    }
    if len(losses) < 2:
        return ()
    ranking = sorted(losses, key=lambda label: (losses[label], label))
    best = ranking[0]
    gaps = {label: gap(summaries[best], summaries[label]) for label in ranking[1:]}
    apart = [label for label in ranking[1:] if math.isnan(gaps[label].mean)]
    if apart:
        return (f"Nothing is recommended: {best} and {listed(apart)} measured no client in common.",)
    ties = [label for label in ranking[1:] if gaps[label].is_tie]
    chosen = min([best, *ties], key=lambda label: (_traffic(summaries[label]), losses[label]))
    sentences = (
        _choice(summaries, losses, best, chosen, ties),
        _others(gaps, ties),
        _against_the_base(summaries[chosen], losses[chosen]),
        _worst(summaries, chosen),
        _who_sees_what(summaries, losses, chosen),
        "This is one seed: before a small difference decides, compare again with another seed.",
    )
    return tuple(sentence for sentence in sentences if sentence)


def _traffic(run: RunSummary) -> int:
    return run.bytes_up + run.bytes_down


def _choice(
    summaries: Mapping[str, RunSummary], losses: Mapping[str, float], best: str, chosen: str, ties: list[str]
) -> str:
    if not ties:
        return f"Take {chosen}: its held-out loss of {loss_text(losses[chosen])} is the lowest by more than chance."
    told = f"{listed([best, *ties])} cannot be told apart on these rows"
    return f"Take {chosen}: {told}, and it moves the least, {bytes_text(_traffic(summaries[chosen]))} in all."


def _others(gaps: Mapping[str, Gap], ties: list[str]) -> str:
    behind = [f"{label} ({found} higher)" for label, found in gaps.items() if label not in ties]
    return f"Clearly behind: {listed(behind)}." if behind else ""


def _against_the_base(run: RunSummary, loss: float) -> str:
    base = run.base.pooled
    if base is None or loss < base.loss:
        return ""
    return (
        f"No method here is better than the base model, whose loss is {loss_text(base.loss)}: "
        "a smaller training.learning_rate or more rounds may help."
    )


def _worst(summaries: Mapping[str, RunSummary], chosen: str) -> str:
    """Named where the client that is off worst would clearly be better off with another method."""
    worst = summaries[chosen].federated.worst
    if worst is None:
        return ""
    client, scores = worst
    found = {
        label: run.federated.clients[client].loss
        for label, run in summaries.items()
        if client in run.federated.clients and math.isfinite(run.federated.clients[client].loss)
    }
    better = min(found, key=lambda label: found[label], default=chosen)
    if not found or scores.loss - found[better] <= ROUNDING:
        return ""
    instead = f"{loss_text(found[better])} instead of {loss_text(scores.loss)}"
    return f"{client}, which is off worst, does better with {better}: {instead}."


def _who_sees_what(summaries: Mapping[str, RunSummary], losses: Mapping[str, float], chosen: str) -> str:
    reveals = METHODS[summaries[chosen].method].reveals
    if reveals != "individuals":
        what = "factors" if reveals == "sum" else "deltas"
        return f"With {chosen} the server needs to see the sum of the clients' {what} alone ([secure_aggregation])."
    alone = [label for label in losses if METHODS[summaries[label].method].reveals != "individuals"]
    told = f"With {chosen} the server sees each client's factors"
    if not alone:
        return f"{told}."
    other = min(alone, key=lambda label: losses[label])
    return f"{told}; where it may only see their sum, take {other}, with a loss of {loss_text(losses[other])}."
