"""The base model at the server, for what a user takes home: answers, and PEFT directories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Start
from fedloom.data.examples import Message
from fedloom.engine.sites import longest_text, refuse_other_base
from fedloom.errors import ModelError, NotAtHandError
from fedloom.export.peft import export_peft
from fedloom.spec.experiment import Experiment
from fedloom.training.base_model import BaseModel, load_base
from fedloom.training.lora_layer import load_start
from fedloom.training.measure import answer


@dataclass(frozen=True)
class TakeHome:
    """One base, in memory for as long as this is."""

    base: BaseModel
    max_tokens: int

    @staticmethod
    def of(experiment: Experiment, labels: tuple[str, ...], facts: Mapping[str, Any]) -> TakeHome:
        """Raises: NotAtHandError where the model is not here; WrongBaseError where its weights are others."""
        try:
            base = load_base(experiment.model, experiment.lora, labels or None, longest_text(experiment))
        except ModelError as error:
            raise NotAtHandError("the base model is not at hand", where="this server", found=str(error)) from error
        refuse_other_base(base.digest, facts["base_digest"], where="this server")
        return TakeHome(base, experiment.training.max_tokens)

    def ask(self, start: Start, question: str, max_new_tokens: int) -> str:
        """One question to a model; to the base if the start is empty."""
        load_start(self.base, start, {})
        return answer(self.base, [[Message("user", question)]], max_new_tokens, self.max_tokens)[0]

    def export(self, place: Path, adapter: Adapter, head: Mapping[str, Tensor]) -> None:
        export_peft(place, adapter, head, self.base)
