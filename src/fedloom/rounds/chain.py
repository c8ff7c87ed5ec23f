"""The global delta in pieces, as it is sent: from round to round only what was added, in few factors.

With D_t the change that a method made in round t, M the momentum of the server optimizer, and beta and rate as there,

    M_t = beta M_{t-1} + D_t        G_t = G_{t-1} + rate M_t

M is as wide as all earlier changes together, but both are sums of the same pieces: G_t = sum_s w_s D_s and
M_t = sum_s p_s D_s, where p_s <- beta p_s and w_s <- w_s + rate p_s in each round. So D_t and the weights are all that
is new. A client's delta is a function of the pieces and weights alone, whichever way they came to it.

A chain begins anew with G_t whole where that is fewer numbers, where what a round changed is not known in few factors
(a compression of G, adam), and where it has become long, as who comes late is sent all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import ROUNDING, spectra
from fedloom.adapters.factors import Factors
from fedloom.aggregation.server_rule import ServerOptimizer
from fedloom.aggregation.world import GlobalState
from fedloom.rng import generator
from fedloom.rounds.piece import Piece, holding

if TYPE_CHECKING:
    from fedloom.rounds.state import RunState

LONGEST = 3.0  # numbers in a chain, as a multiple of those of the whole delta
WORTH_THE_MOMENTUM = 0.25  # share of the whole that a round may add for a chain to begin with G and M, both as wide
AGREES = 1e-5  # share of G x that the pieces may miss of it: rounding in float32

Write = Callable[[Adapter], str]  # puts a piece away and gives its digest


@dataclass(frozen=True)
class Link:
    """A piece of a chain. numbers: in it.  weight: w, its factor in G.  pace: p, its factor in M."""

    digest: str
    numbers: int
    weight: float = 1.0
    pace: float = 0.0


@dataclass(frozen=True)
class Chain:
    """known: whether this is the delta at all, which a chain from before there were any is not.

    has_momentum: whether M is a sum of the pieces, too; not of one that has just begun with a whole G.
    """

    links: tuple[Link, ...] = ()
    has_momentum: bool = True
    known: bool = True

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return tuple(Piece(link.digest, link.weight) for link in self.links)

    @property
    def numbers(self) -> int:
        return sum(link.numbers for link in self.links)

    def held(self, holds: str) -> frozenset[str]:
        """The digests of those pieces that a client with this confirmation has: a beginning of the chain, or none."""
        pieces = self.pieces
        counts = (count for count in range(len(pieces), 0, -1) if holding(pieces[:count]) == holds)
        return frozenset(piece.digest for piece in pieces[: next(counts, 0)])

    def as_table(self) -> dict[str, Any]:
        rows = [[link.digest, link.numbers, link.weight, link.pace] for link in self.links]
        return {"links": rows, "has_momentum": self.has_momentum, "known": self.known}

    @staticmethod
    def from_table(table: Mapping[str, Any] | None) -> Chain:
        if table is None:
            return Chain(known=False)
        return Chain(tuple(Link(*row) for row in table["links"]), table["has_momentum"], table["known"])


def numbers_of(*adapters: Adapter) -> int:
    """How many there are in the stacked factors of their sum, or in its matrix where that is smaller."""
    stacks: dict[str, list[Factors]] = {}
    for adapter in adapters:
        for module, factors in adapter.items():
            stacks.setdefault(module, []).append(factors)
    return sum(
        min(sum(factors.parameters for factors in parts), parts[0].shape[0] * parts[0].shape[1])
        for parts in stacks.values()
    )


def worth_sending(change: Adapter | None, learned: GlobalState) -> Adapter | None:
    """A round's change, if it is fewer numbers than the whole delta; with many clients it is larger than all else."""
    return None if change is None or change.parameters > numbers_of(learned.trunk, learned.shared) else change


def extended(before: RunState, after: RunState, optimizer: ServerOptimizer, write: Write) -> Chain:
    """The chain of the state after a round; what is new is put away."""
    whole = numbers_of(after.learned.trunk, after.learned.shared)
    return _longer(before, after, optimizer, whole, write) or begun_anew(after.learned, write)


def begun_anew(learned: GlobalState, write: Write) -> Chain:
    """One piece: the whole delta; none where nothing was learned."""
    return Chain(tuple(_links([(learned.delta(), Link("", 0))], write)), has_momentum=not learned.momentum)


def _longer(before: RunState, after: RunState, optimizer: ServerOptimizer, whole: int, write: Write) -> Chain | None:
    """The chain of before and what this round added; None where it is better to begin anew."""
    chain, change = before.chain, worth_sending(after.change, after.learned)
    if change is None or not chain.known or optimizer.rule == "adam":
        return None
    momentum = optimizer.rule == "momentum"
    rate, beta = (optimizer.learning_rate, optimizer.beta1) if momentum else (1.0, 0.0)
    added = _compact(change)
    earlier = Adapter() if chain.has_momentum or not momentum else before.learned.momentum
    new = numbers_of(added) + numbers_of(earlier)
    too_dear = numbers_of(added) > WORTH_THE_MOMENTUM * whole if earlier else new > whole
    if too_dear or chain.numbers + new > LONGEST * whole:
        return None
    parts = [(before.learned.momentum if momentum else Adapter(), rate * beta), (added, rate)]
    if not _agrees(before.learned, after.learned, parts):
        return None
    moved = [replace(link, weight=link.weight + rate * beta * link.pace, pace=beta * link.pace) for link in chain.links]
    fresh = [(earlier, Link("", 0, rate * beta, beta)), (added, Link("", 0, rate, 1.0))]
    return Chain((*moved, *_links(fresh, write)), chain.has_momentum or momentum)


def _compact(change: Adapter) -> Adapter:
    """In as few directions as it has: the stack is of differences, which nearly cancel."""
    found = spectra(change, tolerance=ROUNDING)
    return Adapter().updated({module: directions.factors() for module, directions in found.items()})


def _links(new: list[tuple[Adapter, Link]], write: Write) -> list[Link]:
    """The links of those that are not empty, which are put away."""
    return [replace(link, digest=write(piece), numbers=numbers_of(piece)) for piece, link in new if piece]


def _agrees(before: GlobalState, after: GlobalState, parts: list[tuple[Adapter, float]]) -> bool:
    """Whether G_t is G_{t-1} and these parts, as far as a random vector for each module tells."""
    now, then = after.delta(), before.delta()
    for module in sorted(now.keys() | then.keys()):
        there = next(adapter[module] for adapter in (now, then) if module in adapter)
        x = torch.randn(there.shape[1], 1, generator=generator(0, "chain", module))
        y = _product(now, module, x)
        missed = y - _product(then, module, x) - sum(weight * _product(part, module, x) for part, weight in parts)
        if float(torch.as_tensor(missed).norm()) > AGREES * float(torch.as_tensor(y).norm()):
            return False
    return True


def _product(adapter: Adapter, module: str, x: torch.Tensor) -> torch.Tensor:
    """delta @ x, without the delta; zero for a module that is not there."""
    if module not in adapter:
        return torch.zeros(())
    factors = adapter[module]
    return factors.scaling * (factors.b @ (factors.a @ x.to(factors.a)))
