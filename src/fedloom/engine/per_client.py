"""Each client's own model beside what it would have without: trained alone, and the shared models of other methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.registry import method as method_named
from fedloom.engine.compare import compare
from fedloom.engine.events import Observer, Stage, silent
from fedloom.engine.finished import committed_state
from fedloom.engine.run import resume, run
from fedloom.engine.sites import Sites, load_sites, refuse_changed
from fedloom.engine.whole_run import ALONE, records_of
from fedloom.errors import RunError
from fedloom.evaluation.scores import Scores, scores_of
from fedloom.rounds.choosing import counts_of
from fedloom.spec.alone import alone_experiment
from fedloom.spec.experiment import Experiment
from fedloom.store.client_store import ClientStore
from fedloom.store.run_directory import RunDirectory

COMPARED = "compared"  # folder of a run, for the runs that it is compared with
ByClient = Mapping[str, Scores]


def per_client(path: str | Path, against: Sequence[str], *, observe: Observer = silent) -> dict[str, ByClient]:
    """label -> client -> scores on its held-out rows: "alone", then each method of `against`, then the run's own.

    What is not there yet is trained with the run's rows, steps and seeds, and kept in the run's folder `compared`: a
    second call, or one after a kill, trains nothing twice.
    Raises: RunError for a run that has no personal models, is not finished, or protects its rows by noise: to train on
        them once more would spend its budget again.
    """
    directory = RunDirectory.open(Path(path))
    experiment = _plain(directory.experiment(), directory)
    _require_personal(experiment, directory, against)
    sites = load_sites(experiment, observe)
    refuse_changed(sites, directory.facts, where=directory.path)
    own = _own(directory)
    folder = directory.path / COMPARED
    found: dict[str, ByClient] = {"alone": _alone(experiment, directory, folder, list(own), sites, observe)}
    others = compare(experiment, against, root=folder, observe=observe, sites=sites).summaries if against else {}
    for name, summary in others.items():
        found[name] = {client: summary.federated.clients[client] for client in own}
    return {**found, experiment.method.name: own}


def borrowed(path: str | Path) -> dict[str, float]:
    """client -> how much of the rest of the world it chose to borrow, 1 for all; without clients that do not choose."""
    directory = RunDirectory.open(Path(path))
    rounds = committed_state(directory, None).last_rounds
    stores = {client: ClientStore(directory.clients / client) for client in rounds}
    kept = {client: store.load(rounds[client]) for client, store in stores.items() if rounds[client] in store.rounds()}
    found = {client: counts_of(tensors) for client, tensors in kept.items()}
    return {client: counts for client, counts in found.items() if counts is not None}


def _plain(experiment: Experiment, directory: RunDirectory) -> Experiment:
    """The run as others are trained beside it: without questions, baselines and masks, as they change no number."""
    if experiment.privacy.unit != "none":
        raise RunError(
            "the rows of this run are protected by noise: training on them again would spend its budget again",
            where=directory.path,
            do="Compare on a run without [privacy], or read `fedloom report` for what was measured",
        )
    evaluation = experiment.evaluation.model_copy(update={"baselines": False, "question": None})
    secure = experiment.secure_aggregation.model_copy(update={"enabled": False})
    return experiment.model_copy(update={"evaluation": evaluation, "secure_aggregation": secure})


def _require_personal(experiment: Experiment, directory: RunDirectory, against: Sequence[str]) -> None:
    name = experiment.method.name
    if not method_named(name).personal:
        personal = ", ".join(other for other, method in METHODS.items() if method.personal)
        raise RunError(
            f"{name} gives all clients one model",
            where=directory.path,
            expected=f"a run of {personal}",
            do="Leave --per-client out: fedloom evaluate RUN measures the one model on each client's rows",
        )
    if name in against:
        raise RunError(f"{name} is the run's own method", where="--against", do="Name other methods")
    if not records_of(directory, "run_finished"):
        raise RunError("the run is not finished", where=directory.path, do=f"fedloom resume {directory.path}")


def _own(directory: RunDirectory) -> ByClient:
    """As the run measured its clients' models at its end."""
    last = committed_state(directory, None).round
    return _of_stage(directory, "final", last)


def _of_stage(directory: RunDirectory, stage: str, round: int) -> dict[str, Scores]:
    records = records_of(directory, "evaluation")
    chosen = [record for record in records if (record["stage"], record["round"]) == (stage, round)]
    return {record["client"]: scores_of(record) for record in chosen}


def _alone(
    experiment: Experiment,
    directory: RunDirectory,
    folder: Path,
    clients: Sequence[str],
    sites: Sites,
    observe: Observer,
) -> ByClient:
    """From the run's baselines where it has them; otherwise trained now."""
    found = _of_stage(directory, ALONE, committed_state(directory, None).round)
    for client in clients:
        if client not in found:
            observe(Stage(f"training {client} alone"))
            found[client] = _trained_alone(experiment, folder / ALONE, client, sites, observe)
    return {client: found[client] for client in clients}


def _trained_alone(experiment: Experiment, root: Path, client: str, sites: Sites, observe: Observer) -> Scores:
    path = root / client
    if path.exists():
        return resume(path, observe=observe, sites=sites).summary.federated.clients[client]
    alone = alone_experiment(experiment, client)
    return run(alone, root=root, observe=observe, sites=sites).summary.federated.clients[client]
