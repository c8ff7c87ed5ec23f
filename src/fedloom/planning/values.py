"""What costs are computed from: the model, the machine, the work of a round, and a choice. No formulas."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fedloom.errors import PlanError
from fedloom.planning.checks import distinct, nonnegative, one_of, positive, whole

BITS = (32, 16, 8, 4)


@dataclass(frozen=True)
class Module:
    """A linear layer that can carry factors. block: where it is, from 0; `blocks` for behind all."""

    name: str
    inputs: int
    outputs: int
    block: int

    def __post_init__(self) -> None:
        whole(self, "inputs", "outputs")
        whole(self, "block", least=0)

    @property
    def width(self) -> int:
        """Numbers in factors of rank 1: inputs + outputs."""
        return self.inputs + self.outputs

    @property
    def full_rank(self) -> int:
        return min(self.inputs, self.outputs)


@dataclass(frozen=True)
class Architecture:
    """The base model, as far as costs need it.

    vocabulary: width of the output (classes, for a classifier).  parameters: of the whole base.
    linear_parameters, linear_rows: weights of the layers that a quantised base holds in few bits, and the sum of their
        outputs (int8 has one scale for each row of a weight).
    """

    modules: tuple[Module, ...]
    hidden: int
    blocks: int
    heads: int
    vocabulary: int
    parameters: int
    linear_parameters: int
    linear_rows: int

    def __post_init__(self) -> None:
        whole(self, "hidden", "blocks", "heads", "vocabulary", "parameters")
        whole(self, "linear_parameters", "linear_rows", least=0)
        distinct(self, "modules", [module.name for module in self.modules])
        outside = next((module for module in self.modules if module.block > self.blocks), None)
        if outside is not None:
            where, expected = f"module {outside.name!r}", f"0 to {self.blocks}"
            raise PlanError("the block is not in the model", where=where, expected=expected, found=outside.block)
        if self.linear_parameters > self.parameters:
            expected, found = f"at most {self.parameters}", self.linear_parameters
            raise PlanError("more linear weights than parameters", where="architecture", expected=expected, found=found)


@dataclass(frozen=True)
class Memory:
    """Coefficients of peak memory; `calibrated` fits them to measurements. See `cost` for where each one stands.

    runtime_bytes: the process, its libraries and work space, whatever is trained.
    quantized_bytes: more of it where the base is quantised.
    block_values: numbers kept for the backward pass for each token and hidden unit of a block, without factors.
    quantized_values: more of them where the base is quantised, whose layers do not add the factors' part in place.
    score_values: numbers kept for each attention score; 0 where attention is computed in pieces and none is kept.
    logit_bytes: for each label and class: the logits, their gradient, and float32 work space for a few rows of them.
    input_values: numbers kept for each token and input of a module with factors (1: its input, for the gradient of a).
    rank_values: numbers kept for each token and rank (1: a x, for the gradient of b).
    """

    runtime_bytes: float = 0.0
    block_values: float = 16.0
    score_values: float = 0.0
    logit_bytes: float = 8.0
    input_values: float = 1.0
    rank_values: float = 1.0
    quantized_bytes: float = 0.0
    quantized_values: float = 0.0

    def __post_init__(self) -> None:
        nonnegative(self, *(field.name for field in fields(self)))


@dataclass(frozen=True)
class Speed:
    """Seconds for one token through the whole base at some bits: forward, and backward through all blocks.

    weights_seconds: to go through all weights once, whatever the tokens: to read them, and to unpack quantised ones.
    """

    bits: int
    forward_seconds: float
    backward_seconds: float
    weights_seconds: float = 0.0

    def __post_init__(self) -> None:
        one_of(self, "bits", BITS)
        nonnegative(self, "forward_seconds", "backward_seconds", "weights_seconds")


@dataclass(frozen=True)
class Machine:
    """What a client computes and sends with.

    speeds: of each number of bits it can hold the base in.  compute_bytes: of a number in the activations of a
        quantised base (2: bfloat16, 4: float32); else they are as wide as the base.
    batch_seconds: overhead of a forward and backward pass.  module_seconds: overhead of a pass for each module with
        factors.  product_seconds: for each token and number in the factors, forward and backward.
    label_seconds: for each label, through the output layer and the loss, forward and backward.
    few_seconds: what each of the first tokens of a pass (`cost.FEW`) takes more, and goes again for the backward pass.
    attention_seconds: for each pair of tokens of an example, forward and again backward.
    optimizer_seconds: for each number in the factors, once an optimizer step.  round_seconds: overhead of a round.
    upload_bandwidth, download_bandwidth: bytes per second; inf for none to count.
    memory_factor: peak memory that was measured in a run over what `memory` says of it; 1 as long as none was.
    """

    memory_bytes: float
    speeds: tuple[Speed, ...]
    compute_bytes: int = 4
    batch_seconds: float = 0.0
    module_seconds: float = 0.0
    product_seconds: float = 0.0
    label_seconds: float = 0.0
    few_seconds: float = 0.0
    attention_seconds: float = 0.0
    optimizer_seconds: float = 0.0
    round_seconds: float = 0.0
    upload_bandwidth: float = float("inf")
    download_bandwidth: float = float("inf")
    memory: Memory = Memory()
    memory_factor: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "memory_bytes", "upload_bandwidth", "download_bandwidth", infinite=True)
        positive(self, "memory_factor")
        nonnegative(self, "batch_seconds", "module_seconds", "product_seconds", "label_seconds")
        nonnegative(self, "optimizer_seconds", "round_seconds", "few_seconds", "attention_seconds")
        one_of(self, "compute_bytes", (2, 4))
        distinct(self, "speeds", [speed.bits for speed in self.speeds])

    def speed(self, bits: int) -> Speed:
        """Raises: PlanError for bits that were not measured."""
        found = next((speed for speed in self.speeds if speed.bits == bits), None)
        if found is None:
            known = ", ".join(str(speed.bits) for speed in self.speeds)
            raise PlanError("no speed was measured at these bits", where="machine", expected=known, found=bits)
        return found

    def number_bytes(self, bits: int) -> int:
        """Width of an activation, and of a weight that is not quantised, in bytes."""
        return {32: 4, 16: 2}.get(bits, self.compute_bytes)


@dataclass(frozen=True)
class Work:
    """What a client does in a round, whatever is chosen for it.

    steps: optimizer steps.  examples: of one step.  tokens, labels: of one example, padding included.
    up_bytes, down_bytes: of one number of the factors on the wire.  fixed_up_bytes, fixed_down_bytes: of the messages
        without any factors (head, metrics, pieces of the trunk).
    borrows: whether a frozen branch of the others stands beside each module's own factors, of the same rank, and a
        mixer weighs the two (`fedalt`).
    """

    steps: int
    examples: int
    tokens: int
    labels: int
    up_bytes: float = 4.0
    down_bytes: float = 4.0
    fixed_up_bytes: float = 0.0
    fixed_down_bytes: float = 0.0
    borrows: bool = False

    def __post_init__(self) -> None:
        whole(self, "steps", "examples", "tokens", "labels")
        nonnegative(self, "up_bytes", "down_bytes", "fixed_up_bytes", "fixed_down_bytes")


@dataclass(frozen=True)
class Setting:
    """What is chosen once for a whole client: bits of the base, examples in a pass, passes of a step.

    first: the lowest block that carries factors; the backward pass ends there.
    """

    bits: int
    batch: int
    accumulation: int
    first: int

    def __post_init__(self) -> None:
        one_of(self, "bits", BITS)
        whole(self, "batch", "accumulation")
        whole(self, "first", least=0)


@dataclass(frozen=True)
class Choice:
    """What one client trains, and how. ranks: (module, rank) in the order of the architecture."""

    ranks: tuple[tuple[str, int], ...]
    bits: int
    batch: int
    accumulation: int

    def __post_init__(self) -> None:
        one_of(self, "bits", BITS)
        whole(self, "batch", "accumulation")
        distinct(self, "ranks", [name for name, _ in self.ranks])
        wrong = next((name for name, rank in self.ranks if type(rank) is not int or rank < 1), None)
        if wrong is not None:
            rank = dict(self.ranks)[wrong]
            raise PlanError(
                "not a rank", where=f"module {wrong!r}", expected="a whole number of at least 1", found=repr(rank)
            )
