"""Differential privacy for whole clients: each one's change is clipped, and a round's sum gets noise at the server.

S = sum_k (start_k + clip_C(new_k - start_k)) + sigma C N(0, I), in the numbers that a method adds up (a, scaling x b,
the head), every client of weight 1: adding or leaving out one client moves S by at most C (McMahan et al., 2018,
arXiv 1710.06963, with the number of participants known). For methods whose summand is linear in what was trained.

With `quantile` the bound follows what clients send: `privacy.adaptive_bound`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedloom.adapters.factors import Factors
from fedloom.aggregation.bank import sum_name
from fedloom.aggregation.method import Method
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, World
from fedloom.privacy.adaptive_bound import beside_a_count, count_noise, next_bound
from fedloom.privacy.entropy import Entropy
from fedloom.rounds.messages import Assignment, Contribution

BOUND = "privacy.max_change_norm"  # what the bound has become, in the state


@dataclass(frozen=True)
class ClientNoise:
    """bound: C, the norm of one client's change.  noise_multiplier: sigma.

    clients (of its functions): m, whose changes are summed.
    quantile: share of the clients that the bound is to hold; None: it stays as it is.
    """

    bound: float
    noise_multiplier: float
    quantile: float | None = None
    entropy: Entropy = field(default_factory=Entropy, compare=False)

    def of_the_count(self, clients: int) -> float:
        """sigma_b; 0 where nothing is counted."""
        return 0.0 if self.quantile is None else count_noise(clients, self.noise_multiplier)

    def of_the_sum(self, clients: int) -> float:
        """sigma_s."""
        return beside_a_count(self.noise_multiplier, self.of_the_count(clients))

    def next_bound(self, within: float, clients: int) -> dict[str, Tensor]:
        """For the state: C', of which `within` of the clients kept C; nothing where the bound stays."""
        if self.quantile is None:
            return {}
        noise = float(self.entropy.gaussian((1,), self.of_the_count(clients)))
        return bound_of(next_bound(self.bound, self.quantile, within + noise, clients))

    def total(self, summed: Summand, clients: int) -> Summand:
        """The sum of a round under noise; what only counts owners and weights tells nothing that was learned."""
        names = {sum_name(module, side) for module in summed.weights for side in ("a", "b")} & summed.sums.keys()
        return replace(
            summed, sums={**summed.sums, **self.tensors({name: summed.sums[name] for name in names}, clients)}
        )

    def tensors(self, sums: Mapping[str, Tensor], clients: int) -> dict[str, Tensor]:
        """Each with noise of its own."""
        deviation = self.bound * self.of_the_sum(clients)
        return {
            name: summed + self.entropy.gaussian(tuple(summed.shape), deviation).to(summed)
            for name, summed in sorted(sums.items())
        }


def bound_of(bound: float) -> dict[str, Tensor]:
    """The bound as the state has it."""
    return {BOUND: torch.tensor(bound, dtype=torch.float64)}


def clipped(
    contribution: Contribution, assignment: Assignment, method: Method, world: World, bound: float
) -> tuple[Contribution, float]:
    """The contribution with a change of at most `bound`, and the norm that its change had."""
    norm = change_norm(contribution, assignment, method, world)
    if norm <= bound:
        return contribution, norm
    share = bound / norm * (1 - 1e-6)  # rounding must not carry it above

    def nearer(module: str, new: Factors) -> Factors:
        old = assignment.start.trainable[module]
        a = new.a if new.a is old.a else torch.lerp(old.a.to(new.a), new.a, share)
        b = new.b if new.b is old.b else torch.lerp(old.b.to(new.b), new.b, share)
        return Factors(a, b, new.scaling)

    head = {name: torch.lerp(assignment.head[name].to(new), new, share) for name, new in contribution.head.items()}
    return replace(contribution, adapter=contribution.adapter.map(nearer), head=head), norm


def change_norm(contribution: Contribution, assignment: Assignment, method: Method, world: World) -> float:
    """Of the change that a client makes to the sum, over all numbers that are added up."""
    facts = ClientFacts(world, contribution.client, contribution.round, assignment.start)
    new = method.lift(contribution.adapter, 1.0, facts).terms
    old = method.lift(assignment.start.trainable, 1.0, facts).terms
    squares = sum(
        float((term.weight * (term.tensor.double() - old[name].tensor.double())).square().sum())
        for name, term in new.items()
    )
    squares += sum(
        float((tensor.double() - assignment.head[name].double()).square().sum())
        for name, tensor in contribution.head.items()
    )
    return math.sqrt(squares)
