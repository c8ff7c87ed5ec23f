"""What to train where, as a mixed-integer linear program: the problem as data.

Given (sets and numbers):

    c in C     clients; p_c their share of the data (sum 1)
    m in M     modules; v_m >= 0 their importance, divided by its sum
    r in R     a ladder of ranks, such as 1, 2, 4, .., 64; g(r) the gain of rank r: increasing and concave, g(0) = 0
    s in S_c   settings of a client: bits q, batch b (with c = examples / b passes a step), first block d
    a_q        accuracy that is kept with a base of q bits, 0 < a_q <= 1
    u_l        costs l: peak memory, seconds of a round, bytes up, bytes down: fixed_ls + sum over modules of
               cost_lsmr (`cost.Rates`);  limit_lc
    w          price of a second, in shares of all importance (0: time counts only against its limit)
    B          bytes of all messages of a round, up and down, that the server may have

Chosen, all binary:

    x_cs       client c has setting s
    y_csmr     and in it trains module m at rank r

    maximise   sum_c p_c sum_s [ sum_mr (a_q v_m g(r) - w cost_time,smr) y_csmr  -  w fixed_time,s x_cs ]

    (one)      sum_s x_cs = 1                                                     one setting for a client
    (rank)     sum_r y_csmr <= x_cs                          for each c, s, m     one rank for a module, or none
    (some)     sum_mr y_csmr >= x_cs                         for each c, s        something is trained
    (first)    y_csmr = 0 where m lies below block d of s                         the backward pass ends at block d
    (fits)     fixed_ls x_cs + sum_mr cost_lsmr y_csmr <= limit_lc x_cs      for each c, s, l
    (full)     y_csmr = 0 where r > min(in_m, out_m)
    (server)   sum over c, s of what up and down cost in (fits) <= B             the only limit that clients share

Why it is linear: memory has products of batch and rank, and of bits and batch, time of passes and depth. With the
setting as one index they are constants. (rank) says the same as rungs z_1 >= z_2 >= .. with y_r = z_r - z_next: a
one-to-one linear map, so both relaxations are equally tight; this one has one row for a module instead of one for each
rung. What is left fractional in the relaxation of one setting is at most one module for each limit that binds.

Without (server) the program falls apart: one maximum over settings of a knapsack with four limits, for each kind of
client (`search`); with it, it does so once a byte has a price (`solve`). How much a module gains does not depend on who
else trains it: the objective is a sum over clients, as every method averages a module over those that trained it, by
data. A bonus for modules that nobody else trains would give clones different plans, and is left out on purpose.

The program is ours: FedPipe (arXiv 2404.06448) states such a program, but no formula of it was available to us.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fedloom.errors import PlanError
from fedloom.planning.checks import distinct, nonnegative, positive
from fedloom.planning.cost import Rates, Usage, all_rates, ranked
from fedloom.planning.values import BITS, Architecture, Choice, Machine, Module, Setting, Work

ROUNDING = 1e-9  # of a limit: sums in another order are not a violation
RANKS = (1, 2, 4, 8, 16, 32, 64)
HALF = 4.0
KEPT = ((32, 1.0), (16, 1.0), (8, 0.995), (4, 0.98))


def saturating(ranks: Iterable[int], half: float = HALF) -> tuple[float, ...]:
    """g(r) = r / (r + half): half of the gain at rank `half`, all of it at no rank. Increasing and concave."""
    return tuple(rank / (rank + half) for rank in ranks)


def _check_whole(name: str, found: tuple[int, ...]) -> None:
    if any(type(number) is not int or number < 1 for number in found) or list(found) != sorted(found):
        raise PlanError("not a ladder", where=f"menu.{name}", expected="rising whole numbers from 1", found=found)


def _check_gains(ranks: tuple[int, ...], gains: tuple[float, ...]) -> None:
    """Raises: PlanError unless the gains rise, ever more slowly, from g(0) = 0."""
    if len(ranks) != len(gains):
        raise PlanError("not a gain for each rank", where="menu.gains", expected=len(ranks), found=len(gains))
    slopes = np.diff([0.0, *gains]) / np.diff([0, *ranks])
    if not (np.isfinite(slopes).all() and (slopes > 0).all() and (np.diff(slopes) <= 1e-12).all()):
        raise PlanError("gains must rise, ever more slowly", where="menu.gains", found=gains)


@dataclass(frozen=True)
class Menu:
    """What may be chosen. gains: g(r) of each rank.  kept: (bits, accuracy that is kept), the bits that may be used.

    batches: examples in a pass; a client may have those that divide the examples of its step.
    second_price: what a second of a round is worth, in shares of all importance.
    """

    ranks: tuple[int, ...] = RANKS
    gains: tuple[float, ...] = saturating(RANKS)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    kept: tuple[tuple[int, float], ...] = KEPT
    second_price: float = 0.0

    def __post_init__(self) -> None:
        distinct(self, "ranks", self.ranks)
        distinct(self, "batches", self.batches)
        distinct(self, "kept", [bits for bits, _ in self.kept])
        nonnegative(self, "second_price")
        _check_whole("ranks", self.ranks)
        _check_whole("batches", self.batches)
        if any(bits not in BITS or not 0 < share <= 1 for bits, share in self.kept):
            raise PlanError(
                "not bits with what they keep", where="menu.kept", expected="0 < kept <= 1", found=self.kept
            )
        _check_gains(self.ranks, self.gains)

    def kept_at(self, bits: int) -> float:
        """Raises: PlanError for bits that are not on the menu."""
        if bits not in dict(self.kept):
            raise PlanError("bits that may not be chosen", where="menu.kept", expected=dict(self.kept), found=bits)
        return dict(self.kept)[bits]

    def gain(self, rank: int) -> float:
        """Raises: PlanError for a rank that is not on the ladder."""
        if rank not in self.ranks:
            raise PlanError("a rank that may not be chosen", where="menu.ranks", expected=self.ranks, found=rank)
        return self.gains[self.ranks.index(rank)]


@dataclass(frozen=True)
class Limits:
    """What a client may use in a round; inf for no limit."""

    memory_bytes: float = float("inf")
    seconds: float = float("inf")
    up_bytes: float = float("inf")
    down_bytes: float = float("inf")

    def __post_init__(self) -> None:
        positive(self, "memory_bytes", "seconds", "up_bytes", "down_bytes", infinite=True)


@dataclass(frozen=True)
class Client:
    """share: its part of the data of all clients; only the proportions count.

    batches: those that it may have; none for all on the menu.
    """

    name: str
    share: float
    machine: Machine
    work: Work
    limits: Limits = Limits()
    batches: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        positive(self, "share")
        if self.batches:
            _check_whole("batches", self.batches)

    @property
    def kind(self) -> tuple[Machine, Work, Limits, tuple[int, ...]]:
        """Clients of one kind have one plan."""
        return self.machine, self.work, self.limits, self.batches

    def allowed(self) -> tuple[float, float, float, float]:
        """In the order of LIMITS; of memory what the machine has, if that is less than the limit."""
        limits = self.limits
        memory = min(self.machine.memory_bytes, limits.memory_bytes)
        return memory, limits.seconds, limits.up_bytes, limits.down_bytes


@dataclass(frozen=True)
class Problem:
    """importance: of each module, in the order of the architecture; only the proportions count.
    server_bytes: that all messages of a round may have together, up and down; inf for no limit.
    """

    architecture: Architecture
    importance: tuple[float, ...]
    clients: tuple[Client, ...]
    menu: Menu = Menu()
    server_bytes: float = float("inf")

    def __post_init__(self) -> None:
        distinct(self, "clients", [client.name for client in self.clients])
        positive(self, "server_bytes", infinite=True)
        found = np.asarray(self.importance, dtype=float)
        if len(found) != len(self.architecture.modules):
            expected = f"one number for each of {len(self.architecture.modules)} modules"
            raise PlanError("importance does not fit the model", expected=expected, found=len(found))
        if not (np.isfinite(found).all() and (found >= 0).all() and found.sum() > 0):
            raise PlanError("importance cannot be planned with", expected="finite numbers of at least 0, not all 0")

    def values(self) -> np.ndarray:
        """v_m: importance over its sum."""
        found = np.asarray(self.importance, dtype=float)
        return found / found.sum()

    def weights(self) -> dict[str, float]:
        """p_c: share over the sum of shares."""
        total = sum(client.share for client in self.clients)
        return {client.name: client.share / total for client in self.clients}


def covered(problem: Problem, choice: Choice) -> float:
    """sum over trained modules of v_m g(r): the share of all importance that a client covers, 0 to 1."""
    value = dict(zip((module.name for module in problem.architecture.modules), problem.values(), strict=True))
    return float(sum(value[module.name] * problem.menu.gain(rank) for module, rank in _ranked(problem, choice)))


def worth(problem: Problem, choice: Choice, cost: Usage) -> float:
    """A client's term of the objective, without p_c: kept accuracy x covered - price x seconds."""
    kept = problem.menu.kept_at(choice.bits)
    return kept * covered(problem, choice) - problem.menu.second_price * cost.seconds


def fits(client: Client, cost: Usage) -> bool:
    return all(used <= limit * (1 + ROUNDING) for used, limit in zip(cost.values(), client.allowed(), strict=True))


def pairs(problem: Problem, client: Client) -> list[tuple[int, int, int]]:
    """(bits, batch, passes of a step) that the client may have, in the order of the menu.

    Raises: PlanError where no batch divides the examples of a step, or no bits were measured.
    """
    examples = client.work.examples
    allowed = client.batches or problem.menu.batches
    batches = [batch for batch in allowed if examples % batch == 0]
    measured = [speed.bits for speed in client.machine.speeds]
    bits = [number for number, _ in problem.menu.kept if number in measured]
    if not batches or not bits:
        what = "no batch on the menu divides the examples of a step" if not batches else "no bits were measured"
        expected = f"a divisor of {examples}" if not batches else [number for number, _ in problem.menu.kept]
        found = allowed if not batches else measured
        raise PlanError(what, where=f"client {client.name!r}", expected=expected, found=found)
    return [(number, batch, examples // batch) for number in bits for batch in batches]


def settings(problem: Problem, client: Client) -> list[Setting]:
    """S_c: each pair with each block that has modules, lowest first."""
    blocks = sorted({module.block for module in problem.architecture.modules})
    return [Setting(*pair, first) for pair in pairs(problem, client) for first in blocks]


def rates_of(problem: Problem, client: Client, setting: Setting) -> tuple[Rates, ...]:
    """The costs of a setting, in the order of LIMITS."""
    return all_rates(problem.architecture, client.machine, client.work, setting)


def _ranked(problem: Problem, choice: Choice) -> list[tuple[Module, int]]:
    return ranked(problem.architecture, choice)
