"""What a method may know: the modules, the clients' ranks, and what has been learned so far."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import stack_adapters
from fedloom.adapters.factors import Factors
from fedloom.adapters.sums import Identities
from fedloom.errors import AggregationError
from fedloom.rng import child

Side = str  # "a" or "b"


@dataclass(frozen=True)
class Slot:
    """The place that one client has for the factors of one module: its rank and scaling (alpha / rank)."""

    rank: int
    scaling: float


@dataclass(frozen=True)
class World:
    """The fixed facts of a run that every method may use, at the server and at a client.

    modules: module -> (out, in).  slots: client -> module -> Slot, for all clients, present in a round or not.
    settings: the method's own, checked.  seed: of the run; every draw names its purpose with `rng.generator`.
    branch: how often an operator rolled the run back: what is drawn in a round after that is drawn by other seeds.
    sums_only: whether the server sees nothing of a round but sums over its clients, as under secure aggregation.
    """

    modules: Mapping[str, tuple[int, int]]
    slots: Mapping[str, Mapping[str, Slot]]
    settings: Any
    seed: int
    sums_only: bool = False
    branch: int = 0

    @property
    def round_seed(self) -> int:
        """Of what is drawn anew in every round, so that a round that was rolled back does not come again.

        Formula: seed in branch 0, child(seed, "branch", branch) after. What stays the same all run long draws from
        `seed`.
        """
        return self.seed if self.branch == 0 else child(self.seed, "branch", self.branch)

    def max_rank(self, module: str) -> int:
        """The largest rank that any client of the run has for a module."""
        return self._max_ranks[module]

    @cached_property
    def _max_ranks(self) -> dict[str, int]:
        ranks: dict[str, int] = {}
        for slots in self.slots.values():
            for module, slot in slots.items():
                ranks[module] = max(slot.rank, ranks.get(module, 0))
        return ranks

    @property
    def equal_ranks(self) -> bool:
        """Whether all clients have the same rank in every module they share."""
        return all(
            len({slots[module].rank for slots in self.slots.values() if module in slots}) <= 1
            for module in self.modules
        )


@dataclass(frozen=True)
class GlobalState:
    """Everything that the server must keep between two rounds; a checkpoint is this value.

    The global model is W0 + trunk + shared, for every method.
    shared: the adapter that is being trained.  trunk: what was learned and is not trained any more.
    clients: what belongs to one client alone (personal methods).  rests: client -> what it borrows from the others.
    momentum: what a server optimizer remembers of earlier changes of the delta.
    ranks: client -> module -> rank, where a client's is now below that of its slot (the slot stays the plan).
    extras: further tensors of a method or a server optimizer, by name.
    rounds: how many rounds this state has behind it.
    """

    shared: Adapter = field(default_factory=Adapter)
    trunk: Adapter = field(default_factory=Adapter)
    clients: Mapping[str, Adapter] = field(default_factory=dict)
    rests: Mapping[str, Adapter] = field(default_factory=dict)
    momentum: Adapter = field(default_factory=Adapter)
    ranks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    rounds: int = 0

    def delta(self) -> Adapter:
        """trunk + shared as one adapter (stacked, exact)."""
        return stack_adapters([self.trunk, self.shared])

    def slots(self, world: World, client: str) -> dict[str, Slot]:
        """module -> the client's slot with the rank that it has now. A scaling stays as it was planned."""
        ranks = self.ranks.get(client, {})
        return {
            module: replace(slot, rank=ranks.get(module, slot.rank)) for module, slot in world.slots[client].items()
        }

    def as_read_back(self) -> GlobalState:
        """The same values, laid out in memory as they will be read from a checkpoint.

        Sums over another layout round differently: without this a resumed run would end with another digest.
        """

        def laid_out(adapter: Adapter) -> Adapter:
            return adapter.map(lambda _, factors: factors.contiguous())

        return replace(
            self,
            shared=laid_out(self.shared),
            trunk=laid_out(self.trunk),
            clients={client: laid_out(adapter) for client, adapter in self.clients.items()},
            rests={client: laid_out(adapter) for client, adapter in self.rests.items()},
            momentum=laid_out(self.momentum),
            extras={name: tensor.contiguous() for name, tensor in self.extras.items()},
        )

    def next(self, **changes: Any) -> GlobalState:
        """The state after one more round."""
        return replace(self, rounds=self.rounds + 1, **changes)


@dataclass(frozen=True)
class Mixing:
    """How a client's own branch and the frozen one of the rest of the world are weighed in each module.

    kind: "learned": p(x) for every token, and 1 - p(x), by the client's mixer G (2, in), as of `training.mixed`;
        "static": share and 1 - share; "sum": both whole.
    share: of the own branch where it is static, and of a learned mixture whose mixer is zero.
    trains_rest: whether the client also trains its copy of the rest.
    rate: learning rate of the mixers as a multiple of the factors'.
    whole: whether the own branch is divided by `share`, so that it counts whole while the mixer is zero.
    """

    kind: Literal["learned", "static", "sum"] = "learned"
    share: float = 0.5
    trains_rest: bool = False
    rate: float = 1.0
    whole: bool = False

    @property
    def own_factor(self) -> float:
        """What the own branch is multiplied by beside its share, where there are two."""
        return 1 / self.share if self.whole and self.kind != "sum" else 1.0


@dataclass(frozen=True)
class Borrowing:
    """How a client, and only it, makes its rest of the world of what all clients of a round sent together (their mean).

    round: whose clients are in the mean.  combine: as of `rest_of_world`.  weights: module -> the weight of all in it.
    owners: module -> the weight of those who own each rank index, for factors.
    ranks: module -> the rank that the client's rest has.
    """

    round: int
    combine: Literal["exact", "factors"]
    weights: Mapping[str, float]
    ranks: Mapping[str, int]
    owners: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Choosing:
    """That a client, and only it, chooses how much of the rest of the world counts, by its losses.

    rows: at least so many of those that it is about to train on are measured.  decay: what the losses of a round count
        in the next one.
    """

    rows: int
    decay: float


@dataclass(frozen=True)
class Lending:
    """What the rest of the world of every client is made of.

    weights: client -> what its adapter counts; one that is not named lends to nobody.
    among: client -> those whom it borrows from; None: everybody from all others.
    """

    weights: Mapping[str, float]
    among: Mapping[str, Collection[str]] | None = None


@dataclass(frozen=True)
class Start:
    """What one client begins a round from: its model is W0 + trunk + matrices + trainable, or where `mixing` is given
    W0 + trunk + matrices + p(x) trainable + (1 - p(x)) rest, module by module where both are; one alone counts whole.

    matrices: module -> its trunk written out (out, in), where that is smaller than factors.
    rest: of the rest of the world, frozen.  borrowing: the rest is still the mean of all, of which the client takes
        itself out; None: it is out.  mixers: module -> G (2, in), the client's own; one that is missing is zero.
    choosing: the client chooses what of the rest counts; None: all of it, as the mixing says.
    borrows: what it chose, 1 for the rest's whole delta; the rest is scaled so already. None: nothing was chosen.
    """

    trainable: Adapter
    trunk: Adapter = field(default_factory=Adapter)
    matrices: Mapping[str, Tensor] = field(default_factory=dict)
    rest: Adapter = field(default_factory=Adapter)
    mixers: Mapping[str, Tensor] = field(default_factory=dict)
    mixing: Mixing | None = None
    borrowing: Borrowing | None = None
    choosing: Choosing | None = None
    borrows: float | None = None

    def digest(self) -> str:
        """Of the model: of its delta, or where branches are mixed of each of them and of the mixers."""
        if self.mixing is None:
            return self.delta().digest()
        mixers = hashlib.sha256(repr(self.mixing).encode())
        for module, mixer in sorted(self.mixers.items()):
            mixers.update(f"{module}|{tuple(mixer.shape)}|".encode() + mixer.float().numpy().tobytes())
        parts = (self.trunk, self.trainable, self.rest)
        digests = [*(part.digest() for part in parts), mixers.hexdigest()]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def delta(self, shares: Mapping[str, float] | None = None) -> Adapter:
        """The model as one adapter. shares: module -> constant share of the own branch where there are two; left out:
        that of the mixing, which is exact for learned ones while the mixers are zero."""
        identities = Identities()
        written_out = Adapter({module: identities.factors(matrix) for module, matrix in self.matrices.items()})
        return stack_adapters([self.trunk, written_out, *self._mixed(shares or {})])

    def _mixed(self, shares: Mapping[str, float]) -> tuple[Adapter, ...]:
        if self.mixing is None or not self.rest:
            return (self.trainable,)
        usual, factor, summed = self.mixing.share, self.mixing.own_factor, self.mixing.kind == "sum"

        def weighed(adapter: Adapter, other: Adapter, own: bool) -> Adapter:
            def part(module: str, factors: Factors) -> Factors:
                share = shares.get(module, usual)
                weight = share * factor if own else 1 - share
                return factors if summed or module not in other else factors.scaled(weight)

            return adapter.map(part)

        return weighed(self.trainable, self.rest, True), weighed(self.rest, self.trainable, False)


@dataclass(frozen=True)
class ClientFacts:
    """What `lift` may know besides the adapter: who sent it, and what that client started from."""

    world: World
    client: str
    round: int
    start: Start

    def start_of(self, module: str) -> Factors:
        """The factors that the client began from. Raises: AggregationError if it was sent none of this module."""
        if module not in self.start.trainable:
            raise AggregationError(
                "the client sent a module that it was not given to train",
                where=f"client {self.client!r}, module {module!r}",
                expected=f"one of {sorted(self.start.trainable)}",
            )
        return self.start.trainable[module]


@dataclass(frozen=True)
class RoundFacts:
    """What `finish` may know besides the sum."""

    world: World
    round: int
    participants: tuple[str, ...]
