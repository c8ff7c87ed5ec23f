"""Which directions of a known delta a client trains, and new ones for the places that are empty.

Positions count the directions of the spectrum from the strongest; those behind the last one are empty. A rule gives
`rank` positions out of the leading `pool`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Rule = Callable[[int, int, int, torch.Generator], Sequence[int]]


def _top(rank: int, pool: int, known: int, draws: torch.Generator) -> Sequence[int]:
    return range(rank)


def _half(rank: int, pool: int, known: int, draws: torch.Generator) -> Sequence[int]:
    strongest = (rank + 1) // 2
    others = strongest + torch.randperm(pool - strongest, generator=draws)[: rank - strongest]
    return [*range(strongest), *others.tolist()]


def _rotating(rank: int, pool: int, known: int, draws: torch.Generator) -> Sequence[int]:
    return torch.randperm(pool, generator=draws)[:rank].tolist()


def _fresh(rank: int, pool: int, known: int, draws: torch.Generator) -> Sequence[int]:
    return range(known, known + rank)


RULES: dict[str, Rule] = {"top": _top, "half": _half, "rotating": _rotating, "fresh": _fresh}


def choose(rule: str, rank: int, pool: int, known: int, draws: torch.Generator) -> tuple[list[int], list[int]]:
    """The known positions that are trained, and those that are not, both ascending.

    rank: places to fill.  pool: positions to draw from, at least rank.  known: directions that there are.
    """
    return divided(RULES[rule](rank, pool, known, draws), known)


def deal(ranks: Mapping[str, int], known: int, draws: torch.Generator) -> dict[str, list[int]]:
    """As many positions for each client as its rank, none of them twice: together they cover what is known.

    Positions are shuffled and dealt in the order of the names. With fewer known directions than places, all are dealt
    and the other places are empty; with more, those left over are drawn at random.
    """
    order = torch.randperm(max(known, sum(ranks.values())), generator=draws).tolist()
    dealt, first = {}, 0
    for client, rank in sorted(ranks.items()):
        dealt[client] = order[first : first + rank]
        first += rank
    return dealt


def weighted(strengths: Tensor, power: float, rank: int, draws: torch.Generator) -> list[int]:
    """`rank` positions, none of them twice, each next one with a chance that is proportional to strength^power.

    Fewer are known: all of them, and the other places are empty. By Gumbel keys, in logarithms, so that no power is
    too large.  Shape: strengths (known,), above zero.  Source: Efraimidis and Spirakis (2006), by way of Gumbel's law.
    """
    chances = power * strengths.double().cpu().log()
    uniform = torch.rand(len(chances), generator=draws, dtype=torch.float64)
    keys = chances - (-uniform.log()).log()
    return keys.topk(min(rank, len(keys))).indices.tolist()


def divided(chosen: Sequence[int], known: int) -> tuple[list[int], list[int]]:
    """Of the known positions those that are chosen and the others, both ascending."""
    positions = set(chosen)
    return [i for i in range(known) if i in positions], [i for i in range(known) if i not in positions]


def new_rows(count: int, chosen: Tensor, known: Tensor, draws: torch.Generator) -> Tensor:
    """Random orthonormal rows, orthogonal to all known rows, or to the chosen ones if there is no room for more.

    Shapes: chosen (m, in) and known (n, in) with orthonormal rows; result (count, in). A count above `in` gives rows of
    length 1 that cannot be orthogonal.
    """
    inputs = known.shape[1]
    noise = torch.randn(count, inputs, generator=draws).to(known)
    for others in (known, chosen, known[:0]):
        if len(others) + count <= inputs:
            for _ in range(2):  # once leaves rounding errors as large as what was taken away
                noise = noise - (noise @ others.T) @ others
            return torch.linalg.qr(noise.T).Q.T
    return torch.nn.functional.normalize(noise, dim=1)
