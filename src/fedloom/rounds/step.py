"""The server half of a round: contributions are folded in as they arrive, then the method makes the next state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from fedloom.aggregation.method import Method
from fedloom.aggregation.robust.blend import lifted_share
from fedloom.aggregation.server_optimizer import optimized, optimized_head
from fedloom.aggregation.server_rule import ServerOptimizer
from fedloom.aggregation.summand import RunningSum, Summand
from fedloom.aggregation.term import Term
from fedloom.aggregation.world import ClientFacts, RoundFacts, World
from fedloom.errors import RunError
from fedloom.planning.importance import ScoreSum
from fedloom.rounds.chain import worth_sending
from fedloom.rounds.client_noise import ClientNoise
from fedloom.rounds.messages import Assignment, Contribution
from fedloom.rounds.state import RunState

Weighting = Literal["examples", "uniform"]
NO_OPTIMIZER = ServerOptimizer()


@dataclass(frozen=True)
class Tally:
    """What has been folded in so far: a sum of summands, a weighted sum of heads, the weight of both, and by whom; and
    the weighted sums of what clients measured of their modules.

    clients: those of this round.  late: client -> the round of its answer, of those that came from earlier rounds.
    within: how many of the clients were not clipped, where they are; of a secure sum with the noise of that count.
    The two sums grow in place and pass on from one tally to the next: only the last one may be folded into.
    """

    summed: RunningSum = field(default_factory=RunningSum)
    head: RunningSum = field(default_factory=RunningSum)
    weight: float = 0.0
    clients: tuple[str, ...] = ()
    late: Mapping[str, int] = field(default_factory=dict)
    within: float = 0
    importance: ScoreSum = field(default_factory=ScoreSum)


def fold(
    tally: Tally,
    method: Method,
    world: World,
    assignment: Assignment,
    contribution: Contribution,
    weighting: Weighting = "examples",
    *,
    within: bool = False,
    share: float = 1.0,
    factor: float = 1.0,
    late_of: int | None = None,
) -> Tally:
    """The tally with one more (validated) contribution; the one given is used up.

    weighting: by its examples, or "uniform": all alike.  within: whether it is one that did not need to be clipped.
    share: how much of its change counts, in (0, 1].  factor: of its weight.
    late_of: the earlier round that it is of, where it was made fit for this one (`late.as_of_now`).
    """
    assert tally.summed.count == len(tally.clients) + len(tally.late), "this tally was folded into before"
    weight = (float(contribution.examples) if weighting == "examples" else 1.0) * factor
    facts = ClientFacts(world, contribution.client, contribution.round, assignment.start)
    tally.summed.add_(lifted_share(method, contribution.adapter, weight, facts, share))
    heads = contribution.head if share >= 1 else nearer(assignment.head, contribution.head, share)
    head = {name: Term(tensor, weight, tuple(tensor.shape)) for name, tensor in heads.items()}
    tally.head.add_(Summand(terms=head))
    if late_of is None:
        tally = replace(tally, clients=(*tally.clients, contribution.client))
    else:
        tally = replace(tally, late={**tally.late, contribution.client: late_of})
    return replace(
        tally,
        weight=tally.weight + weight,
        within=tally.within + within,
        importance=tally.importance.plus(contribution.importance, weight),
    )


def nearer(start: Mapping[str, Tensor], new: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """start + share (new - start), tensor by tensor."""
    return {name: torch.lerp(start[name].to(tensor), tensor, share) for name, tensor in new.items()}


def require_enough(tally: Tally, round: int, min_clients: int) -> None:
    """Raises: RunError if fewer than `min_clients` contributions of this round were accepted, without late ones."""
    if len(tally.clients) < max(1, min_clients):
        raise RunError(
            "too few contributions were accepted",
            where=f"round {round}",
            expected=f"at least {max(1, min_clients)}",
            found=f"{len(tally.clients)} ({', '.join(tally.clients) or 'nobody'})",
            do=f"The journal says why the others failed; round {round - 1} is intact: repair and resume",
        )


def step(
    tally: Tally,
    method: Method,
    world: World,
    state: RunState,
    *,
    min_clients: int = 1,
    optimizer: ServerOptimizer = NO_OPTIMIZER,
    noise: ClientNoise | None = None,
    bound: Mapping[str, Tensor] | None = None,
) -> RunState:
    """The state after the round: the method's, then the optimizer's step in its place. noise: on the sum, before both.

    bound: of clients' changes from now on, for the state, where the clients made the noise; None: it stays.

    Raises: RunError if fewer than `min_clients` contributions were accepted.
    """
    round = state.round + 1
    require_enough(tally, round, min_clients)
    facts = RoundFacts(world, round, (*tally.clients, *tally.late))
    total = tally.summed.total() if noise is None else noise.total(tally.summed.total(), len(tally.clients))
    change = method.change(total, state.learned, facts) if method.change else None
    finished = method.finish(total, state.learned, facts)
    learned = optimized(optimizer, method, state.learned, finished, world, change)
    change = worth_sending(change, learned)
    heads = tally.head.value().sums if noise is None else noise.tensors(tally.head.value().sums, len(tally.clients))
    mean = {name: (tensor / tally.weight).to(state.head[name].dtype) for name, tensor in heads.items()}
    head, moments = optimized_head(optimizer, state.head, mean, state.learned.extras)
    bound = (bound or {}) if noise is None else noise.next_bound(tally.within, len(tally.clients))
    return RunState(
        learned=replace(learned, extras={**learned.extras, **moments, **bound}).as_read_back(),
        head=head,
        last_rounds={**state.last_rounds, **dict.fromkeys(tally.clients, round), **tally.late},
        chain=state.chain,
        change=change,
    )
