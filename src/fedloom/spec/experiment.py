"""What a user asks for: one frozen value per table of the configuration file.

Every field states its unit; `fedloom init` writes the descriptions below as comments, so they are typed once.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedloom.adapters.packing import BLOCK, MAX_BLOCK, Format
from fedloom.aggregation.local_rules import HeadOptimizer
from fedloom.aggregation.server_rule import NONE, ServerOptimizer
from fedloom.spec.client_table import Bits, ClientTable, Name, known
from fedloom.spec.data_table import ColumnsTable as ColumnsTable
from fedloom.spec.data_table import DataTable
from fedloom.spec.data_table import PartitionTable as PartitionTable
from fedloom.spec.gate_table import GateTable
from fedloom.spec.planning_table import PlanningTable
from fedloom.spec.privacy_table import PrivacyTable
from fedloom.spec.robust_table import RobustTable
from fedloom.spec.rounds_table import RoundsTable as RoundsTable
from fedloom.spec.secure_table import SecureAggregationTable
from fedloom.spec.table import Table
from fedloom.spec.tracking_table import TrackingTable

Task = Literal["generation", "classification", "image-classification"]


class ModelTable(Table):
    """The base model that every client starts from."""

    id: str = Field(
        "smollm2-135m-instruct",
        description="Hugging Face id, local path, or an embedded one: smollm2-135m-instruct, minilm-l6",
    )
    task: Task = Field(
        "generation",
        description="generation (causal language model), classification (of texts) or image-classification",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the frozen base; auto: bfloat16 where the processor multiplies it in hardware"
    )
    bits: Bits = Field(
        "none",
        description="of the linear layers of the frozen base: 8 (int8) or 4 (NF4), by bitsandbytes; none: as they are. "
        "Slower on a CPU; for clients that lack the memory",
    )
    labels: tuple[str, ...] | None = Field(
        None,
        examples=[("negative", "positive")],
        description="classification of texts or images: all class names, in order; left out: collected from the "
        "clients",
    )

    @property
    def classifies(self) -> bool:
        """Whether rows have a class, and the model a head that tells it."""
        return self.task != "generation"


class LoraTable(Table):
    """Which layers carry factors, and how strongly their product counts."""

    targets: Literal["auto"] | tuple[str, ...] = Field(
        "auto", description="names (or dotted suffixes) of linear layers, or auto: the usual ones of the architecture"
    )
    scaling: float = Field(
        2.0, gt=0, description="factor of b @ a; alpha is scaling x rank, so it is one for all ranks"
    )
    alpha: float | None = Field(
        None,
        examples=[16.0],
        gt=0,
        description="instead of scaling: a fixed alpha, so that scaling is alpha / rank of each client",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of a layer's inputs hidden from the factors in training")


class MethodTable(BaseModel):
    """The method's name and its own settings (`fedloom methods` lists them)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field("loom", description="one of those that fedloom methods lists")

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TrainingTable(Table):
    """The work of a client in one round."""

    rounds: int = Field(3, ge=1, description="exchanges between server and clients")
    first_round: int | None = Field(
        None,
        examples=[4],
        ge=2,
        description="of a run that fedloom continue begins: the number of its first round, where the schedule begins; "
        "written by that command, and refused in a run that begins from nothing",
    )
    local_steps: int = Field(10, ge=1, description="optimizer steps of a client in a round")
    batch_size: int = Field(8, ge=1, description="rows in a batch")
    accumulation: int = Field(1, ge=1, description="batches per optimizer step")
    learning_rate: float = Field(1e-3, gt=0, description="peak rate of AdamW for the factors")
    head_learning_rate: float = Field(
        1e-1, gt=0, description="classification of texts or images: peak rate for the head"
    )
    head_optimizer: Literal["auto", "adamw", "layerwise"] = Field(
        "auto",
        description="of a classifier's head: adamw has a step size for every weight; layerwise one for a whole tensor, "
        "so that rows of classes that a client does not have hardly move; auto: layerwise for loom, adamw for others",
    )
    schedule: Literal["constant", "linear", "cosine"] = Field("cosine", description="of the rate, over the whole run")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of all steps in which the rate rises from zero")
    proximal: float = Field(
        0.0, ge=0, description="FedProx: weight of half the squared distance of a client's delta from its start"
    )
    weight_decay: float = Field(0.0, ge=0, description="of AdamW, on the factors")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients of larger norm are scaled down to it")
    max_tokens: int = Field(512, ge=8, description="of texts: longer examples are cut to this many tokens")
    patience: int | None = Field(
        None,
        examples=[2],
        ge=1,
        description="stop after this many rounds without a better held-out loss; left out: never",
    )
    importance: bool = Field(
        False, description="also measure which layers matter, for the planner; not together with [privacy]"
    )

    def head_optimizer_value(self, own: HeadOptimizer) -> HeadOptimizer:
        """own: what goes with the method."""
        return own if self.head_optimizer == "auto" else self.head_optimizer


class ServerTable(Table):
    """What the server makes of the change of a round, whatever the method."""

    optimizer: Literal["auto", "none", "momentum", "adam"] = Field(
        "auto",
        description="none takes the change as it is; on the delta, or on the factors of averaging methods; auto: what "
        "goes with the method, which is momentum for loom (by how many clients a round has) and none for the others",
    )
    learning_rate: float | None = Field(
        None, examples=[0.5], gt=0, description="of the optimizer; left out: 1 for momentum, 0.01 for adam"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="how much of the earlier changes stays, per round")
    beta2: float = Field(0.99, ge=0, lt=1, description="adam: how much of the earlier squares stays, per round")
    epsilon: float = Field(1e-3, gt=0, description="adam: added to the root of the mean square")

    def optimizer_value(self, own: ServerOptimizer = NONE) -> ServerOptimizer:
        """The optimizer with its learning rate filled in. own: what goes with the method."""
        if self.optimizer == "auto":
            return own
        usual = 0.01 if self.optimizer == "adam" else 1.0
        return ServerOptimizer(self.optimizer, self.learning_rate or usual, self.beta1, self.beta2, self.epsilon)


class WireTable(Table):
    """How numbers travel between server and clients."""

    up: Format = Field(
        "float32",
        description="what clients send: float32, bfloat16, int8 or int4; what rounding left unsent stays with the "
        "client and is sent with its next change",
    )
    down: Format = Field(
        "float32", description="what clients are sent: float32, bfloat16, int8 or int4, in training and in evaluation"
    )
    block: int = Field(BLOCK, ge=1, le=MAX_BLOCK, description="int8, int4: how many numbers share a scale of 16 bits")
    residual: float = Field(
        4.0,
        gt=0,
        description="most directions that a client keeps of what rounding left unsent, as a multiple of its rank",
    )


class EvaluationTable(Table):
    """What is measured on the rows held out."""

    max_rows: int = Field(200, ge=1, description="held-out rows per client used for the loss, drawn at random")
    generate_rows: int = Field(
        16, ge=0, description="generation: held-out rows per client answered at the end, for ROUGE"
    )
    max_new_tokens: int = Field(48, ge=1, description="generation: length limit of an answer in tokens")
    every: int = Field(
        1,
        ge=1,
        description="rounds between two measurements of the held-out rows; the base and the last round are always",
    )
    baselines: bool = Field(False, description="also train each client alone, with the same steps, for comparison")
    question: str | None = Field(
        None,
        examples=["What does `shutil.copytree` do?"],
        description="generation: asked of the base and of the tuned model at the end",
    )


class Experiment(Table):
    """A whole run, as resolved from a configuration file."""

    name: Name = Field("pilot", description="of the run; its directory is runs/<name>")
    seed: int = Field(7, ge=0, description="of every random choice")
    model: ModelTable = ModelTable()
    lora: LoraTable = LoraTable()
    method: MethodTable = MethodTable()
    training: TrainingTable = TrainingTable()
    rounds: RoundsTable = RoundsTable()
    server: ServerTable = ServerTable()
    wire: WireTable = WireTable()
    privacy: PrivacyTable = PrivacyTable()
    secure_aggregation: SecureAggregationTable = SecureAggregationTable()
    gate: GateTable = GateTable()
    robust: RobustTable = RobustTable()
    data: DataTable = DataTable()
    planning: PlanningTable = PlanningTable()
    evaluation: EvaluationTable = EvaluationTable()
    tracking: TrackingTable = TrackingTable()
    clients: tuple[ClientTable, ...] = Field(min_length=1)

    @property
    def active(self) -> tuple[ClientTable, ...]:
        """The clients that may take part, in the order of the file."""
        only = self.rounds.clients
        return tuple(client for client in self.clients if only is None or client.name in only)

    @property
    def first_round(self) -> int:
        """The number of the run's first round: 1, unless it continues another."""
        return self.training.first_round or 1

    def present(self, round: int) -> tuple[ClientTable, ...]:
        """Those of the active clients that may take part in a round, in the order of the file."""
        return tuple(client for client in self.active if client.is_there(round))

    @property
    def expected(self) -> tuple[ClientTable, ...]:
        """Those of the active clients that may take part in any round of this run."""
        rounds = range(self.first_round, self.training.rounds + 1)
        return tuple(client for client in self.active if any(map(client.is_there, rounds)))

    def bits_of(self, name: str) -> Bits:
        """Of the base at one client. Raises: KeyError for a name that is not there; ConfigError as `known_rank`."""
        return known(name, "bits", self.client(name).bits or self.model.bits)

    @property
    def is_planned(self) -> bool:
        """Whether nothing of the clients that may take part is left to the planner."""
        return all(client.is_planned for client in self.active)

    def require_planned(self) -> None:
        """Raises: ConfigError naming a client that may take part and of which something is left to the planner."""
        for client in self.active:
            _ = client.known_rank, self.bits_of(client.name), self.batch_of(client.name)

    def batch_of(self, name: str) -> tuple[int, int]:
        """(rows in a batch, batches of an optimizer step) at one client: together always the rows of [training].

        Raises: as `bits_of`.
        """
        rows = self.training.batch_size * self.training.accumulation
        size = known(name, "batch_size", self.client(name).batch_size or self.training.batch_size)
        return size, rows // size

    def client(self, name: str) -> ClientTable:
        """The table of one client. Raises: KeyError for a name that is not there."""
        return {client.name: client for client in self.clients}[name]
