"""The server half of a round: contributions are folded in as they arrive, then the method makes the next state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedloom.aggregation.method import Method
from fedloom.aggregation.summand import Summand, total
from fedloom.aggregation.world import ClientFacts, RoundFacts, World
from fedloom.errors import RunError
from fedloom.rounds.messages import Assignment, Contribution
from fedloom.rounds.state import RunState


@dataclass(frozen=True)
class Tally:
    """What has been folded in so far: a sum of summands, a sum of heads weighted by examples, and by whom."""

    summed: Summand | None = None
    head: Mapping[str, Tensor] = field(default_factory=dict)
    examples: int = 0
    clients: tuple[str, ...] = ()


def fold(tally: Tally, method: Method, world: World, assignment: Assignment, contribution: Contribution) -> Tally:
    """The tally with one more (validated) contribution, weighted by its examples."""
    weight = contribution.examples
    facts = ClientFacts(world, contribution.client, contribution.round, assignment.start)
    summand = method.lift(contribution.adapter, float(weight), facts)
    head = {
        name: weight * tensor if name not in tally.head else tally.head[name] + weight * tensor
        for name, tensor in contribution.head.items()
    }
    return Tally(
        summed=summand if tally.summed is None else tally.summed + summand,
        head=head,
        examples=tally.examples + weight,
        clients=(*tally.clients, contribution.client),
    )


def step(tally: Tally, method: Method, world: World, state: RunState, *, min_clients: int = 1) -> RunState:
    """The state after the round. Raises: RunError if fewer than `min_clients` contributions were accepted."""
    round = state.round + 1
    if tally.summed is None or len(tally.clients) < min_clients:
        raise RunError(
            "too few contributions were accepted",
            where=f"round {round}",
            expected=f"at least {max(1, min_clients)}",
            found=f"{len(tally.clients)} ({', '.join(tally.clients) or 'nobody'})",
            do=f"The journal says why the others failed; round {state.round} is intact: repair and resume",
        )
    facts = RoundFacts(world, round, tally.clients)
    return RunState(
        learned=method.finish(total([tally.summed]), state.learned, facts),
        head={name: tensor / tally.examples for name, tensor in tally.head.items()},
    )
