"""Contributions that were held until all came: compared, bounded, and then folded in.

A client is compared by its change, the delta of what it sent less that of what it began from: starts differ in rank,
and for some methods in directions. Three respects are bounded: the delta, the numbers that the method adds up (a factor
can be large and its delta small), and the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.method import Method
from fedloom.aggregation.robust.geometry import norms
from fedloom.aggregation.robust.judge import Evidence, Judgement
from fedloom.aggregation.robust.trimmed import trimmed_adapter, trimmed_mean
from fedloom.aggregation.similarity import gram
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, World
from fedloom.rounds.messages import Assignment, Contribution
from fedloom.rounds.step import Tally, Weighting, fold

Answer = tuple[Assignment, Contribution]


def change(assignment: Assignment, contribution: Contribution) -> Adapter:
    """delta - start delta, in factors whose sizes are those of the change: nothing large cancels.

    Formula: s b a - s b0 a0 = s (b - b0) a + s b0 (a - a0); of a client that pruned its rank, both stacked.
    """

    def of_module(module: str, new: Factors) -> Factors:
        old = assignment.start.trainable[module]
        if new.rank != old.rank:
            a, b = torch.cat([new.a, old.a]), torch.cat([new.b, -old.b], dim=1)
            return Factors(a.double(), b.double(), new.scaling)
        moved_a, moved_b = new.a.double() - old.a.double(), new.b.double() - old.b.double()
        a, b = torch.cat([new.a.double(), moved_a]), torch.cat([moved_b, old.b.double()], dim=1)
        return Factors(a, b, new.scaling)

    return contribution.adapter.map(of_module)


def evidence_of(method: Method, world: World, answers: Sequence[Answer], weighting: Weighting) -> Evidence:
    """What the rules may know, clients in sorted order. answers: validated, at least one."""
    ordered = sorted(answers, key=lambda answer: answer[0].client)
    names, deltas = gram({assignment.client: change(assignment, sent) for assignment, sent in ordered})
    heads = _head_gram(ordered)
    added = tuple(_added_norm(method, world, assignment, sent) for assignment, sent in ordered)
    respects = [tuple(norms(deltas))]
    respects += [added] if any(added) else []
    respects += [tuple(norms(heads))] if bool(heads.any()) else []
    weights = tuple(float(sent.examples) if weighting == "examples" else 1.0 for _, sent in ordered)
    return Evidence(names, tuple(respects), (deltas, heads), weights)


def folded(
    method: Method, world: World, answers: Sequence[Answer], judgement: Judgement, weighting: Weighting
) -> Tally:
    """The sum of a round as it was judged, in the order in which the answers came."""
    tally = Tally()
    for assignment, sent in answers:
        share, factor = judgement.shares[assignment.client], judgement.factors[assignment.client]
        if factor > 0:
            tally = fold(tally, method, world, assignment, sent, weighting, share=share, factor=factor)
    return tally


def trimmed(answers: Sequence[Answer], max_bad: int) -> list[Answer]:
    """Every client sends the trimmed mean of all. Raises: AggregationError as of `aggregation.robust.trimmed`."""
    adapter = trimmed_adapter([sent.adapter for _, sent in answers], max_bad)
    heads = [sent.head for _, sent in answers]
    head = {name: trimmed_mean([one[name] for one in heads], max_bad) for name in heads[0]}
    return [(assignment, replace(sent, adapter=adapter, head=head)) for assignment, sent in answers]


def _head_gram(answers: Sequence[Answer]) -> Tensor:
    """Inner products of the changes of heads, (K, K) in float64; zero where there is no head."""
    found = torch.zeros(len(answers), len(answers), dtype=torch.float64)
    for name in sorted(answers[0][1].head):
        moved = [(sent.head[name].double() - assignment.head[name].double()).flatten() for assignment, sent in answers]
        rows = torch.stack(moved).cpu()
        found += rows @ rows.T
    return found


def _added_norm(method: Method, world: World, assignment: Assignment, sent: Contribution) -> float:
    """Of the change of those factors that are added up one by one; 0 for a method that adds deltas alone."""
    facts = ClientFacts(world, sent.client, sent.round, assignment.start)
    new, old = (method.lift(adapter, 1.0, facts) for adapter in (sent.adapter, assignment.start.trainable))
    return math.sqrt(sum(_term_square(new, old, name) for name in new.terms))


def _term_square(new: Summand, old: Summand, name: str) -> float:
    term, before = new.terms[name], old.terms[name]
    if term.tensor.shape == before.tensor.shape:
        return float((term.weight * (term.tensor.double() - before.tensor.double())).square().sum())
    return float(
        (term.weight * (replace(term, weight=1.0).dense() - replace(before, weight=1.0).dense())).square().sum()
    )
