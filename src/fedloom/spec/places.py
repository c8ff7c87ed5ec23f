"""Where files are: relative to the configuration, not to the process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedloom.spec.experiment import Experiment
from fedloom.spec.problem import Path as Place
from fedloom.spec.problem import Problem, nearest

SCHEMES = ("docstrings", "hf")


def resolved(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with absolute paths to data files, to a local model, and to the folder of probes."""
    data, model = experiment.data, experiment.model
    clients = [
        client if client.data is None else client.model_copy(update={"data": source_at(client.data, folder)})
        for client in experiment.clients
    ]
    changes = {"clients": tuple(clients), "model": model.model_copy(update={"id": _model(model.id, folder)})}
    if data.source is not None:
        changes["data"] = data.model_copy(update={"source": source_at(data.source, folder)})
    planning = experiment.planning
    if planning.probes is not None:
        changes["planning"] = planning.model_copy(update={"probes": str(folder.absolute() / planning.probes)})
    return experiment.model_copy(update=changes)


def missing_files(experiment: Experiment) -> list[Problem]:
    """Data files, and a model given by its path, that are not there or cannot be."""
    sources: list[tuple[Place, str | None]] = [(("data", "source"), experiment.data.source)]
    sources += [(("clients", index, "data"), client.data) for index, client in enumerate(experiment.clients)]
    problems = [
        Problem(path, _why_no_name(source) or f"there is no file {source}{_nearest_scheme(source)}")
        for path, source in sources
        if source is not None and _is_file(source) and not _test(Path.exists, Path(source))
    ]
    model = experiment.model.id
    impossible = _why_no_name(model)
    if impossible or (Path(model).is_absolute() and not _test(Path.is_dir, Path(model))):
        problems.append(Problem(("model", "id"), impossible or f"there is no folder {model} with a model"))
    return problems


def _why_no_name(path: str) -> str | None:
    """Why the system refuses to look for a path; None where it looks."""
    try:
        Path(path).expanduser().stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = str(error.strerror)
    except (ValueError, RuntimeError) as error:  # a null character; a user of whom no home folder is known
        reason = str(error)
    else:
        return None
    return f"expected a name that can be looked for, found {_short(path)}: {reason[:1].lower()}{reason[1:]}"


def _short(path: str) -> str:
    return repr(path) if len(path) <= 80 else f"{path[:77]!r}.. ({len(path)} characters)"


def _test(test: Callable[[Path], bool], path: Path) -> bool:
    """What a test says of a path; False where the system refuses to look."""
    try:
        return test(path)
    except (OSError, ValueError):
        return False


def _is_file(source: str) -> bool:
    return source.partition(":")[0] not in SCHEMES or ":" not in source


def source_at(source: str, folder: Path) -> str:
    """A data source with the absolute path of its file, if it is one."""
    return _absolute(source, folder) if _is_file(source) else source


def _model(model: str, folder: Path) -> str:
    """An id such as `org/name` is a path only where there is such a folder; `./name` is always one."""
    local = model.startswith((".", "/", "~")) or _test(Path.is_dir, folder / model)
    return _absolute(model, folder) if local else model


def _absolute(path: str, folder: Path) -> str:
    """The path as it is where the system cannot resolve it: `missing_files` says why."""
    try:
        return str((folder / Path(path).expanduser()).resolve())
    except (OSError, ValueError, RuntimeError):
        return path


def _nearest_scheme(source: str) -> str:
    scheme, colon, rest = Path(source).name.partition(":")
    return nearest(f"{scheme}:", [f"{known}:" for known in SCHEMES]) if colon and rest else ""
