"""The experiment as the server has it: without a path of anybody's rows."""

from __future__ import annotations

from pathlib import Path

from fedloom.errors import KitError
from fedloom.spec.dump import dump
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import load, parse


def without_data(experiment: Experiment) -> Experiment:
    """The experiment minus every data source, as `read_pilot` reads it: the sites have their own rows.

    A common source and its partition go too: they are for trials on one machine.
    Raises: ConfigError with every problem of the experiment.
    """
    clients = tuple(client.model_copy(update={"data": None}) for client in experiment.clients)
    data = experiment.data.model_copy(update={"source": None})
    text = dump(experiment.model_copy(update={"clients": clients, "data": data}))
    # The paths in it are absolute already: those of its file were resolved when it was loaded.
    return parse(text, where=f"experiment {experiment.name!r}", folder=Path("/"), data_at_sites=True)


def read_pilot(path: Path) -> Experiment:
    """The experiment of a server's kit.

    Raises: ConfigError with every problem; KitError if a path of rows was put into it, where it would mean nothing.
    """
    experiment = load(path, data_at_sites=True)
    named = [client.name for client in experiment.clients if client.data is not None]
    if experiment.data.source is not None or named:
        where = ", ".join(named) if named else "[data] source"
        do = "Take it out: each site names its own rows in its site.toml"
        raise KitError("the server's pilot.toml names data, and has no use for it", where=path, found=where, do=do)
    return experiment
