"""What every client is told of the others: the mean of their adapters without its own, at the rank that it can hold.

    exact:    R_k = sum_{m != k} w_m s_m b_m a_m / sum_{m != k} w_m, at its best rank
    factors:  a_R[j] = mean of a_m[j], b_R[:, j] = mean of s_m b_m[:, j], over the others that own rank index j

Module by module over those who have it. One pass makes the sums, and each client is taken off them: the cost is linear
in clients, unless a client borrows from a choice of others (`among`), whose sums are added for it alone.
Source: FedALT (Bian et al., 2025, arXiv 2503.11880), section 4: the rest of the world, which it averages by factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.threads import each_on_a_thread
from fedloom.aggregation.leading_part import ROUNDING, Leading, of_the_others, weighted_sum
from fedloom.aggregation.owned_rows import ALONE, OwnedSums, means_without, owned_sums
from fedloom.aggregation.rest_checks import check_adapters, check_ranks, check_weight, checked_names
from fedloom.errors import AggregationError

Combine = Literal["exact", "factors"]
Parts = Mapping[str, Factors]
Wanted = Mapping[str, int]  # client -> rank, of one module
Chosen = Mapping[str, frozenset[str]] | None  # client -> those it borrows from; None: all others

FLOAT32_ROUNDING = 1e-7  # share of the lengths of a float32 sum and what is taken off it, below which nothing is left


@dataclass(frozen=True, eq=False)
class RestOfWorld:
    """The others' mean as one client gets it.

    adapter: scaling 1, float32; a module that nobody else has is absent, one whose delta is zero is there.
    error: Frobenius norm of what compression left out over that of the whole rest, over all modules; 0 to 1.
    """

    adapter: Adapter = field(default_factory=Adapter)
    error: float = 0.0


def leave_one_out(
    contributions: Mapping[str, Adapter],
    weights: Mapping[str, float],
    ranks: Mapping[str, Mapping[str, int]],
    combine: Combine,
    among: Mapping[str, Collection[str]] | None = None,
) -> dict[str, RestOfWorld]:
    """The rest of the world of each client in `ranks`, by name, whether it is among the contributions or not.

    weights: of every client that contributes.  ranks: client -> module -> the largest rank that it can hold, also of
    modules that it has no factors of.  combine: see above.
    among: client -> those it borrows from (those that do not contribute, and itself, do not count). Left out: from all
    others, at linear cost; with it the cost grows with the number of pairs.

    Raises: AggregationError for a weight that is not positive and finite, shapes of one module that differ, factors
    that are not finite, a rank below 1, and a client without an entry in `among`.
    """
    if combine not in _JOBS:
        raise AggregationError("no such way to combine the others", expected="'exact' or 'factors'", found=combine)
    _check(contributions, weights, ranks)
    chosen = None if among is None else {client: checked_names(among, client) for client in ranks}
    parts = _by_module(contributions, ranks)

    def of_module(module: str) -> dict[str, Leading]:
        wanted = {client: of_one[module] for client, of_one in ranks.items() if module in of_one}
        of_those = {name: float(weights[name]) for name in parts[module]}
        return _JOBS[combine](parts[module], of_those, wanted, chosen)

    found = dict(zip(parts, each_on_a_thread(of_module, list(parts)), strict=True))
    return {
        client: _together({module: of_one[client] for module, of_one in found.items() if client in of_one})
        for client in sorted(ranks)
    }


def _check(
    contributions: Mapping[str, Adapter], weights: Mapping[str, float], ranks: Mapping[str, Mapping[str, int]]
) -> None:
    for client in sorted(contributions):
        check_weight(weights.get(client), f"weight of client {client!r}")
    check_adapters({f"client {client!r}": adapter for client, adapter in sorted(contributions.items())})
    check_ranks({f"client {client!r}": of_one for client, of_one in ranks.items()})


def _by_module(
    contributions: Mapping[str, Adapter], ranks: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, Factors]]:
    """module -> client -> factors, of the modules that somebody wants and somebody has."""
    wanted = {module for of_one in ranks.values() for module in of_one}
    found: dict[str, dict[str, Factors]] = {}
    for client, adapter in sorted(contributions.items()):
        for module in adapter.keys() & wanted:
            found.setdefault(module, {})[client] = adapter[module]
    return dict(sorted(found.items()))


def _others(parts: Parts, client: str, chosen: Chosen) -> list[str]:
    return [name for name in parts if name != client and (chosen is None or name in chosen[client])]


def _exact(parts: Parts, weights: Mapping[str, float], wanted: Wanted, chosen: Chosen) -> dict[str, Leading]:
    """client -> the best rank of the others' mean delta, where there are others."""
    summed, whole = weighted_sum(parts, weights), math.fsum(weights.values())
    found: dict[str, Leading] = {}
    for client, rank in wanted.items():
        others = [] if chosen is None else _others(parts, client, chosen)
        if chosen is None and len(parts) > (client in parts):
            (matrix, lengths), weight = summed.without(client), of_the_others(weights, whole, client)
        elif others:
            matrix, lengths = summed.only(others)
            weight = math.fsum(weights[name] for name in others)
        else:
            continue
        found[client] = summed.leading(matrix, rank, ROUNDING * lengths, 1 / weight)
    return found


def _factors(parts: Parts, weights: Mapping[str, float], wanted: Wanted, chosen: Chosen) -> dict[str, Leading]:
    """client -> the others' mean factors, up to the rank that some other has."""
    whole, highest = owned_sums(parts, weights), sorted(parts, key=lambda name: -parts[name].rank)[:2]
    found: dict[str, Leading] = {}
    for client, rank in wanted.items():
        others = _others(parts, client, chosen) if chosen is not None else [n for n in highest if n != client]
        if not others:
            continue
        common = min(rank, max(parts[name].rank for name in others))
        if chosen is None:
            factors = means_without(whole, parts, weights, client, common)
        else:
            factors = owned_sums({name: parts[name] for name in others}, weights).first(common).means()
        found[client] = Leading(factors, 0.0, 0.0)
    return found


_JOBS = {"exact": _exact, "factors": _factors}


def _together(modules: Mapping[str, Leading]) -> RestOfWorld:
    square, lost = (math.fsum(getattr(one, name) for one in modules.values()) for name in ("square", "lost_square"))
    adapter = Adapter({module: one.factors for module, one in modules.items()})
    return RestOfWorld(adapter, min(1.0, math.sqrt(lost / square)) if square > 0 else 0.0)


def without_own(
    total: Adapter, weight: Mapping[str, float], own: Adapter, own_weight: float, ranks: Mapping[str, int]
) -> RestOfWorld:
    """The client's half of `exact`, where the server knows the sum only: R = (W T - w delta) / (W - w).

    total: the weighted mean delta T of a round's participants, in factors of any rank.  weight: module -> their total
    weight W.  own_weight: 0 if the client did not take part.  ranks: module -> the largest rank that it can hold.
    What is left is as exact as float32 made the total.

    Raises: AggregationError for weights that are not positive and finite, an own weight above the total, other shapes.
    """

    def of_module(module: str) -> Leading | None:
        whole, own_here = _weight_of(weight, module), own_weight if module in own else 0.0
        left = _weight_left(whole, own_here, module)
        if left is None:
            return None
        parts, factors = {"the total": total[module]}, {"the total": whole}
        if own_here > 0:
            parts["the client"], factors["the client"] = own[module], -own_here
        summed = weighted_sum(parts, factors)
        rounding = FLOAT32_ROUNDING * math.fsum(summed.lengths.values()) if own_here > 0 else 0.0
        return summed.leading(summed.total, ranks[module], rounding, 1 / left)

    return _of_each(of_module, total, own, own_weight, ranks)


def without_own_factors(
    bank: Adapter, owners: Mapping[str, Tensor], own: Adapter, own_weight: float, ranks: Mapping[str, int]
) -> RestOfWorld:
    """The client's half of `factors`: (O[j] bank[j] - w own[j]) / (O[j] - w) for the rank indices that others own.

    bank: module -> the means over owners.  owners: module -> their weights O by rank index, shape (the bank's rank,).
    own_weight, ranks: as in `without_own`.  Raises: AggregationError as `without_own`, and for other numbers of owners.
    """

    def of_module(module: str) -> Leading | None:
        mean, owned = bank[module].folded(), _owners_of(owners, module, bank[module].rank)
        whole = OwnedSums(mean.a.double() * owned[:, None], mean.b.double() * owned, owned)
        left = whole.less(own[module], own_weight) if own_weight > 0 and module in own else whole
        others = left.owners > ALONE * owned
        common = min(ranks[module], int(others.to(torch.int64).cumprod(0).sum()))
        return Leading(left.first(common).means(), 0.0, 0.0) if common else None

    return _of_each(of_module, bank, own, own_weight, ranks)


def _of_each(
    of_module: Callable[[str], Leading | None], total: Adapter, own: Adapter, own_weight: float, ranks: Wanted
) -> RestOfWorld:
    if own_weight != 0:
        check_weight(own_weight, "the client's own weight")
    check_adapters({"the total": total, "the client's own": own})
    check_ranks({"the client's own": ranks})
    modules = sorted(module for module in ranks if module in total)
    found = zip(modules, each_on_a_thread(of_module, modules), strict=True)
    return _together({module: one for module, one in found if one is not None})


def _weight_of(weight: Mapping[str, float], module: str) -> float:
    return check_weight(weight.get(module), f"total weight of module {module!r}")


def _weight_left(whole: float, own: float, module: str) -> float | None:
    """What is left of a total weight; None where that is nobody's."""
    if own > whole * (1 + ALONE):
        raise AggregationError(
            "the client's own weight is larger than the total that it is part of",
            where=f"module {module!r}",
            expected=f"at most {whole}",
            found=own,
        )
    return whole - own if whole - own > ALONE * whole else None


def _owners_of(owners: Mapping[str, Tensor], module: str, rank: int) -> Tensor:
    found = owners.get(module)
    if found is None or found.shape != (rank,):
        raise AggregationError(
            "each rank index of a bank needs the weight of its owners",
            where=f"module {module!r}",
            expected=f"shape ({rank},)",
            found="none" if found is None else f"shape {tuple(found.shape)}",
        )
    return found.double()


def neighbours(similarity: Tensor, names: Sequence[str], count: int) -> dict[str, tuple[str, ...]]:
    """client -> the `count` others that are most similar to it (all if there are fewer), the most similar first.

    similarity (K, K), row and column in the order of names; of equals the earlier name counts first.
    Raises: AggregationError for another shape, a count below 1, or a similarity that is no number.
    """
    if similarity.shape != (len(names), len(names)) or bool(similarity.isnan().any()):
        raise AggregationError(
            "neighbours need a similarity of every two clients",
            expected=f"numbers of shape ({len(names)}, {len(names)})",
            found=f"shape {tuple(similarity.shape)}",
        )
    if count < 1:
        raise AggregationError("a client needs at least one neighbour", expected="a count of 1 or more", found=count)
    rows = similarity.tolist()

    def nearest(own: int) -> tuple[str, ...]:
        others = (place for place in range(len(names)) if place != own)
        order = sorted(others, key=lambda place: (-rows[own][place], names[place]))
        return tuple(names[place] for place in order[:count])

    return {name: nearest(own) for own, name in enumerate(names)}
