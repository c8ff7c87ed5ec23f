"""Tiny base models for the tests of training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Start
from fedloom.data.batches import AnyBatch, Batch, ImageBatch
from fedloom.rng import generator
from fedloom.rounds.messages import Assignment, LocalWork
from fedloom.spec.experiment import Bits, LoraTable, ModelTable
from fedloom.testing import tiny
from fedloom.training.base_model import BaseModel, load_base
from fedloom.training.local import training_mode
from fedloom.training.losses import batch_loss, example_losses_sum
from fedloom.training.per_example import per_example

LABELS = ("alpha", "beta", "gamma")
MAKERS = {
    "llama": tiny.tiny_llama,
    "gpt2": tiny.tiny_gpt2,
    "gemma2": tiny.tiny_gemma2,
    "bert": tiny.tiny_bert,
    "vit": tiny.tiny_vit,
}
TASKS = {"bert": "classification", "vit": "image-classification"}  # the others generate


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """kind -> directory of a tiny model."""
    return {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in MAKERS.items()}


@pytest.fixture
def load(checkpoints):
    def load(kind: str, *, dtype: str = "float32", targets: object = "auto", bits: Bits = "none") -> BaseModel:
        task = TASKS.get(kind, "generation")
        table = ModelTable(id=str(checkpoints[kind]), task=task, dtype=dtype)
        return load_base(table, LoraTable(targets=targets), LABELS if kind in TASKS else None, bits=bits)

    return load


def random_adapter(base: BaseModel, ranks=(1, 2, 3, 5), *, seed: int = 0, scaling: float = 1.5) -> Adapter:
    """Factors of unequal rank and scaling with a visible delta."""
    found = {}
    for index, (name, (out, size)) in enumerate(base.modules.items()):
        rank, draw = ranks[index % len(ranks)], generator(seed, name)
        a, b = torch.randn(rank, size, generator=draw), torch.randn(out, rank, generator=draw)
        found[name] = Factors(0.3 * a, 0.3 * b, scaling + 0.25 * index)
    return Adapter(found)


def random_batch(base: BaseModel, *, rows: int = 4, tokens: int = 20, seed: int = 0) -> AnyBatch:
    draw = generator(seed, "batch")
    if base.task == "image-classification":
        return ImageBatch(torch.randn(rows, 1, 8, 8, generator=draw), torch.arange(rows) % len(LABELS))
    inputs = torch.randint(3, 259, (rows, tokens), generator=draw)
    if base.task == "classification":
        return Batch(inputs, torch.arange(rows) % len(LABELS))
    labels = inputs.clone()
    labels[:, : tokens // 2] = -100
    return Batch(inputs, labels)


WORK = LocalWork(
    steps=6,
    first_step=0,
    total_steps=6,
    batch_size=4,
    accumulation=1,
    learning_rate=1e-2,
    head_learning_rate=1e-2,
    schedule="constant",
    warmup=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    max_tokens=64,
    dropout=0.0,
)


def assignment(base: BaseModel, start: Start | None = None, **changes) -> Assignment:
    """Work for one client; `changes` are fields of LocalWork."""
    work = SimpleNamespace(**{**WORK.__dict__, **changes})
    return Assignment(
        kind="train",
        round=1,
        client="north",
        start=start or Start(random_adapter(base)),
        trains=dict.fromkeys(base.modules, "ab"),
        head=base.head_tensors(),
        seed=5,
        work=LocalWork(**vars(work)),
    )


def inputs_of(batch: AnyBatch) -> dict[str, torch.Tensor | None]:
    """What a transformers model takes of a batch, without the labels."""
    if isinstance(batch, ImageBatch):
        return {"pixel_values": batch.pixel_values}
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def uneven(base, rows=5):
    """A batch with padding, whose rows have unequal numbers of labels, and each row by itself without padding."""
    batch = random_batch(base, rows=rows)
    if isinstance(batch, ImageBatch):
        alone = [ImageBatch(batch.pixel_values[[row]], batch.labels[[row]]) for row in range(rows)]
        return batch, alone
    lengths = [batch.input_ids.shape[1] - 2 * row for row in range(rows)]
    for row, length in enumerate(lengths):
        batch.input_ids[row, length:] = base.pad_id
    if base.classifies:
        mask = (torch.arange(batch.input_ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
        alone = [Batch(batch.input_ids[[row], :length], batch.labels[[row]]) for row, length in enumerate(lengths)]
        return Batch(batch.input_ids, batch.labels, mask), alone
    for row, length in enumerate(lengths):
        batch.labels[row, length:] = -100
    alone = [Batch(batch.input_ids[[row], :length], batch.labels[[row], :length]) for row, length in enumerate(lengths)]
    return batch, alone


def one_by_one(base, parameters, alone):
    """The gradient of each example over all parameters, as rows of one matrix."""
    found = []
    with training_mode(base):
        for example in alone:
            for parameter in parameters:
                parameter.grad = None
            loss, labels = batch_loss(base, example)
            (loss / labels).backward()
            found.append(torch.cat([parameter.grad.flatten() for parameter in parameters]))
    for parameter in parameters:
        parameter.grad = None
    return torch.stack(found)


def clipped_sum(base, parameters, batches, bound):
    """By the fast path; what reached .grad, which should be nothing."""
    with training_mode(base), per_example(base, parameters) as found:
        for batch in batches:
            found.begin(len(batch.labels))
            example_losses_sum(base, batch).backward()
            found.clip(bound)
        reached = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.cat([found.sums[parameter].flatten() for parameter in parameters]), reached


def expected_sum(gradients, bound):
    norms = gradients.norm(dim=1)
    assert norms.min() < bound < norms.max(), "the bound must clip some examples and leave others"
    return ((bound / norms).clamp_max(1.0)[:, None] * gradients).sum(0)


@pytest.fixture
def apart():
    """The functions above that keep the gradients of examples apart."""
    return SimpleNamespace(uneven=uneven, one_by_one=one_by_one, clipped_sum=clipped_sum, expected_sum=expected_sum)


@pytest.fixture
def kit():
    """The functions above, for test files (which cannot import this one)."""
    return SimpleNamespace(
        random_adapter=random_adapter, random_batch=random_batch, assignment=assignment, inputs_of=inputs_of
    )


@pytest.fixture
def logits():
    """logits(base, batch): of the model with the factors that are loaded, in float32."""

    def logits(model, batch):
        with torch.no_grad():
            return model(**inputs_of(batch)).logits.float()

    return logits
