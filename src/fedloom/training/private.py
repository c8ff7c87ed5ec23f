"""DP-SGD at a client: Poisson batches, gradients clipped example by example, noise on their sum.

g = (sum_{i in batch} clip_C(g_i) + sigma C N(0, I)) / B, with the expected batch B = q n in place of the drawn one
(Abadi et al., 2016, algorithm 1). AdamW, FedProx and the schedule work on g alone: what is made of it spends nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from fedloom.privacy.entropy import Entropy
from fedloom.privacy.mechanism import Mechanism
from fedloom.rounds.messages import Assignment, StepDone
from fedloom.training.base_model import BaseModel
from fedloom.training.layerwise import adamw
from fedloom.training.local import (
    Tally,
    Trained,
    diverged,
    groups_of,
    place,
    seeded,
    set_rates,
    training_mode,
    what_was_trained,
    work_of,
)
from fedloom.training.losses import amounts, example_losses_sum
from fedloom.training.optimizer_state import recall
from fedloom.training.penalties import penalty
from fedloom.training.per_example import PerExample, per_example
from fedloom.training.schedule import rate_factor

if TYPE_CHECKING:
    from fedloom.data.batches import AnyBatch


def train_privately(
    base: BaseModel,
    assignment: Assignment,
    steps: Iterator[Sequence[AnyBatch]],
    mechanism: Mechanism,
    entropy: Entropy,
    observe: Callable[[StepDone], None],
) -> Trained:
    """Train a loaded assignment with DP-SGD. steps: of each step, its Poisson sample in batches; it may be empty.

    metrics: seconds and steps alone. Losses, norms and counts of tokens tell of the rows and are not covered by the
        noise: StepDone has them, for those who sit at the client.
    Raises: DivergedError if a loss or gradient is not finite; ModelError for a model whose examples cannot be told
        apart.
    """
    work = work_of(assignment)
    groups, tally = groups_of(base, assignment, work), Tally()
    parameters = [parameter for group in groups for parameter in group["params"]]
    with seeded(assignment.seed), training_mode(base), per_example(base, parameters) as found:
        optimizer = adamw(groups)
        recall(base.layers, optimizer, assignment.memory, where=place(assignment))
        for step, batches in zip(range(work.steps), steps, strict=False):
            set_rates(optimizer, rate_factor(work, step))
            loss, rows = private_gradient(base, batches, parameters, found, mechanism, entropy)
            tally.loss, tally.labels, tally.last_loss = tally.loss + loss, tally.labels + rows, loss / max(rows, 1)
            for batch in batches:
                tally.amounts.update(amounts(base, batch))
            added = penalty(work.penalties, base.layers, assignment.start.trainable)
            if added is not None:
                added.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tally.steps += 1
            if not math.isfinite(tally.last_loss):
                # Without the step and the values: the reason of a dropout travels, and no noise covers it.
                raise diverged(base, "the loss of an example", where=place(assignment))
            observe(
                StepDone(assignment.client, assignment.round, step + 1, work.steps, tally.last_loss, *tally.speed())
            )
    kept = {name: value for name, value in tally.metrics().items() if name in ("seconds", "steps")}
    return what_was_trained(base, assignment, optimizer, kept)


def private_gradient(
    base: BaseModel,
    batches: Sequence[AnyBatch],
    parameters: Sequence[torch.nn.Parameter],
    found: PerExample,
    mechanism: Mechanism,
    entropy: Entropy,
) -> tuple[float, int]:
    """Leave the noisy gradient of one step in `.grad`; the sum of the examples' losses, and how many they were.

    An empty sample is all noise, as an empty step would tell that it was empty.
    """
    found.sums.clear()
    total, rows = 0.0, 0
    for batch in batches:
        found.begin(len(batch.labels))
        loss = example_losses_sum(base, batch)
        loss.backward()
        found.clip(mechanism.max_grad_norm)
        total, rows = total + loss.item(), rows + len(batch.labels)
    deviation = mechanism.noise_multiplier * mechanism.max_grad_norm
    for parameter in parameters:
        noisy = entropy.gaussian(tuple(parameter.shape), deviation).to(parameter.device)
        clipped = found.sums.get(parameter)
        parameter.grad = (noisy if clipped is None else noisy + clipped) / mechanism.expected_batch
    return total, rows
