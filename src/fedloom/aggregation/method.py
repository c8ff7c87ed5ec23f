"""The contract of a method: what is added over clients, and what is made of the sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.local_rules import LocalRules
from fedloom.aggregation.server_rule import ServerOptimizer, no_server_rule
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, GlobalState, Lending, RoundFacts, Side, Start, World


class Law(Enum):
    """A property of a method's algebra; the law tests hold every method to what it declares, both ways."""

    ORDER = "order of clients does not matter"
    WEIGHT_SCALE = "weights only matter up to scale"
    IDENTITY = "one client gives itself"
    EQUAL_CLIENTS = "equal clients give that client"
    UNEQUAL_RANKS = "unequal ranks are accepted"
    EXACT_MEAN = "the mean of deltas is exact"
    EXACT_SHARED_A = "exact when all share a"
    SPLIT = "a client split in two of half the weight changes nothing"
    ZERO_UPDATE = "zero update changes nothing"


@dataclass(frozen=True)
class NoSettings:
    """The settings of a method that has none."""


def train_both(module: str, side: Side, round: int) -> bool:
    """The rule of methods that train both factors in every round."""
    return True


def keep_nothing(module: str, side: Side) -> bool:
    """The rule of methods that send whatever is trained."""
    return False


def sends_trunk(settings: Any) -> bool:
    """The rule of methods whose clients' trunks are not simply the rest of the global delta, or are small."""
    return False


def needs_sums(settings: Any) -> str:
    """The rule of methods whose settings do not decide what the server must see."""
    return ""


def only_trains(settings: Any) -> str:
    """The rule of methods whose clients read their rows in training alone."""
    return ""


def no_rules(settings: Any) -> LocalRules:
    """Of methods that leave training at the client as it is."""
    return LocalRules()


@dataclass(frozen=True)
class Method:
    """An aggregation method, as a value made of pure functions.

    name: equals the file's stem.  source: paper and equation.  summary: one line for a table.
    traffic: what goes up and down.  when: when to use it and when not, by its algebra.
    reveals: what the server must see. "sum": the sum of tensors that all clients have in one shape. "deltas": that, and
        of a stack with the clients' modules no more than the sum of its deltas, which sketches add. "individuals": each
        client's summand, which excludes secure aggregation.
    settings: a frozen dataclass whose fields (with metadata "help") are the method's own settings.
    trains(module, side, round): whether clients train this factor in this round.
    keeps(module, side): whether this factor stays at its client: trained there, never sent, never averaged. It knows no
        round, as what was kept once has no common counterpart. `dispatch` gives only its first value.
    init(world) -> state before round 1.
    lift(adapter, weight, facts) -> summand: pure; runs on the server, or on the client when masked.
    finish(total, state, facts) -> the next state.  `total` has a positive weight for each module in it.
    dispatch(state, world, client) -> what the client begins the round after `state.rounds` from. A function of
        the state alone, so that a client that missed rounds gets exactly what it missed.
    resumes: whether a client begins every round from what it trained last, which it has itself, besides sending it.
    lends(state, world): who is borrowed from, of methods whose server has each client's adapter; None of others.
    individuals(settings): why the server must see each client's factors with these settings, although it needs only
        sums with others; empty: it need not.
    reads(settings): what clients with these settings read their rows for besides training, which noise on training does
        not cover; empty: nothing.
    rest(settings): whether every start is whole: its trunk is the global delta less its trainable factors. Clients
        then form it themselves, from pieces of the delta that they mostly have.
    rules(settings): what the method asks of a client's training besides the loss.
    moved(state, change, world): the state whose delta is larger by `change` (as far as the method can hold it), for
        server optimizers on the delta; None: the shared factors are what is optimised.
    change(total, state, facts): what `finish` will add to the delta, in few factors, for server optimizers and for what
        is sent; None: the difference of the two states, which is as wide as both.
    refactors: whether `finish` changes sides that nobody trains, so that they must travel in every round.
    rebase(new, start, present): what a client trained from an earlier start, as if it had trained from what it would be
        sent now: for answers that come late. None: what it changed means nothing in a later state. See `rebase`.
    replans: whether clients' ranks may change between rounds: no value of the state has them in its shape.
    server(clients): the server optimizer that goes with it unless the user names another, for so many clients in a run.
    """

    name: str
    source: str
    summary: str
    traffic: str
    when: str
    laws: frozenset[Law]
    reveals: Literal["sum", "deltas", "individuals"]
    init: Callable[[World], GlobalState]
    lift: Callable[[Adapter, float, ClientFacts], Summand]
    finish: Callable[[Summand, GlobalState, RoundFacts], GlobalState]
    dispatch: Callable[[GlobalState, World, str], Start]
    trains: Callable[[str, Side, int], bool] = train_both
    keeps: Callable[[str, Side], bool] = keep_nothing
    resumes: bool = False
    lends: Callable[[GlobalState, World], Lending] | None = None
    individuals: Callable[[Any], str] = needs_sums
    reads: Callable[[Any], str] = only_trains
    rest: Callable[[Any], bool] = sends_trunk
    rules: Callable[[Any], LocalRules] = no_rules
    moved: Callable[[GlobalState, Adapter, World], GlobalState] | None = None
    change: Callable[[Summand, GlobalState, RoundFacts], Adapter] | None = None
    server: Callable[[int], ServerOptimizer] = no_server_rule
    refactors: bool = False
    rebase: Callable[[Adapter, Adapter, Adapter], Adapter] | None = None
    replans: bool = False
    settings: type = field(default=NoSettings)

    @property
    def personal(self) -> bool:
        """Whether clients have something of their own, so that each has its model and there is no global one."""
        return self.resumes or self.keeps is not keep_nothing

    def sends(self, module: str, side: Side, round: int) -> bool:
        """Whether clients send this factor in this round."""
        return self.trains(module, side, round) and not self.keeps(module, side)

    def kept_sides(self, adapter: Adapter) -> dict[str, str]:
        """module -> its sides that stay at the client ("", "a", "b" or "ab")."""
        return {module: "".join(side for side in "ab" if self.keeps(module, side)) for module in adapter}
