"""The base model at a server, for what a user takes home: answers, and PEFT directories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedloom.engine.events import silent
from fedloom.engine.run import LocalHost
from fedloom.engine.sites import Sites, base_of_run
from fedloom.errors import ModelError, NotAtHandError
from fedloom.spec.experiment import Experiment


def base_at_hand(experiment: Experiment, facts: Mapping[str, Any]) -> LocalHost:
    """A host without clients, whose base answers and is exported on.

    Raises: NotAtHandError where the model is not here; WrongBaseError where its weights are others.
    """
    try:
        base = base_of_run(experiment, facts, where="this server")
    except ModelError as error:
        raise NotAtHandError("the base model is not at hand", where="this server", found=str(error)) from error
    sites = Sites(base, tuple(facts["labels"]), experiment.training.max_tokens)
    return LocalHost(sites, silent, experiment.evaluation.max_new_tokens)
