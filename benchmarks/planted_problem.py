"""A problem whose answer is known: a frozen random network, and the delta that clients are to find together.

y = W2' tanh(W1' x) with W' = W + planted delta, W orthogonal. Every client has inputs of its own: three quarters of
their variance lie in a few dimensions, the rest is noise that all have, so that it sees mainly its part of the delta.
Labels are without noise: all clients agree on the planted delta, and a perfect method ends with it. The clients of one
round train together, as one batch: factors are padded with zeros to one rank, which AdamW leaves zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import pad
from fedloom.adapters.factors import Factors
from fedloom.rng import generator
from fedloom.rounds.contribute import prepared
from fedloom.rounds.messages import Assignment, LocalWork
from fedloom.training.penalties import penalty
from fedloom.training.schedule import rate_factor

SIDE, OWN_DIMENSIONS, CLIENTS = 64, 12, 10
MODULES = ("first", "second")
PLANTED_SHARE = 0.5  # norm of the planted delta over that of the frozen weights
NOISE = 0.5  # standard deviation of the common part of an input; the whole has 1
ROWS, HELD_OUT = 4096, 256  # per client


@dataclass(frozen=True, eq=False)
class Problem:
    """The frozen weights, what is to be found, and the clients' rows. Shapes: inputs, labels (clients, rows, side).

    held_out: inputs and labels that nobody trains on.
    """

    seed: int
    frozen: dict[str, Tensor]
    planted: Adapter
    inputs: Tensor
    labels: Tensor
    held_out: tuple[Tensor, Tensor]

    def error(self, delta: Adapter) -> float:
        """|delta - planted| / |planted| over all modules, as dense float64."""
        wrong = sum(_square(_dense(delta, module) - _dense(self.planted, module)) for module in MODULES)
        return math.sqrt(wrong / sum(_square(_dense(self.planted, module)) for module in MODULES))

    def held_out_loss(self, delta: Adapter) -> float:
        """Mean squared error on rows that nobody trains on, relative to that of the frozen network."""
        inputs, labels = self.held_out
        bare, now = ([self.frozen[m] + share * _dense(delta, m).float() for m in MODULES] for share in (0.0, 1.0))
        return _square(forward(inputs, now) - labels) / _square(forward(inputs, bare) - labels)

    def together(self) -> Problem:
        """The same with all rows at one client."""
        inputs, labels = (part.reshape(1, -1, SIDE) for part in (self.inputs, self.labels))
        return replace(self, inputs=inputs, labels=labels)


def _square(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())


def _dense(delta: Adapter, module: str) -> Tensor:
    return delta[module].delta().double() if module in delta else torch.zeros(SIDE, SIDE, dtype=torch.float64)


def problem(seed: int, planted_rank: int) -> Problem:
    draws = generator(seed, "planted problem")
    frozen = {module: _orthonormal(SIDE, draws) for module in MODULES}
    planted = {module: _planted(planted_rank, float(frozen[module].norm()), draws) for module in MODULES}
    inputs = _inputs(_spaces(_orthonormal(SIDE, draws)), draws)
    labels = forward(inputs, [frozen[module] + planted[module].delta() for module in MODULES])
    held_out = inputs[:, ROWS:], labels[:, ROWS:]
    return Problem(seed, frozen, Adapter(planted), inputs[:, :ROWS], labels[:, :ROWS], held_out)


def _orthonormal(columns: int, draws: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(SIDE, columns, generator=draws)).Q


def _planted(rank: int, frozen_norm: float, draws: torch.Generator) -> Factors:
    """Random directions whose singular values fall evenly to a quarter."""
    u, v = (_orthonormal(rank, draws) for _ in range(2))
    s = torch.linspace(1.0, 0.25, rank)
    return Factors(v.T, u * (s * PLANTED_SHARE * frozen_norm / s.norm()))


def _spaces(basis: Tensor) -> Tensor:
    """For each client some neighbouring columns of the basis; together they go round it almost twice."""
    firsts = [number * SIDE // CLIENTS for number in range(CLIENTS)]
    return torch.stack([basis[:, [(first + i) % SIDE for i in range(OWN_DIMENSIONS)]] for first in firsts])


def _inputs(spaces: Tensor, draws: torch.Generator) -> Tensor:
    """Rows of variance 1. Shapes: spaces (clients, in, own), result (clients, rows, in)."""
    clients, sides, own = spaces.shape
    inside = torch.randn(clients, ROWS + HELD_OUT, own, generator=draws) @ spaces.mT
    noise = torch.randn(clients, ROWS + HELD_OUT, sides, generator=draws)
    return math.sqrt((1 - NOISE**2) * sides / own) * inside + NOISE * noise


def forward(inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Shapes: inputs (clients, rows, in), weights (clients, out, in) or (out, in)."""
    hidden = inputs
    for weight in weights[:-1]:
        hidden = torch.tanh(hidden @ weight.mT)
    return hidden @ weights[-1].mT


@dataclass(frozen=True, eq=False)
class Fleet:
    """The clients of one round as one batch.

    Shapes: base (clients, out, in), a (clients, rank, in), b (clients, out, rank), scaling (clients, 1, 1).
    """

    base: dict[str, Tensor]
    a: dict[str, Tensor]
    b: dict[str, Tensor]
    scaling: dict[str, Tensor]

    def predict(self, inputs: Tensor) -> Tensor:
        deltas = {module: (self.scaling[module] * self.b[module]) @ self.a[module] for module in MODULES}
        return forward(inputs, [self.base[module] + deltas[module] for module in MODULES])

    def layers(self, position: int, start: Adapter) -> dict[str, Any]:
        """module -> one client's a and b without the padding, differentiable."""
        return {
            module: SimpleNamespace(
                a=self.a[module][position, : factors.rank], b=self.b[module][position, :, : factors.rank]
            )
            for module, factors in start.items()
        }

    def adapter(self, position: int, start: Adapter) -> Adapter:
        """What one client has learned."""
        layers = {
            module: (layer.a.detach(), layer.b.detach()) for module, layer in self.layers(position, start).items()
        }

        def learned(module: str, factors: Factors) -> Factors:
            a, b = layers[module]
            return Factors(a.clone(), b.clone(), factors.scaling)

        return start.map(learned)


def fleet(found: Problem, assignments: Sequence[Assignment]) -> Fleet:
    a, b, base, scaling = {}, {}, {}, {}
    for module in MODULES:
        factors = [each.start.trainable[module] for each in assignments]
        padded = [pad(each, max(each.rank for each in factors)) for each in factors]
        a[module], b[module] = torch.stack([each.a for each in padded]), torch.stack([each.b for each in padded])
        scaling[module] = torch.tensor([each.scaling for each in factors])[:, None, None]
        trunks = [_dense(each.start.trunk, module).float() for each in assignments]
        base[module] = torch.stack([found.frozen[module] + trunk for trunk in trunks])
    return Fleet(base, a, b, scaling)


def train(found: Problem, assignments: Sequence[Assignment], positions: Sequence[int]) -> list[Adapter]:
    """What the clients at these positions send back, each with a new AdamW; all have the same work."""
    work, clients = _work(assignments[0]), fleet(found, assignments)
    sides = assignments[0].trains
    parameters = [getattr(clients, side)[module].requires_grad_() for module in MODULES for side in sides[module]]
    optimizer = torch.optim.AdamW(parameters, lr=work.learning_rate, weight_decay=work.weight_decay, fused=True)
    draws, who = generator(found.seed, "rows", work.first_step), torch.tensor(positions)[:, None]
    for step in range(work.steps):
        optimizer.param_groups[0]["lr"] = work.learning_rate * rate_factor(work, step)
        rows = torch.randint(found.inputs.shape[1], (work.batch_size,), generator=draws)
        loss = (clients.predict(found.inputs[who, rows]) - found.labels[who, rows]).square().mean(dim=(1, 2)).sum()
        optimizer.zero_grad(set_to_none=True)
        (loss + _penalties(clients, assignments, work)).backward()
        optimizer.step()
    trained = [clients.adapter(position, each.start.trainable) for position, each in enumerate(assignments)]
    return [prepared(each, adapter) for each, adapter in zip(assignments, trained, strict=True)]


def _work(assignment: Assignment) -> LocalWork:
    assert assignment.work is not None, "there is work in every assignment to train"
    return assignment.work


def _penalties(clients: Fleet, assignments: Sequence[Assignment], work: LocalWork) -> Tensor | float:
    if not work.penalties:
        return 0.0
    starts = [each.start.trainable for each in assignments]
    terms = [penalty(work.penalties, clients.layers(k, start), start) for k, start in enumerate(starts)]
    return torch.stack([term for term in terms if term is not None]).sum()
