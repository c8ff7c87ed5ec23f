"""From a configuration file to an experiment, with all that is wrong with it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedloom.errors import ConfigError
from fedloom.spec.dump import dump
from fedloom.spec.experiment import Experiment
from fedloom.spec.places import missing_files, resolved
from fedloom.spec.positions import positions
from fedloom.spec.problem import Problem, line_number
from fedloom.spec.rules import problems_of
from fedloom.spec.toml import tables_of, text_of
from fedloom.spec.validate import validate

__all__ = ["check", "dump", "load", "parse"]


def load(path: str | Path, *, data_at_sites: bool = False) -> Experiment:
    """The experiment of a TOML file. Relative paths in it are relative to its folder.

    data_at_sites: for a run across machines, as of `parse`.  Raises: ConfigError with every problem and its line.
    """
    path = Path(path)
    return parse(text_of(path), where=str(path), folder=path.parent, data_at_sites=data_at_sites)


def parse(
    text: str, *, where: str, folder: Path, files_must_exist: bool = True, data_at_sites: bool = False
) -> Experiment:
    """The experiment of a TOML text. files_must_exist: whether data files and a local model are looked for.

    data_at_sites: data and base lie at the sites: none are looked for here, and clients need not name their data.

    Raises: ConfigError with every problem, in the order of the lines.
    """
    raw = tables_of(text, where)
    experiment, problems = validate(raw)
    if experiment is not None:
        experiment = resolved(experiment, folder)
        unreliable = {problem.path for problem in problems}
        found = problems_of(experiment, data_at_sites=data_at_sites)
        found += missing_files(experiment) if files_must_exist and not data_at_sites else []
        problems += [problem for problem in found if not _follows(problem, unreliable)]
    if problems or experiment is None:
        raise ConfigError(_listed(problems, text, raw), where=where)
    return experiment


def check(experiment: Experiment) -> None:
    """Hold an experiment that was built in Python to the rules of a file. Raises: ConfigError with every problem."""
    problems = problems_of(experiment) + missing_files(experiment)
    if problems:
        raw = experiment.model_dump()
        raise ConfigError([problem.line({}, raw) for problem in problems], where=f"experiment {experiment.name!r}")


def _follows(problem: Problem, unreliable: set[tuple[str | int, ...]]) -> bool:
    """Whether a problem may be only a consequence of a part that could not be read."""
    about_unread_clients = problem.path[0] == "rounds" and any(path[0] == "clients" for path in unreliable)
    return about_unread_clients or any(problem.path[: len(path)] == path for path in unreliable)


def _listed(problems: list[Problem], text: str, raw: dict[str, Any]) -> list[str]:
    lines = positions(text)
    ordered = sorted(problems, key=lambda problem: line_number(problem.path, lines) or 0)
    return [problem.line(lines, raw) for problem in ordered]
