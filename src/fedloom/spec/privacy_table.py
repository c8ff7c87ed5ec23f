"""What a user asks for of differential privacy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedloom.privacy.accounting import Accountant
from fedloom.privacy.mechanism import PrivacyPromise
from fedloom.spec.table import Table


class PrivacyTable(Table):
    """Differential privacy: what a run may tell about single rows, or about whole clients."""

    unit: Literal["none", "example", "client"] = Field(
        "none",
        description="whom the promise is about: none; example: every client trains with DP-SGD, and what it sends "
        "would be nearly the same without any one of its rows; client: each round's sum gets noise, from the server "
        "or, with secure aggregation, from the clients together, and would be nearly the same without any one client",
    )
    epsilon: float | None = Field(
        None,
        examples=[8.0],
        gt=0,
        description="budget over the whole run; the noise is computed from it. Or give noise_multiplier",
    )
    delta: float | None = Field(
        None, examples=[1e-5], gt=0, lt=1, description="chance that the promise fails; below 1 / rows of each client"
    )
    noise_multiplier: float | None = Field(
        None,
        examples=[1.0],
        gt=0,
        description="instead of epsilon: standard deviation of the noise over the norm that is clipped to",
    )
    max_grad_norm: float = Field(
        1.0, gt=0, description="example: the gradient of every single example is scaled down to it"
    )
    max_change_norm: float = Field(
        1.0,
        gt=0,
        description="client: all that one changes in a round, head and factors together, is scaled down to it",
    )
    clip_quantile: float | None = Field(
        None,
        examples=[0.5],
        gt=0,
        lt=1,
        description="client: max_change_norm follows what clients send, so that about this share of them stays within "
        "it, by a count under noise that is part of the promise; left out: it stays as it is",
    )
    colluding: int = Field(
        0,
        ge=0,
        description="client, with secure aggregation: so many clients may tell the server their part of the noise; the "
        "others add as much more as makes up for it",
    )
    accountant: Accountant = Field(
        "rdp", description="which bound counts: rdp (Renyi), or pld (privacy loss distributions: tighter, slower)"
    )
    canaries: int = Field(
        0,
        ge=0,
        le=10_000,
        description="made-up rows that are planted at each client for fedloom audit-privacy: each is trained on or "
        "left out by a coin, which the seed tosses; those that are in count as rows, and the model learns from them",
    )

    @property
    def checked_delta(self) -> float:
        """delta, of an experiment that the rules accept."""
        assert self.delta is not None, "a rule asks for it"
        return self.delta

    def promise(self, rounds: int) -> PrivacyPromise | None:
        """What clients are asked to hold; None for no noise. Of an experiment that the rules accept."""
        if self.unit != "example" or self.delta is None:
            return None
        return PrivacyPromise(
            self.unit, self.epsilon, self.delta, self.max_grad_norm, self.noise_multiplier, self.accountant, rounds
        )
