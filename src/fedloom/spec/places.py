"""Where files are: relative to the configuration, not to the process."""

from __future__ import annotations

from pathlib import Path

from fedloom.spec.experiment import Experiment
from fedloom.spec.problem import Path as Place
from fedloom.spec.problem import Problem, nearest

SCHEMES = ("docstrings", "hf")


def resolved(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with absolute paths to data files and to a local model."""
    data, model = experiment.data, experiment.model
    clients = [
        client if client.data is None else client.model_copy(update={"data": _source(client.data, folder)})
        for client in experiment.clients
    ]
    changes = {"clients": tuple(clients), "model": model.model_copy(update={"id": _model(model.id, folder)})}
    if data.source is not None:
        changes["data"] = data.model_copy(update={"source": _source(data.source, folder)})
    return experiment.model_copy(update=changes)


def missing_files(experiment: Experiment) -> list[Problem]:
    """Data files, and a model given by its path, that are not there."""
    sources: list[tuple[Place, str | None]] = [(("data", "source"), experiment.data.source)]
    sources += [(("clients", index, "data"), client.data) for index, client in enumerate(experiment.clients)]
    problems = [
        Problem(path, f"there is no file {source}{_nearest_scheme(source)}")
        for path, source in sources
        if source is not None and _is_file(source) and not Path(source).exists()
    ]
    model = experiment.model.id
    if Path(model).is_absolute() and not Path(model).is_dir():
        problems.append(Problem(("model", "id"), f"there is no folder {model} with a model"))
    return problems


def _is_file(source: str) -> bool:
    return source.partition(":")[0] not in SCHEMES or ":" not in source


def _source(source: str, folder: Path) -> str:
    return _absolute(source, folder) if _is_file(source) else source


def _model(model: str, folder: Path) -> str:
    """An id such as `org/name` is a path only where there is such a folder; `./name` is always one."""
    local = model.startswith((".", "/", "~")) or (folder / model).is_dir()
    return _absolute(model, folder) if local else model


def _absolute(path: str, folder: Path) -> str:
    return str((folder / Path(path).expanduser()).resolve())


def _nearest_scheme(source: str) -> str:
    scheme, colon, rest = Path(source).name.partition(":")
    return nearest(f"{scheme}:", [f"{known}:" for known in SCHEMES]) if colon and rest else ""
