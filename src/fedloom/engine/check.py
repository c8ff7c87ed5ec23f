"""Everything that can be known to fail before round 1, all of it at once."""

from __future__ import annotations

from pathlib import Path

from fedloom.data.clients import Sources
from fedloom.engine.base import Federation
from fedloom.engine.sites import load_sites, longest_text
from fedloom.errors import ConfigError, FedLoomError
from fedloom.rounds.world import active_clients, world_of
from fedloom.spec.experiment import Experiment
from fedloom.training.base_model import load_base


def check_sites(experiment: Experiment, *, where: str | Path) -> Federation:
    """The facts of a federation that can run. Raises: ConfigError with one line per client, base or rank at fault.

    What is left to the planner is checked as the least that it could choose.
    """
    experiment = _with_the_least(experiment)
    sources = Sources(experiment)
    problems = _problems_of(experiment, sources)
    if problems:
        raise ConfigError(problems, where=where)
    return load_sites(experiment).federation()


def _with_the_least(experiment: Experiment) -> Experiment:
    least = {"rank": 1, "batch_size": 1, "bits": "none"}
    clients = tuple(
        client.model_copy(update={key: value for key, value in least.items() if getattr(client, key) == "auto"})
        for client in experiment.clients
    )
    return experiment.model_copy(update={"clients": clients})


def unreadable(experiment: Experiment, sources: Sources) -> list[str]:
    """What is wrong with the rows of the clients that may take part, one line for each that cannot be read."""
    problems = []
    for client in active_clients(experiment):
        try:
            sources.client(client.name)
        except FedLoomError as error:
            problems.append(str(error))
    return problems


def _problems_of(experiment: Experiment, sources: Sources) -> list[str]:
    problems = unreadable(experiment, sources)
    try:
        # The number of classes does not matter for targets and ranks.
        classes = ("0", "1") if experiment.model.classifies else None
        world_of(experiment, load_base(experiment.model, experiment.lora, classes, longest_text(experiment)).modules)
    except ConfigError as error:
        problems.extend(error.problems)
    except FedLoomError as error:
        problems.append(str(error))
    return problems
