"""What server and client say to each other: values only, so that any transport can carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.packing import EXACT, Coding
from fedloom.aggregation.local_rules import HeadOptimizer, Penalty
from fedloom.aggregation.world import Start
from fedloom.privacy.mechanism import PrivacyPromise
from fedloom.privacy.noise_share import NoiseShare
from fedloom.rounds.piece import Piece

WORK_UNITS = ("tokens", "images")  # what the work of a client is counted in: metrics `tokens`, `tokens_per_second`, ..


@dataclass(frozen=True)
class LocalWork:
    """The work of one client in one round.

    first_step: optimizer steps of the run before this round, for the schedule.  total_steps: of the whole run.
    batch_size in rows; max_tokens per row; rates are peaks; warmup is a share of total_steps.
    penalties: added to the loss.  prune: share of a rank that stays if its tail shrank; None: ranks stay.
    privacy: what the client is to hold by noise of its own; None: no noise.
    importance: also measure which modules matter. The scores have this sum: what its modules are known to matter
        together. None: not measured.
    head_optimizer: what moves a classifier's head.
    """

    steps: int
    first_step: int
    total_steps: int
    batch_size: int
    accumulation: int
    learning_rate: float
    head_learning_rate: float
    schedule: Literal["constant", "linear", "cosine"]
    warmup: float
    weight_decay: float
    max_grad_norm: float
    max_tokens: int
    dropout: float
    penalties: tuple[Penalty, ...] = ()
    prune: float | None = None
    privacy: PrivacyPromise | None = None
    importance: float | None = None
    head_optimizer: HeadOptimizer = "adamw"

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step; their expected number where they are sampled."""
        return self.batch_size * self.accumulation

    def table(self) -> dict[str, Any]:
        """As it travels and is digested: without what is not asked for, and was not there in earlier versions."""
        later = {"importance": None, "head_optimizer": "adamw"}
        return {key: value for key, value in asdict(self).items() if key not in later or value != later[key]}


@dataclass(frozen=True)
class Wire:
    """How numbers are written on their way to the client (down) and back (up).

    residual: most directions that a client keeps of what rounding left unsent, as a multiple of its rank.
    """

    up: Coding = EXACT
    down: Coding = EXACT
    residual: float = 4.0

    @property
    def is_exact(self) -> bool:
        """Whether everything arrives bit for bit. If not, what comes back is the change, and not the sum with a start
        that the client has rounded."""
        return self.up.is_exact and self.down.is_exact


@dataclass(frozen=True)
class Masking:
    """What a client must know to add its numbers to a secure sum instead of sending them.

    round_id: hexadecimal, of this sum alone.  clients: who may take part, in sorted order.  threshold: so many must
        stay until its end.
    method, settings, seed, modules, slots: the world that the method's lift sees; modules: those that one of `clients`
        trains, in sorted order, and their (out, in); slots are (rank, scaling) of each client there, rank 0 where it
        trains none.
    sketch_width: most columns of a sketch; None: as many as the clients' ranks add up to.
    weighting: by examples, or all alike.  largest_weight, max_update_norm: the bounds that fixed point is chosen by.
    noise: what each client clips to, and its share of the sum's noise; None: the sum is exact.
    """

    round_id: str
    clients: tuple[str, ...]
    threshold: int
    method: str
    settings: Mapping[str, Any]
    seed: int
    modules: Mapping[str, tuple[int, int]]
    slots: Mapping[str, tuple[tuple[int, float], ...]]
    weighting: Literal["examples", "uniform"]
    largest_weight: float
    max_update_norm: float
    sketch_width: int | None = None
    noise: NoiseShare | None = None

    def table(self) -> dict[str, Any]:
        """As it travels: without what is not asked for, and was not there in earlier versions."""
        table = asdict(self)
        if self.noise is None:
            del table["noise"]
        elif not self.noise.counting:
            del table["noise"]["counting"]
        return table


@dataclass(frozen=True)
class Assignment:
    """What the server asks of one client in one round.

    kind: "train" sends back an adapter; "evaluate" only metrics of the start on held-out rows.
    trains: module -> sides that may change ("a", "b" or "ab"); the others come back untouched and do not travel.
    keeps: module -> sides that the client has for itself: it trains them and never sends them.
    kept_round: the last committed round that this client's contribution counted in, from which it takes those sides;
        0: from the start, as it has none yet. Later they are not sent out either, so that they are NaN in what arrives.
    resumes: whether the client begins from all that it trained last, though it sends that too, and goes on with its
        optimizer where it was; what it has of both, and its mixers, does not travel.
    choice: how much it borrows and by which losses it chose that, as it is put away; at the client alone.
    memory: the state of the client's optimizer, by `optimizer_state`'s names; at the client alone.
    constant: module -> sides that nobody ever trains, where they are sent once: a client that has a kept_round has them
        as it has what it keeps.  constant_digest: of those sides.
    wire: how numbers travel.
    identity: digest of all that decides the answer, filled in by a client that trains with noise; does not travel.
    masking: what is trained is added to a secure sum; None: it is sent as it is.
    head: the trainables that are not LoRA, by name; empty for generation.
    generate_rows: held-out rows to answer (evaluate), 0 for the loss alone.
    seed: of the client's draws in this round.
    pieces: the global delta as a sum; the trunk is that sum less the trainable start, formed at the client
        (`trunk.formed`). Empty where the trunk travels in the start.  has: digests of the pieces that the client said
        it has, which do not travel.  blobs: digest -> bytes; at the server of all pieces, read when asked for.
    """

    kind: Literal["train", "evaluate"]
    round: int
    client: str
    start: Start
    trains: Mapping[str, str]
    head: Mapping[str, Tensor]
    seed: int
    work: LocalWork | None = None
    generate_rows: int = 0
    keeps: Mapping[str, str] = field(default_factory=dict)
    kept_round: int = 0
    resumes: bool = False
    memory: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    choice: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    constant: Mapping[str, str] = field(default_factory=dict)
    constant_digest: str = ""
    wire: Wire = field(default_factory=Wire)
    identity: str = ""
    pieces: tuple[Piece, ...] = ()
    has: frozenset[str] = frozenset()
    blobs: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    masking: Masking | None = None

    @property
    def sends(self) -> dict[str, str]:
        """module -> the sides that come back: trained, and not kept."""
        return {
            module: "".join(side for side in sides if side not in self.keeps.get(module, ""))
            for module, sides in self.trains.items()
        }

    @property
    def trained_modules(self) -> tuple[str, ...]:
        """The modules of which something trains, in sorted order."""
        return tuple(sorted(module for module, sides in self.trains.items() if sides))

    @property
    def is_personal(self) -> bool:
        """Whether the client has something for itself."""
        return any(self.keeps.values())

    @property
    def held(self) -> dict[str, str]:
        """module -> the sides that the client has once it contributed: what it keeps, and what is constant; or all."""
        everything = "ab" if self.resumes else ""
        there = {
            module: everything + self.keeps.get(module, "") + self.constant.get(module, "")
            for module in self.start.trainable
        }
        return {module: "".join(side for side in "ab" if side in sides) for module, sides in there.items()}

    @property
    def needs_store(self) -> bool:
        """Whether the client has something to put away, or to go on from."""
        remembers = any(self.constant.values()) or not self.wire.up.is_exact or self.promise is not None
        return self.is_personal or self.resumes or (self.kind == "train" and remembers)

    @property
    def promise(self) -> PrivacyPromise | None:
        """What the client is to hold by noise; None for none."""
        return None if self.work is None else self.work.privacy

    @property
    def is_private(self) -> bool:
        """Whether the client adds noise, and so has a ledger: to its steps, or its share to a secure sum."""
        return self.promise is not None or (self.masking is not None and self.masking.noise is not None)

    def without_trunk(self) -> Assignment:
        """What is needed to judge an answer: the trunk, which may be large, does not change. Pieces stay named."""
        start = Start(self.start.trainable, mixers=self.start.mixers, mixing=self.start.mixing)
        return replace(self, start=start)


@dataclass(frozen=True)
class Contribution:
    """What a client sends back: its adapter and head (empty after "evaluate"), the number of examples, metrics.

    metrics: numbers by name; a name ends in its unit where it has one (seconds, tokens, bytes).
    holds: as of `holding`, of the pieces that the client has on its disk now; empty for none.
    importance: module -> score of what it trained, where that was asked for (`LocalWork.importance`) and there was
        something to measure; else empty.
    ledger: of a client that adds noise, the digest of the last line of its privacy ledger before the line of this very
        release: by it an auditor notices lines that were cut. Empty for none.
    advertisement: hexadecimal, of a client that goes on to add adapter, head, examples and importance to a secure sum;
        they are not here then.
    """

    round: int
    client: str
    examples: int
    metrics: Mapping[str, float]
    adapter: Adapter = field(default_factory=Adapter)
    head: Mapping[str, Tensor] = field(default_factory=dict)
    holds: str = ""
    advertisement: str = ""
    importance: Mapping[str, float] = field(default_factory=dict)
    ledger: str = ""


@dataclass(frozen=True)
class StepDone:
    """One optimizer step, for those who watch. step counts from 1; loss is the mean over the step's labels.

    per_second: tokens or images, as the unit says, of the client in this round so far.
    """

    client: str
    round: int
    step: int
    steps: int
    loss: float
    per_second: float
    unit: str


@dataclass(frozen=True)
class Dropout:
    """A client that did not answer in this round, and why. asked_again: why it was asked twice, if it was.
    stage: of the evaluation that it was asked for; empty: it was to train."""

    round: int
    client: str
    reason: str
    asked_again: str = ""
    stage: str = ""

    @property
    def of_measuring(self) -> dict[str, str]:
        """For the journal: the stage of an evaluation that was missed. Who missed one may still train, or has."""
        return {"stage": self.stage} if self.stage else {}


@dataclass(frozen=True)
class Late(Dropout):
    """A client that nobody waited for any longer: it was asked beyond those that were wanted, or the time was over.

    underway: whether its answer is still taken when it comes (`Engine.overdue`).
    """

    underway: bool = False
