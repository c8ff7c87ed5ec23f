"""A suite: one kind of problem in a few settings, who is compared there, and how a result counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from evidence.cells import Cell, Metrics
from evidence.tuning import Grid, Score
from evidence.variants import CLIENTS, Variant
from fedloom.engine.sites import Site, Sites
from fedloom.spec.experiment import ClientTable, Experiment, TrainingTable

ALL = "all"
# What does not change which rows are loaded.
NO_WORK: dict[str, Any] = {"what": "", "rounds": 1, "local_steps": 1, "batch_size": 1, "participation": 1.0}


@dataclass(frozen=True)
class Setting:
    """A federation in numbers. what: for people.  model: id or path.  data: folder of the data sets' directory.

    rows_per_client: with those held out.  test_rows: in all; 0: half of the rows held out.  max_tokens: of an example.
    ranks: one for each client.  participation: share of the clients in a round.  generate_rows: test rows per client
    that are answered, for ROUGE.  head_rate: learning rate of the head, the same for everyone.  held_out: share of a
    client's rows.
    """

    what: str
    model: str
    data: str
    rows_per_client: int
    max_tokens: int
    rounds: int
    local_steps: int
    batch_size: int
    ranks: tuple[int, ...]
    test_rows: int = 0
    participation: float = 1.0
    generate_rows: int = 0
    head_rate: float = 0.1
    held_out: float = 0.2

    @property
    def training(self) -> TrainingTable:
        """The work of the clients, without the rate of the factors; the head's is the same for everyone."""
        return TrainingTable(
            rounds=self.rounds,
            local_steps=self.local_steps,
            batch_size=self.batch_size,
            head_learning_rate=self.head_rate,
            max_tokens=self.max_tokens,
        )

    @property
    def recipe(self) -> str:
        """Every number of the setting: cells of another recipe are not mixed with these."""
        numbers = {name: value for name, value in asdict(self).items() if name != "what"}
        if numbers["held_out"] == 0.2:
            del numbers["held_out"]  # it came later: what was measured before stays what it is
        return ", ".join(f"{name} {value}" for name, value in numbers.items())


@dataclass(frozen=True)
class Problem:
    """A federation that can be trained and judged.

    experiment: without method and rates.  sites: the clients' rows; those held out choose the learning rate.
    tests: client -> its share of the rows that only the result is measured on.
    each_client: whether the test scores of every client are kept, as "test_loss|CLIENT".
    """

    experiment: Experiment
    sites: Sites
    tests: Mapping[str, Site]
    each_client: bool = False


@dataclass(frozen=True)
class Suite:
    """metric: "accuracy" (higher is better) or "loss" (lower).  variants: setting -> labels, the most telling first.

    reference: what the others are compared with.  references: contenders that the engine cannot train, by label.
    heads: whether its models have a classifier's head.
    """

    name: str
    metric: str
    grid: Grid
    settings: Mapping[str, Setting]
    variants: Mapping[str, Sequence[str]]
    problem: Callable[[Path, Setting, int], Problem]
    reference: str = "loom"
    references: Mapping[str, Callable[[Problem, float], dict[str, float]]] = field(default_factory=dict)
    heads: bool = True

    def score(self, metrics: Metrics) -> Score:
        """How a training did on validation rows, higher is better; a failed one is below all others."""
        if not metrics:
            return (-math.inf,)
        loss = -metrics["validation_loss"]
        return (metrics["validation_accuracy"], loss) if self.metric == "accuracy" else (loss,)

    def cell(self, setting: str, variant: Variant) -> Cell:
        """A contender in a setting, before any rate and seed."""
        chosen = self.settings[setting]
        # The server's own optimizer goes by the clients of a round; all tables so far were made with that for ten.
        clients = math.ceil(round(chosen.participation * CLIENTS, 9))
        return Cell(self.name, setting, chosen.recipe, variant.identity(clients, self.heads), 0.0, 0)


def centralised(problem: Problem, rank: int) -> Problem:
    """All rows at one client of this rank, in one round, with as many passes over examples as the federation makes."""
    experiment, sites = problem.experiment, problem.sites
    clients, training = len(experiment.clients), experiment.training
    participants = math.ceil(round(experiment.rounds.participation * clients, 9))
    steps = training.rounds * participants * training.local_steps
    answers = experiment.evaluation.generate_rows
    update = {
        "evaluation": experiment.evaluation.model_copy(update={"generate_rows": answers * clients}),
        "clients": (ClientTable(name=ALL, data=experiment.clients[0].data, rank=rank),),
        "training": training.model_copy(update={"rounds": 1, "local_steps": steps}),
        "rounds": experiment.rounds.model_copy(update={"participation": 1.0}),
    }
    return Problem(
        experiment.model_copy(update=update),
        replace(sites, by_client={ALL: together(sites.by_client.values())}),
        {ALL: together(problem.tests.values(), answers)},
    )


def together(sites: Iterable[Site], questions: int = 0) -> Site:
    """The rows of several sites as one. questions: of each site, how many held-out rows may be answered."""
    parts = list(sites)
    return Site(
        train=[row for part in parts for row in part.train],
        held_out=[row for part in parts for row in part.held_out],
        questions=[row for part in parts for row in part.questions[:questions]],
        dropped=sum(part.dropped for part in parts),
        digest="",
    )
