"""What a choice costs: peak memory, seconds and bytes of a round. Pure arithmetic; every cost is linear in the modules.

Symbols: modules m in S with rank r_m, inputs i_m, outputs o_m; width w_m = i_m + o_m; P = sum of r_m w_m, the numbers
in the factors; b examples in a pass, of t tokens and l labels; T = b t tokens; c passes (accumulation) of an optimizer
step; q bits of the base; e bytes of an activation at q bits; L blocks, of which the backward pass goes through
D = L - first, with first the lowest block in S; H hidden units, h heads, V vocabulary.

Peak memory, in bytes (coefficients in words: `values.Memory`):

    base(q)                              weights, below
  + runtime (+ quantized)                process and libraries
  + T D H e block_values (+ quantized)   activations that wait for the backward pass
  + b t^2 h D e score_values             attention scores, where they are kept
  + b l V logit_bytes                    logits and their gradient, at positions with a label
  + sum over S of   T i_m e input_values         a module's input
                  + T r_m e rank_values          what comes out of a
                  + r_m w_m 20                   factors, gradients, two moments of Adam, and the assignment's copy

Where a branch of the others is borrowed (`Work.borrows`), of the ranks of the client's own, there is besides

  + sum over S of   T r_m e rank_values          what comes out of its a
                  + r_m w_m 8                    it in float32, as it was assigned and in the layer
                  + 2 i_m 20                     the mixer, trained as the factors are

and it takes 2/3 of the product_seconds of a branch that trains: of the six products (two forward; four backward, two of
them for gradients of a and b), four are left. A rest of the world that covers more modules than the client trains, as
where clients train unequal ones, is not counted.

All of this times `Machine.memory_factor`, which is 1 until a run measured more than that.

(+ quantized): where q is 8 or 4. The 20 bytes are float32: while activations are at their peak there is no gradient
yet, but a copy of the factors in e bytes instead.

base(q) = N e at 32 and 16 bits. At 8 and 4 bits the N_lin weights of linear layers are quantised, the other
N - N_lin (embeddings, norms) have e bytes: 8 bits: N_lin + 4 bytes for each row of a weight (LLM.int8, Dettmers et al.,
2022); 4 bits: N_lin (4 + 8/64 + 32/(64 256)) / 8: NF4 with a scale of 8 bits for 64 weights and one of 32 bits for 256
scales (double quantization, QLoRA, Dettmers et al., 2023, section 3).

Seconds of a round:

    round_seconds + steps c (batch_seconds + T (forward(q) + backward(q) D / L) + b l label_seconds
                             + (weights(q) + min(T, FEW) few_seconds + b t^2 attention_seconds) (1 + D / L))
  + sum over S of   steps c (module_seconds + T r_m w_m product_seconds) + steps r_m w_m optimizer_seconds
  + up / upload_bandwidth + down / download_bandwidth

Bytes: up = fixed_up + P up_bytes, down = fixed_down + P down_bytes.

FEW: a pass of few tokens does not fill the cores, so that each of the first tokens takes longer than the later ones.

The forms of the terms follow from what the training loop keeps and computes; they are ours, no paper's. Not counted:
more memory for the trunk than for the base that holds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from fedloom.errors import PlanError
from fedloom.planning.values import Architecture, Choice, Machine, Module, Setting, Work

TRAINED_BYTES = 20  # a number of the factors in float32, its gradient, two moments of Adam, and as it was assigned
BORROWED_BYTES = 8  # a number of a frozen branch: as it was assigned, and in the layer
MIXED = 2  # numbers of a mixer for each input of its module
BORROWED_PRODUCTS = 2 / 3  # of those that a branch takes that is trained
FEW = 256  # tokens of a pass; see above
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
INT8_SCALE_BYTES = 4
LIMITS = ("memory", "seconds", "up", "down")


@dataclass(frozen=True)
class Amounts:
    """What costs are linear in: how many modules, and the sums of their inputs i_m, ranks r_m and numbers r_m w_m."""

    modules: int
    inputs: int
    ranks: int
    numbers: int


def amounts(ranked: Iterable[tuple[Module, int]]) -> Amounts:
    chosen = list(ranked)
    return Amounts(
        len(chosen),
        sum(module.inputs for module, _ in chosen),
        sum(rank for _, rank in chosen),
        sum(rank * module.width for module, rank in chosen),
    )


@dataclass(frozen=True)
class Rates:
    """One cost as a linear function: fixed + sum over modules of
    module + input i_m + rank r_m + number r_m w_m."""

    fixed: float
    module: float = 0.0
    input: float = 0.0
    rank: float = 0.0
    number: float = 0.0

    def of(self, amounts: Amounts) -> float:
        return (
            self.fixed
            + self.module * amounts.modules
            + self.input * amounts.inputs
            + self.rank * amounts.ranks
            + self.number * amounts.numbers
        )

    def times(self, factor: float) -> Rates:
        return Rates(*(factor * getattr(self, one.name) for one in fields(self)))


@dataclass(frozen=True)
class Usage:
    """What a choice costs, in the order of LIMITS."""

    memory_bytes: float
    seconds: float
    up_bytes: float
    down_bytes: float

    @property
    def both_ways(self) -> float:
        """Bytes up and down."""
        return self.up_bytes + self.down_bytes

    def values(self) -> tuple[float, float, float, float]:
        return self.memory_bytes, self.seconds, self.up_bytes, self.down_bytes


def base_bytes(architecture: Architecture, bits: int, number_bytes: int) -> float:
    """Bytes of the frozen weights; see the module's docstring."""
    if bits >= 16:
        return architecture.parameters * bits / 8
    plain = (architecture.parameters - architecture.linear_parameters) * number_bytes
    if bits == 8:
        return plain + architecture.linear_parameters + INT8_SCALE_BYTES * architecture.linear_rows
    return plain + architecture.linear_parameters * NF4_BITS / 8


def memory_rates(architecture: Architecture, machine: Machine, work: Work, setting: Setting) -> Rates:
    """Peak memory in bytes."""
    number, known = machine.number_bytes(setting.bits), machine.memory
    tokens, depth = setting.batch * work.tokens, architecture.blocks - setting.first
    quantised = setting.bits < 16
    runtime = known.runtime_bytes + quantised * known.quantized_bytes
    kept = tokens * depth * architecture.hidden * number * (known.block_values + quantised * known.quantized_values)
    scores = setting.batch * work.tokens**2 * architecture.heads * depth * number * known.score_values
    logits = setting.batch * work.labels * architecture.vocabulary * known.logit_bytes
    rates = Rates(
        fixed=base_bytes(architecture, setting.bits, number) + runtime + kept + scores + logits,
        input=tokens * number * known.input_values + work.borrows * MIXED * TRAINED_BYTES,
        rank=tokens * number * known.rank_values * (1 + work.borrows),
        number=TRAINED_BYTES + work.borrows * BORROWED_BYTES,
    )
    return rates.times(machine.memory_factor)


def seconds_rates(architecture: Architecture, machine: Machine, work: Work, setting: Setting) -> Rates:
    """Seconds of a round, messages included."""
    speed, tokens = machine.speed(setting.bits), setting.batch * work.tokens
    passes, depth = work.steps * setting.accumulation, architecture.blocks - setting.first
    back = depth / architecture.blocks
    base = tokens * (speed.forward_seconds + speed.backward_seconds * back)
    few, pairs = min(tokens, FEW) * machine.few_seconds, tokens * work.tokens * machine.attention_seconds
    both_ways = (speed.weights_seconds + few + pairs) * (1 + back)
    labels = setting.batch * work.labels * machine.label_seconds
    sent = work.fixed_up_bytes / machine.upload_bandwidth + work.fixed_down_bytes / machine.download_bandwidth
    return Rates(
        fixed=machine.round_seconds + passes * (machine.batch_seconds + base + both_ways + labels) + sent,
        module=passes * machine.module_seconds,
        number=passes * tokens * machine.product_seconds * (1 + work.borrows * BORROWED_PRODUCTS)
        + work.steps * machine.optimizer_seconds
        + work.up_bytes / machine.upload_bandwidth
        + work.down_bytes / machine.download_bandwidth,
    )


def all_rates(architecture: Architecture, machine: Machine, work: Work, setting: Setting) -> tuple[Rates, ...]:
    """In the order of LIMITS."""
    return (
        memory_rates(architecture, machine, work, setting),
        seconds_rates(architecture, machine, work, setting),
        Rates(fixed=work.fixed_up_bytes, number=work.up_bytes),
        Rates(fixed=work.fixed_down_bytes, number=work.down_bytes),
    )


def ranked(architecture: Architecture, choice: Choice) -> list[tuple[Module, int]]:
    """The modules of a choice with their ranks. Raises: PlanError for a module that the model does not have."""
    known = {module.name: module for module in architecture.modules}
    unknown = next((name for name, _ in choice.ranks if name not in known), None)
    if unknown is not None:
        raise PlanError("the base model has no such module", where=f"module {unknown!r}")
    return [(known[name], rank) for name, rank in choice.ranks]


def setting_of(architecture: Architecture, choice: Choice) -> Setting:
    first = min(module.block for module, _ in ranked(architecture, choice))
    return Setting(choice.bits, choice.batch, choice.accumulation, first)


def usage(architecture: Architecture, machine: Machine, work: Work, choice: Choice) -> Usage:
    """Peak bytes, seconds of a round and bytes up and down. Raises: PlanError for an unknown module or bits."""
    rates = all_rates(architecture, machine, work, setting_of(architecture, choice))
    return usage_at(rates, amounts(ranked(architecture, choice)))


def usage_at(rates: Iterable[Rates], chosen: Amounts) -> Usage:
    """rates: in the order of LIMITS."""
    memory, seconds, up, down = (rate.of(chosen) for rate in rates)
    return Usage(memory, seconds, up, down)


def step_seconds(architecture: Architecture, machine: Machine, work: Work, choice: Choice) -> float:
    """Seconds of one optimizer step: a round's, without what comes once in a round, over its steps."""
    cost = usage(architecture, machine, work, choice)
    once = machine.round_seconds + cost.up_bytes / machine.upload_bandwidth
    return (cost.seconds - once - cost.down_bytes / machine.download_bandwidth) / work.steps
