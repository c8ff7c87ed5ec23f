"""A client that cannot train anything: which one limit must move, and by how much.

The smallest choices train one module at the lowest rank of the ladder, as every cost grows with more. For a limit l,

    need_l = the least of cost l over the smallest choices that keep all other limits

is what limit l would have to be if it alone may move. The limit with the smallest need_l / limit_l is named. Where no
limit alone helps, the smallest choice that goes beyond its limits by the smallest factor is named, with all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedloom.errors import PlanError
from fedloom.planning.cost import LIMITS, Usage, usage
from fedloom.planning.problem import ROUNDING, Client, Problem, pairs
from fedloom.planning.values import Choice

NAMES = dict(zip(LIMITS, ("memory", "deadline", "bytes up in a round", "bytes down in a round"), strict=True))


@dataclass(frozen=True)
class Shortage:
    """One limit that is too low for a client. alone: whether moving it suffices."""

    client: str
    limit: str
    needs: float
    has: float
    choice: Choice
    alone: bool

    @property
    def missing(self) -> float:
        return self.needs - self.has

    def text(self) -> str:
        """Such as "memory: needs 612 MB at 4 bits, batch 1, rank 1 of one module; has 500 MB: 112 MB more"."""
        (_, rank), choice = self.choice.ranks[0], self.choice
        smallest = f"at {choice.bits} bits, batch {choice.batch}, rank {rank} of one module"
        needs, has, missing = (amount(self.limit, value) for value in (self.needs, self.has, self.missing))
        return f"{NAMES[self.limit]}: needs {needs} {smallest}; has {has}: {missing} more"


def explained(problem: Problem, lacking: Sequence[Client]) -> PlanError:
    """The error for clients for which nothing fits: a line for each, kinds that repeat in one."""
    lines, kinds = [], {client.kind: client for client in lacking}
    for kind, client in kinds.items():
        names = [repr(one.name) for one in lacking if one.kind == kind]
        who = f"client {names[0]}" if len(names) == 1 else f"clients {', '.join(names)}"
        short = shortages(problem, client)
        said = " and ".join(one.text() for one in short)
        note = "" if len(short) == 1 else " (no single limit suffices: all of these must move)"
        lines.append(f"{who}: {said}{note}")
    count = "a client" if len(lacking) == 1 else f"{len(lacking)} clients"
    listed = "".join(f"\n  {line}" for line in lines)
    return PlanError(f"there is nothing that {count} could train within the limits{listed}")


def shortages(problem: Problem, client: Client) -> tuple[Shortage, ...]:
    """The one limit that must move, or all that must; empty where something fits."""
    limits = client.allowed()
    smallest = [(choice, cost, _factors(cost, limits)) for choice, cost in smallest_choices(problem, client)]
    if any(max(factors) <= 1 + ROUNDING for _, _, factors in smallest):
        return ()
    single = [one for one in smallest if sum(factor > 1 + ROUNDING for factor in one[2]) == 1]
    choice, cost, factors = min(single or smallest, key=lambda one: max(one[2]))
    return tuple(
        Shortage(client.name, name, used, limit, choice, alone=bool(single))
        for name, used, limit, factor in zip(LIMITS, cost.values(), limits, factors, strict=True)
        if factor > 1 + ROUNDING
    )


def smallest_choices(problem: Problem, client: Client) -> Iterator[tuple[Choice, Usage]]:
    """One module at the lowest rank, in every pair of bits and batch. Raises: PlanError where there is no pair.

    Of modules of one block and one shape only the first: they cost the same.
    """
    rank, different = problem.menu.ranks[0], dict[tuple[int, int, int], str]()
    for module in problem.architecture.modules:
        if module.full_rank >= rank:
            different.setdefault((module.block, module.inputs, module.outputs), module.name)
    if not different:
        raise PlanError("no module is wide enough for the lowest rank", where="menu.ranks", found=rank)
    for bits, batch, passes in pairs(problem, client):
        for name in different.values():
            choice = Choice(((name, rank),), bits, batch, passes)
            yield choice, usage(problem.architecture, client.machine, client.work, choice)


def amount(limit: str, value: float) -> str:
    """Three digits in the unit that suits: "612 MB", "12.5 min"."""
    if limit == "seconds":
        units: tuple[tuple[str, float], ...] = (("h", 3600.0), ("min", 60.0), ("s", 1.0))
    else:
        units = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
    unit, size = next((one for one in units if value >= one[1]), units[-1])
    return f"{float(f'{value / size:.3g}'):g} {unit}"


def _factors(cost: Usage, limits: Sequence[float]) -> tuple[float, ...]:
    return tuple(used / limit for used, limit in zip(cost.values(), limits, strict=True))
