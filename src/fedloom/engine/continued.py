"""What a continued run is asked to do: the configuration of the run before, with other rows and further rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedloom.data.files import READERS
from fedloom.engine.lineage import Parent
from fedloom.engine.replanning import with_keys
from fedloom.errors import DataError, RunError
from fedloom.spec.client_table import ClientTable
from fedloom.spec.data_table import DataTable
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import dump, parse

ENDINGS = ", ".join(READERS)


def files_by_client(folder: Path, experiment: Experiment) -> dict[str, Path]:
    """client -> its file in a folder. Hidden files are left alone.

    Raises: DataError for no folder, no file, two files of one client, a file of no client that the configuration
        knows (it gives each client its rank), or one of another ending.
    """
    if not folder.is_dir():
        raise DataError("there is no such folder", where=folder, expected="a folder with one file per client")
    names = {client.name for client in experiment.clients}
    found: dict[str, Path] = {}
    for path in sorted(each for each in folder.iterdir() if not each.name.startswith(".")):
        client = path.name.removesuffix(path.suffix)
        if path.suffix.lower() not in READERS or client not in names:
            raise DataError(
                "not the file of a client of this run",
                where=path,
                expected=f"the name of one of {', '.join(sorted(names))}, with the ending {ENDINGS}",
                found=path.name,
                do="Rename or move it. A new client joins if the configuration of the run before has a [[clients]] "
                "with its name and rank, even where that run left it out; otherwise begin a run with it",
            )
        if client in found:
            raise DataError(f"two files of client {client!r}", where=folder, found=f"{found[client].name}, {path.name}")
        found[client] = path.absolute()
    if not found:
        raise DataError("the folder has no file", where=folder, expected=f"CLIENT with the ending {ENDINGS}")
    return found


def continued_experiment(
    experiment: Experiment,
    files: Mapping[str, Path],
    *,
    parent: Parent,
    labels: tuple[str, ...],
    replans: Iterable[Mapping[str, Any]],
    rounds: int,
    name: str,
    epsilon: float | None,
) -> Experiment:
    """The configuration of the run that goes on after `parent.round`.

    Clients with a file take part, those without are as if they had left. labels: of the run before, in order.
    replans: its decisions to plan anew.  rounds: how many more.  epsilon: a budget over all rounds of both.
    Raises: ConfigError for what the rules refuse; RunError for a budget of a run that has none.
    """
    for replan in replans:
        if replan["round"] <= parent.round:
            experiment = with_keys(experiment, replan["clients"])
    first = parent.round + 1
    training = {"first_round": first, "rounds": parent.round + rounds}
    update: dict[str, Any] = {
        "name": name,
        "training": experiment.training.model_copy(update=training),
        "data": _own_files(experiment.data),
        "clients": tuple(_client(client, files, first) for client in experiment.clients),
        "evaluation": experiment.evaluation.model_copy(update={"baselines": False}),
        "rounds": experiment.rounds.model_copy(update={"clients": _may_take_part(experiment, files)}),
    }
    if experiment.model.classifies:
        update["model"] = experiment.model.model_copy(update={"labels": labels})
    if epsilon is not None:
        update["privacy"] = _with_budget(experiment, epsilon, parent)
    text = dump(experiment.model_copy(update=update))
    return parse(text, where=f"run {name!r}", folder=Path(), files_must_exist=False, data_at_sites=True)


def _own_files(data: DataTable) -> DataTable:
    """Without a common source, as each client has a file of its own."""
    given = {key: value for key, value in data if key in data.model_fields_set}
    return DataTable(**{key: value for key, value in given.items() if key not in ("source", "partition")})


def _client(client: ClientTable, files: Mapping[str, Path], first: int) -> ClientTable:
    if client.name in files:
        return client.model_copy(update={"data": str(files[client.name]), "joins": None, "leaves": None})
    return client.model_copy(update={"joins": None, "leaves": first})


def _may_take_part(experiment: Experiment, files: Mapping[str, Path]) -> tuple[str, ...] | None:
    """As [rounds] clients: those of before, whose models and ranks the method knows, and those that join."""
    only = experiment.rounds.clients
    return None if only is None else (*only, *sorted(files.keys() - set(only)))


def _with_budget(experiment: Experiment, epsilon: float, parent: Parent) -> Any:
    if experiment.privacy.epsilon is None:
        raise RunError(
            "the run has no budget of privacy that could be raised",
            where=parent.path,
            expected="a run with [privacy] epsilon",
            found="no epsilon: its noise_multiplier is given, or it has no [privacy]",
            do="Leave --epsilon out",
        )
    return experiment.privacy.model_copy(update={"epsilon": epsilon})
