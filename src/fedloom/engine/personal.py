"""A client's personal model, taken home: written, and what it costs to merge it, on the client's own rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Start
from fedloom.data.batches import evaluation_batches
from fedloom.engine.client_half import ClientHalf
from fedloom.engine.finished import Finished
from fedloom.engine.sites import Site, site_of_run
from fedloom.errors import DataError, RunError
from fedloom.export.gguf import export_gguf
from fedloom.export.peft import export_merged
from fedloom.export.personal import merged_adapter, write_personal
from fedloom.store.run_directory import RunDirectory
from fedloom.training.base_model import BaseModel
from fedloom.training.gates import StaticMixture, closest_static
from fedloom.training.local import load_head
from fedloom.training.lora_layer import load_start
from fedloom.training.measure import held_out_loss

TRAINING_ROWS = 64  # from which the closest static mixture is found: thousands of tokens for one number a module


@dataclass(frozen=True)
class Merging:
    """What becomes of a client's model when it is merged, on that client's own rows.

    mixtures: module -> what stands for its mixer, found on rows that were trained on; empty where shares are constant.
    personal, merged: what `held_out_loss` finds on its held-out rows.  rows: how many these are.
    """

    mixtures: dict[str, StaticMixture]
    personal: dict[str, float]
    merged: dict[str, float]
    rows: int

    @property
    def shares(self) -> dict[str, float]:
        """module -> own share of the closest static mixture."""
        return {module: mixture.own_share for module, mixture in self.mixtures.items()}


@dataclass(frozen=True)
class Personal:
    """A client's own model with its base at hand.

    run, method: names.  round: after which it is this.  rows: reads the client's rows; raises DataError if they are not
        here, or not those of the run.
    """

    client: str
    run: str
    method: str
    round: int
    base: BaseModel
    start: Start
    head: Mapping[str, Tensor]
    rows: Callable[[], Site]

    @property
    def mixes(self) -> bool:
        """Whether it has two branches in each module, and is more than one adapter."""
        return self.start.mixing is not None


def personal_of_run(run: str | Path, finished: Finished, client: str) -> Personal:
    """The model of one client of a run on this machine. Raises: RunError as `Finished.own`."""
    return Personal(
        client=client,
        run=finished.experiment.name,
        method=finished.method.name,
        round=finished.state.round,
        base=finished.base,
        start=finished.own(client),
        head=finished.state.head,
        rows=lambda: _rows_of_run(run, finished, client),
    )


def _rows_of_run(run: str | Path, finished: Finished, client: str) -> Site:
    facts = RunDirectory.open(Path(run)).facts
    return site_of_run(finished.experiment, finished.base, facts, client, where=run)


def merging(model: Personal, site: Site) -> Merging:
    """Find the closest static mixture, and measure it beside the model itself. The base is left with the former."""
    base = model.base
    load_start(base, model.start, {})
    load_head(base, model.head)
    every = max(1, len(site.own) // TRAINING_ROWS)
    mixtures = closest_static(base, _batches(base, site.own[::every][:TRAINING_ROWS]))
    personal = held_out_loss(base, _batches(base, site.held_out))
    delta = merged_adapter(model.start, {module: mixture.own_share for module, mixture in mixtures.items()})
    assert delta is not None, "the client's rows go through every module"
    load_start(base, Start(delta), {})
    return Merging(mixtures, personal, held_out_loss(base, _batches(base, site.held_out)), len(site.held_out))


def _batches(base: BaseModel, rows: Any) -> Any:
    return evaluation_batches(rows, ClientHalf.tokens_per_batch, pad_id=base.pad_id, task=base.task)


@dataclass(frozen=True)
class TakenHome:
    """merging: None where the client's rows are not here, and `lacking` says why."""

    merging: Merging | None
    lacking: str | None


def take_home(model: Personal, to: Path, *, merge: bool) -> TakenHome:
    """Write the model of a client whose method mixes two adapters. merge: as one whole model, of the closest static
    mixture.

    Raises: RunError if it cannot be written, or is to be merged and the client's rows are not here.
    """
    taken = _measured(model)
    if merge:
        export_merged(to, _static(model, taken), model.head, model.base)
    else:
        shares = None if taken.merging is None else taken.merging.shares
        write_personal(to, model.base, model.start, model.head, shares=shares, about=_about(model, taken.merging))
    return taken


def take_home_gguf(model: Personal, to: Path) -> TakenHome | None:
    """Write the model of a client as one adapter for llama.cpp: of two that are mixed their closest static mixture;
    None where there is nothing to mix.

    Raises: as `take_home`, to be merged, and `export_gguf`.
    """
    taken = _measured(model) if model.mixes else None
    adapter = model.start.delta() if taken is None else _static(model, taken)
    export_gguf(to, adapter, model.base, name=f"{model.run}, {model.client}")
    return taken


def _measured(model: Personal) -> TakenHome:
    try:
        return TakenHome(merging(model, model.rows()), None)
    except DataError as error:
        return TakenHome(None, str(error))


def _static(model: Personal, taken: TakenHome) -> Adapter:
    """The closest static mixture. Raises: RunError where nobody knows it."""
    adapter = merged_adapter(model.start, None if taken.merging is None else taken.merging.shares)
    if adapter is None:
        raise RunError(
            "this model's shares are learned, and which constants come closest is only known from the client's rows",
            where=f"client {model.client!r}",
            found=taken.lacking,
            do="Export without --merge and --gguf, or where those rows are",
        )
    return adapter


def _about(model: Personal, found: Merging | None) -> dict[str, Any]:
    about = {"client": model.client, "run": model.run, "method": model.method}
    losses = (
        {} if found is None else {"held_out_loss": found.personal["loss"], "merged_held_out_loss": found.merged["loss"]}
    )
    return {**about, "round": model.round, **losses}
