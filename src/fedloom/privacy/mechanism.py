"""What is asked for in [privacy], and what it becomes at a client with so many rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedloom.errors import RunError
from fedloom.privacy.accounting import Accountant, Spending, epsilon_of, noise_for, require_delta

Unit = Literal["none", "example", "client"]


@dataclass(frozen=True)
class PrivacyPromise:
    """The same for all clients: what the run may spend, on what, and by which bound.

    unit: whose data one promise is about.  epsilon: of the whole run; None: noise_multiplier says how much noise.
    max_grad_norm: the norm that the gradient of one example is clipped to.  rounds: of the whole run.
    """

    unit: Unit
    epsilon: float | None
    delta: float
    max_grad_norm: float
    noise_multiplier: float | None
    accountant: Accountant
    rounds: int


@dataclass(frozen=True)
class Mechanism:
    """DP-SGD at one client: rows n, expected_batch B, so that each row is taken with probability B / n in a step."""

    rows: int
    expected_batch: int
    steps: int
    noise_multiplier: float
    max_grad_norm: float
    delta: float
    accountant: Accountant
    epsilon: float | None

    @property
    def sampling_rate(self) -> float:
        return self.expected_batch / self.rows

    @property
    def round(self) -> Spending:
        """What one round spends."""
        return Spending(self.noise_multiplier, self.sampling_rate, self.steps)

    def epsilon_after(self, rounds: int) -> float:
        """What so many rounds spend in all."""
        return epsilon_of([self.round.times(rounds)], self.delta, self.accountant)


def mechanism_of(
    promise: PrivacyPromise, *, rows: int, batch: int, steps: int, client: str, participations: int | None = None
) -> Mechanism:
    """The noise that a client needs. batch: rows of an optimizer step.  steps: of a round.

    participations: rounds that the client may take part in; None: all, as nobody knows who will be drawn.
    Raises: RunError for a batch larger than the client's rows, or a delta of 1 / rows or more.
    """
    require_holdable(promise, rows=rows, batch=batch, client=client)
    noise = promise.noise_multiplier
    if noise is None:
        assert promise.epsilon is not None, "the rules of the experiment ask for one of the two"
        total = steps * (participations or promise.rounds)
        noise = noise_for(promise.epsilon, promise.delta, batch / rows, total, promise.accountant)
    return Mechanism(
        rows, batch, steps, noise, promise.max_grad_norm, promise.delta, promise.accountant, promise.epsilon
    )


def require_holdable(promise: PrivacyPromise, *, rows: int, batch: int, client: str) -> None:
    """Raises: RunError for a batch larger than the client's rows, or a delta of 1 / rows or more."""
    where = f"client {client!r}"
    if batch > rows:
        raise RunError(
            "a batch is larger than all rows of the client, so that sampling protects nobody",
            where=where,
            expected=f"training.batch_size x training.accumulation of at most {rows}",
            found=batch,
            do="Lower training.batch_size, or leave this client out",
        )
    require_delta(promise.delta, rows, where=where)
