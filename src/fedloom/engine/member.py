"""One client in a process of its own: it loads its rows and the base when it is first asked, and keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedloom.data.clients import load_client
from fedloom.data.examples import Labelled
from fedloom.engine.client_half import ClientHalf
from fedloom.engine.events import Observer, silent
from fedloom.engine.for_client import experiment_of
from fedloom.engine.privacy_extra import privacy_part
from fedloom.engine.sites import load_sites, longest_text
from fedloom.rounds.description import description_to_bytes
from fedloom.spec.experiment import Experiment
from fedloom.training.base_model import BaseModel


@dataclass
class Member:
    """What a client's process holds.  store: below it, a directory for each client that keeps something.
    budget: epsilon that the site allows, as of `ClientHalf`.  alone: whether the process has nothing else to do.

    The base stays for as long as experiments name the same model, layers, classes and length of text.
    """

    store: Path
    observe: Observer = silent
    budget: float | None = None
    alone: bool = False
    sums: dict[str, Any] = field(default_factory=dict)  # secure sums outlive what `forget` frees
    loads: int = 0  # how often a base was loaded: once in a run, if all is well
    _bases: dict[str, BaseModel] = field(default_factory=dict)
    _halves: dict[tuple[str, str], ClientHalf] = field(default_factory=dict)

    def classes(self, experiment: Experiment, client: str) -> tuple[str, ...]:
        """The class names of a client's rows. Raises: DataError."""
        data = load_client(experiment, client)
        return tuple(sorted({item.label for item in (*data.train, *data.held_out) if isinstance(item, Labelled)}))

    def describe(self, experiment: Experiment, client: str) -> bytes:
        """Raises: DataError, ModelError, ConfigError for a client that cannot take part."""
        return description_to_bytes(self._half(experiment, client).sites.description(client))

    def answer(self, experiment: Experiment, client: str, data: bytes, *, only_sums: bool = False) -> bytes:
        """The answer to one assignment. only_sums: as of `ClientHalf`.

        Raises: FedLoomError for work that cannot be done.
        """
        return replace(self._half(experiment, client), only_sums=only_sums).answer(data)

    def masked_answer(self, client: str, step: str, body: bytes) -> bytes:
        """The answer to one step of a secure sum; no base is loaded for it. Raises: FedLoomError."""
        return privacy_part("masked_half").masked_answer(self.sums, client, step, body, self.store)

    def forget(self) -> None:
        """Free the base and the rows; they are loaded again when they are needed."""
        self._bases.clear()
        self._halves.clear()

    def _half(self, experiment: Experiment, client: str) -> ClientHalf:
        own = experiment_of(experiment, client)
        key = (own.model_dump_json(), client)
        if key not in self._halves:
            self._halves[key] = self._loaded(own)
        return self._halves[key]

    def _loaded(self, own: Experiment) -> ClientHalf:
        bits = own.bits_of(own.active[0].name)
        needs = f"{own.model.model_dump_json()} {own.lora.model_dump_json()} {longest_text(own)} {bits}"
        if needs not in self._bases:
            self.forget()  # one base at a time
            self.loads += 1
        sites = load_sites(own, self.observe, self._bases.get(needs))
        self._bases[needs] = sites.base
        tokens = own.evaluation.max_new_tokens
        return ClientHalf(
            sites,
            self.observe,
            max_new_tokens=tokens,
            store=self.store,
            budget=self.budget,
            sums=self.sums,
            experiment=own,
            alone=self.alone,
        )
