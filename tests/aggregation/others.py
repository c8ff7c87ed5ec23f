"""Clients and what each has of the others, written out: slow and obvious."""

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.rest_of_world import leave_one_out


def factors_of(seed, shape, rank, scaling=1.5):
    draws = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(rank, shape[1], generator=draws), torch.randn(shape[0], rank, generator=draws), scaling)


def dense(factors):
    return factors.scaling * (factors.b.double() @ factors.a.double())


def best_of_rank(matrix, rank):
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


@dataclass
class Clients:
    """Clients of one run, and what each can hold of the others."""

    contributions: dict
    weights: dict
    ranks: dict

    def others(self, client, module, among=None):
        names = [name for name, adapter in self.contributions.items() if name != client and module in adapter]
        return [name for name in names if among is None or name in among]

    def mean_of_others(self, client, module, among=None):
        """The oracle: every other client's delta written out, weighed and added."""
        others = self.others(client, module, among)
        whole = math.fsum(self.weights[name] for name in others)
        return sum(self.weights[name] / whole * dense(self.contributions[name][module]) for name in others)

    def means_of_rows(self, client, module, among=None):
        """The oracle: index by index, over those whose rank is larger."""
        others = [(self.weights[n], self.contributions[n][module]) for n in self.others(client, module, among)]
        rows, columns = [], []
        for index in range(self.ranks[client][module]):
            owners = [(weight, factors) for weight, factors in others if factors.rank > index]
            if owners:
                whole = math.fsum(weight for weight, _ in owners)
                rows.append(sum(weight * factors.a[index].double() for weight, factors in owners) / whole)
                columns.append(sum(w * f.scaling * f.b[:, index].double() for w, f in owners) / whole)
        return torch.stack(rows), torch.stack(columns, dim=1)

    def rests(self, combine, among=None):
        return leave_one_out(self.contributions, self.weights, self.ranks, combine, among)


SHAPES = {"first": (7, 12), "second": (12, 5), "third": (9, 9)}


@st.composite
def clients(draw):
    """Unequal ranks and weights, some modules missing, ranks that may exceed the layer, and a newcomer."""
    contributions, weights, ranks = {}, {}, {}
    for place in range(draw(st.integers(1, 6))):
        name, modules = f"c{place}", draw(st.sets(st.sampled_from(sorted(SHAPES))))
        contributions[name] = Adapter(
            {
                module: factors_of(draw(st.integers(0, 9999)), SHAPES[module], draw(st.integers(1, 6)), scaling)
                for module in modules
                for scaling in [draw(st.sampled_from([0.25, -1.5, 4.0]))]
            }
        )
        weights[name] = draw(st.sampled_from([0.5, 1.0, 3.0, 40.0, 1e7]))
    for name in [*contributions, "newcomer"]:
        ranks[name] = {module: draw(st.integers(1, 12)) for module in sorted(SHAPES) if draw(st.integers(0, 3))}
    return Clients(contributions, weights, ranks)
