"""What the server carries from round to round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import GlobalState
from fedloom.rounds.chain import Chain


@dataclass(frozen=True)
class RunState:
    """The method's state and the head (the few trainables that are not LoRA, by name; empty for generation).

    last_rounds: client -> the last committed round that its contribution counted in; of one that came late the round
        that it was trained in, by which its client finds what it kept then. What clients keep for themselves
        is not here: the server knows no more of it than from which round a client goes on.
    chain: the global delta in pieces, as it is sent.
    change: what the method made of the last round, before a server optimizer, in few factors, if it knows; of this
        process alone.
    """

    learned: GlobalState
    head: Mapping[str, Tensor] = field(default_factory=dict)
    last_rounds: Mapping[str, int] = field(default_factory=dict)
    chain: Chain = field(default_factory=Chain)
    change: Adapter | None = field(default=None, repr=False, compare=False)

    @property
    def round(self) -> int:
        """Rounds committed so far."""
        return self.learned.rounds
