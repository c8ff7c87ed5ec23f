"""Audit what a run released: losses of single rows and canaries, where these are, and what they tell of membership."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fedloom import rng
from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.registry import method as method_named
from fedloom.aggregation.world import Start
from fedloom.data.batches import Row, evaluation_batches
from fedloom.engine.finished import committed_state
from fedloom.engine.keeping import own_model
from fedloom.engine.sites import Site, Sites, load_sites, refuse_changed
from fedloom.errors import RunError
from fedloom.privacy.audit import Audit, Losses, audit
from fedloom.report.spending import last_of, releases, sums_of
from fedloom.report.values import whose_models
from fedloom.rounds.assign import common_start
from fedloom.rounds.state import RunState
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import Experiment
from fedloom.store.run_directory import RunDirectory
from fedloom.store.unfinished import replace_file
from fedloom.training.local import load_head
from fedloom.training.lora_layer import load_start
from fedloom.training.measure import example_losses

FILE = "audit.json"
DELTA = 1e-5  # of a run that promises nothing
TOKENS_PER_BATCH = 1024


@dataclass(frozen=True)
class RunAudit:
    """The audit of one committed round, beside what was promised.

    clients: those whose rows were trained on up to that round.  absent: the others, which are left out.
    unit: of the promise.  promised: epsilon of the configuration; spent: the largest of a client, by the journal, up to
    that round (of unit client: of the sums). None where there is none.
    note: whose models these are, where each client has its own.  written: where the same stands as JSON.
    """

    round: int
    clients: tuple[str, ...]
    absent: tuple[str, ...]
    unit: str
    promised: float | None
    spent: float | None
    result: Audit
    note: str | None
    written: Path

    def as_json(self) -> bytes:
        table = {name: value for name, value in asdict(self).items() if name != "written"}
        return (json.dumps(table, indent=1) + "\n").encode()


def audit_run(
    path: str | Path, *, round: int | None = None, rows: int | None = None, client: str | None = None
) -> RunAudit:
    """Attack the model of a committed round (the last one by default), and write audit.json into the run.

    rows: of each kind (trained on, held out) and client; None: evaluation.max_rows.  client: whose rows; None: of all.
    Raises: RunError for no such round or client, for rows that are not here, or if no client took part; DataError if
    the rows are not those of the run; WrongBaseError for another base.
    """
    directory = RunDirectory.open(Path(path))
    experiment = directory.experiment()
    state = committed_state(directory, round)
    _require_rows_here(experiment, directory.path)
    if rows is not None:
        evaluation = experiment.evaluation.model_copy(update={"max_rows": rows})
        experiment = experiment.model_copy(update={"evaluation": evaluation})
    sites = load_sites(experiment)
    refuse_changed(sites, directory.facts, where=directory.path)
    chosen = _took_part(sites, state, client, directory.path)
    losses = [_losses(experiment, sites, state, name, directory.clients) for name in chosen]
    delta = experiment.privacy.delta if experiment.privacy.unit != "none" else None
    personal = method_named(experiment.method.name).personal
    found = RunAudit(
        state.round,
        chosen,
        tuple(name for name in sites.by_client if name not in chosen and client is None),
        experiment.privacy.unit,
        experiment.privacy.epsilon if experiment.privacy.unit != "none" else None,
        _spent(directory, experiment, state.round, chosen),
        audit(_joined(losses, directory.path), DELTA if delta is None else delta),
        whose_models(experiment.method.name, ()) if personal else None,
        directory.path / FILE,
    )
    replace_file(found.written, found.as_json(), intact="The run is as it was", again="audit again")
    return found


def _require_rows_here(experiment: Experiment, where: Path) -> None:
    """Raises: RunError if sites name their data themselves, as across machines."""
    if experiment.data.source is None:
        elsewhere = [client.name for client in experiment.active if client.data is None]
        if elsewhere:
            raise RunError(
                f"the rows of {', '.join(elsewhere)} are at their sites, and an audit needs them",
                where=where,
                do="Audit a rehearsal on one machine, with rows like theirs: fedloom run",
            )


def _took_part(sites: Sites, state: RunState, client: str | None, where: Path) -> tuple[str, ...]:
    """The clients whose rows the state has learned from; older runs do not say, and then all have.

    Raises: RunError if there is none, or the one that is asked for is not among them.
    """
    known = [name for name in sites.by_client if name in state.last_rounds or not state.last_rounds]
    if client is not None and client not in known:
        do = "Name one of them, or none for all"
        raise RunError(
            f"client {client!r} has contributed to no round up to {state.round}",
            where=where,
            expected=" or ".join(known),
            found=client,
            do=do,
        )
    return tuple(known) if client is None else (client,)


def _spent(directory: RunDirectory, experiment: Experiment, round: int, clients: Iterable[str]) -> float | None:
    """The largest epsilon of these clients, or of the sums, up to a round."""
    records = directory.journal.records()
    if experiment.privacy.unit == "client":
        return max((one.epsilon for one in sums_of(records) if one.round <= round), default=None)
    found = last_of(one for one in releases(records) if one.round <= round)
    return max((found[name].epsilon for name in clients if name in found), default=None)


def _losses(experiment: Experiment, sites: Sites, state: RunState, client: str, root: Path) -> Losses:
    """Of one client's rows and canaries: by the model that it was given, and of canaries by the base, too."""
    site, method = sites.site(client), method_named(experiment.method.name)
    members = _drawn(site, experiment.evaluation.max_rows, rng.child(experiment.seed, "audit", client))
    load_start(sites.base, Start(Adapter()), {})
    load_head(sites.base, sites.head)
    before = _of(sites, site.canaries)
    start = common_start(method, state)
    if start is None:
        start = own_model(method, world_of(experiment, sites.base.modules), state, client, root)
    load_start(sites.base, start, {})
    load_head(sites.base, state.head)
    after, included = _of(sites, site.canaries), np.array(site.included, dtype=bool)
    return Losses(_of(sites, members), _of(sites, site.held_out), before, after, included)


def _drawn(site: Site, count: int, seed: int) -> list[Row]:
    """Rows that were trained on, as many as are held out at most; canaries are apart."""
    own = site.own
    chosen = np.random.default_rng(seed).permutation(len(own))[:count]
    return [own[int(place)] for place in chosen]


def _of(sites: Sites, rows: Sequence[Row]) -> np.ndarray:
    """Losses of rows by what is in the layers. Shape: (rows,)."""
    base = sites.base
    if not rows:
        return np.empty(0)
    batches = evaluation_batches(rows, TOKENS_PER_BATCH, pad_id=base.pad_id, task=base.task)
    return example_losses(base, batches, len(rows))


def _joined(losses: Sequence[Losses], where: Path) -> Losses:
    """All clients' one after the other. Raises: RunError where the model does not give numbers."""
    fields = {name: np.concatenate([getattr(one, name) for one in losses]) for name in Losses.__dataclass_fields__}
    if not all(np.isfinite(values).all() for values in fields.values()):
        raise RunError(
            "the model's losses are not finite", where=where, do="Audit an earlier round: --round, before it diverged"
        )
    return Losses(**fields)
