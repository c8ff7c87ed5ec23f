"""What no single field can know: rules across fields, each a pure function from experiment to problems."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS, settings_problems
from fedloom.spec.churn_rules import problems_of_churn
from fedloom.spec.experiment import ColumnsTable, Experiment
from fedloom.spec.planning_rules import problems_of_planning
from fedloom.spec.pointless import COLUMNS_OF, pointless
from fedloom.spec.privacy_rules import problems_of_privacy
from fedloom.spec.problem import Path, Problem, nearest
from fedloom.spec.robust_rules import problems_of_robust_rules
from fedloom.spec.secure_rules import problems_of_secure_sums

Rule = Callable[[Experiment], list[Problem]]


def problems_of(experiment: Experiment, *, data_at_sites: bool = False) -> list[Problem]:
    """Everything that the rules find. data_at_sites: whether clients may lack data, as sites name their own."""
    rules = (rule for rule in RULES if not (data_at_sites and rule is data_for_everyone))
    return [problem for rule in rules for problem in rule(experiment)]


def unique_clients(experiment: Experiment) -> list[Problem]:
    """Two clients cannot have one name."""
    first: dict[str, int] = {}
    return [
        Problem(
            ("clients", index, "name"), f"{client.name!r} is the name of client number {first[client.name] + 1} already"
        )
        for index, client in enumerate(experiment.clients)
        if first.setdefault(client.name, index) != index
    ]


def each_tracker_once(experiment: Experiment) -> list[Problem]:
    """A tracker that is named twice would have every point twice."""
    twice = [name for name, times in Counter(experiment.tracking.to).items() if times > 1]
    return [Problem(("tracking", "to"), f"names {name!r} more than once; expected each tracker once") for name in twice]


def known_participants(experiment: Experiment) -> list[Problem]:
    """[rounds] clients names clients that are there."""
    names = [client.name for client in experiment.clients]
    chosen = experiment.rounds.clients
    if chosen is not None and not chosen:
        return [Problem(("rounds", "clients"), "expected at least one name, found none; leave it out for all clients")]
    return [
        Problem(
            ("rounds", "clients"),
            f"there is no client {name!r}; expected some of {', '.join(names)}{nearest(name, names)}",
        )
        for name in chosen or ()
        if name not in names
    ]


def enough_clients(experiment: Experiment) -> list[Problem]:
    """A round must be able to reach rounds.min_clients."""
    rounds, clients = experiment.rounds, len(experiment.active)
    # Nine digits: 0.1 * 30 lies a rounding error above the whole number that is meant.
    drawn = math.ceil(float(f"{rounds.participation * clients:.9g}"))
    if not clients or rounds.min_clients <= drawn:
        return []
    message = f"expected at most {drawn}, as {clients} clients at participation {rounds.participation} give; "
    return [Problem(("rounds", "min_clients"), message + f"found {rounds.min_clients}")]


def positive_ranks(experiment: Experiment) -> list[Problem]:
    """Every rank of a pattern is at least 1, or 0 for a layer that is not trained."""
    message = "expected a rank of at least 1, or 0 for layers that this client does not train; found"
    return [
        Problem(("clients", index, "rank_pattern", pattern), f"{message} {rank}")
        for index, client in enumerate(experiment.clients)
        for pattern, rank in client.rank_pattern.items()
        if rank < 0
    ]


def known_method(experiment: Experiment) -> list[Problem]:
    """The method is one of the registry, and its settings are its own."""
    name = experiment.method.name
    if name not in METHODS:
        message = f"there is no method {name!r}; expected one of {', '.join(METHODS)}{nearest(name, METHODS)}"
        return [Problem(("method", "name"), message)]
    settings = experiment.method.settings
    return [
        Problem(("method", key), line)
        for key, value in settings.items()
        for line in settings_problems(METHODS[name], {key: value})
    ]


def ranks_the_method_accepts(experiment: Experiment) -> list[Problem]:
    """Unequal ranks need a method that declares the law of unequal ranks; to leave a layer out is no other rank."""
    method = METHODS.get(experiment.method.name)
    ranks = {
        (client.rank, *sorted((pattern, rank) for pattern, rank in client.rank_pattern.items() if rank > 0))
        for client in experiment.active
        if client.rank != "auto"
    }
    if method is None or Law.UNEQUAL_RANKS in method.laws or len(ranks) <= 1:
        return []
    accepting = [name for name, other in METHODS.items() if Law.UNEQUAL_RANKS in other.laws]
    found = ", ".join(f"{client.name} {client.rank}" for client in experiment.active)
    message = f"{method.name} needs clients of one rank, found {found}; give them one, or use {', '.join(accepting)}"
    return [Problem(("method", "name"), message)]


def data_for_everyone(experiment: Experiment) -> list[Problem]:
    """Each client has data of its own, or all share [data] source; never both."""
    common = experiment.data.source is not None
    own = "has data of its own, and [data] source divides one source among all clients; keep one of the two"
    none = "has no data; expected data = a file, hf:<data set> or docstrings:<package>, or one [data] source for all"
    return [
        Problem(("clients", index, "data"), own if common else none)
        for index, client in enumerate(experiment.clients)
        if (client.data is not None) == common
    ]


def partition_column(experiment: Experiment) -> list[Problem]:
    """Dividing by a column needs the column."""
    partition = experiment.data.partition
    if experiment.data.source is None or partition.kind == "iid" or partition.column is not None:
        return []
    message = f"missing; the kind {partition.kind} divides by the values of a column: give its name"
    return [Problem(("data", "partition", "column"), message)]


def one_kind_of_columns(experiment: Experiment) -> list[Problem]:
    """A chat is not also a prompt and a response."""
    found = []
    for path, columns in _columns(experiment):
        beside = [key for key in ("prompt", "context", "response") if getattr(columns, key) is not None]
        if columns.messages is not None and beside:
            message = f"cannot be given together with {', '.join(beside)}; keep the chat or the single columns"
            found.append(Problem((*path, "messages"), message))
    return found


def one_role_for_a_column(experiment: Experiment) -> list[Problem]:
    """A response that is also the prompt would give itself away."""
    found = []
    for path, columns in _columns(experiment):
        roles: dict[str, str] = {}
        for role in COLUMNS_OF[experiment.model.task]:
            column = getattr(columns, role)
            if column is not None and (first := roles.setdefault(column, role)) != role:
                message = f"the column {column!r} is the {first} already; give each a column of its own"
                found.append(Problem((*path, role), message))
    return found


def distinct_labels(experiment: Experiment) -> list[Problem]:
    """Classes are at least two, and different."""
    labels = experiment.model.labels
    if labels is None:
        return []
    twice = [label for label, count in Counter(labels).items() if count > 1]
    few = [Problem(("model", "labels"), f"expected at least 2 classes, found {len(labels)}")] if len(labels) < 2 else []
    return few + [Problem(("model", "labels"), f"the class {label!r} is there more than once") for label in twice]


def some_target(experiment: Experiment) -> list[Problem]:
    """A list of targets names something."""
    targets = experiment.lora.targets
    if targets == "auto" or (targets and all(targets)):
        return []
    return [Problem(("lora", "targets"), "expected auto, or the names of at least one layer; found an empty one")]


def finite_numbers(experiment: Experiment) -> list[Problem]:
    """TOML has inf and nan; no field means them."""
    return [
        Problem(path, f"expected a finite number, found {value}")
        for path, value in _leaves(experiment, ())
        if isinstance(value, float) and not math.isfinite(value)
    ]


def keys_that_count(experiment: Experiment) -> list[Problem]:
    """A key that means nothing here is not silently ignored."""
    return [Problem(path, why) for path, why in pointless(experiment).items() if _is_given(experiment, path)]


def whole_promise(experiment: Experiment) -> list[Problem]:
    """[privacy] says all that a promise needs, and nothing in the run breaks it."""
    return problems_of_privacy(experiment)


def what_is_planned(experiment: Experiment) -> list[Problem]:
    """What is left to the planner can be planned, and batches make whole steps."""
    return problems_of_planning(experiment)


def secure_sums(experiment: Experiment) -> list[Problem]:
    """Secure aggregation has what it needs."""
    return problems_of_secure_sums(experiment)


def robust_rules(experiment: Experiment) -> list[Problem]:
    """[robust] sees what it compares."""
    return problems_of_robust_rules(experiment)


def coming_and_going(experiment: Experiment) -> list[Problem]:
    """Clients that join and leave, or are asked beyond those that are wanted, leave rounds that can be."""
    return problems_of_churn(experiment)


def models_of_their_own(experiment: Experiment) -> list[Problem]:
    """Where clients go on from their own, nothing of the server's is stepped, and what they send is no change."""
    method = METHODS.get(experiment.method.name)
    if method is None or not method.resumes:
        return []
    problems = []
    if experiment.server.optimizer not in ("auto", "none"):
        why = f"{method.name} leaves no global model that it could step; expected none, found "
        problems.append(Problem(("server", "optimizer"), why + experiment.server.optimizer))
    if experiment.wire.up != "float32":
        why = f"clients of {method.name} go on from their exact factors, of which the server would have rounded ones; "
        problems.append(Problem(("wire", "up"), f"{why}expected float32, found {experiment.wire.up}"))
    return problems


RULES: tuple[Rule, ...] = (
    unique_clients,
    each_tracker_once,
    known_participants,
    enough_clients,
    positive_ranks,
    known_method,
    ranks_the_method_accepts,
    what_is_planned,
    data_for_everyone,
    partition_column,
    one_kind_of_columns,
    one_role_for_a_column,
    distinct_labels,
    some_target,
    whole_promise,
    finite_numbers,
    keys_that_count,
    secure_sums,
    robust_rules,
    coming_and_going,
    models_of_their_own,
)


def _columns(experiment: Experiment) -> Iterator[tuple[Path, ColumnsTable]]:
    yield ("data", "columns"), experiment.data.columns
    for index, client in enumerate(experiment.clients):
        if client.columns is not None:
            yield ("clients", index, "columns"), client.columns


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every value that is no table, with its path."""
    if isinstance(value, BaseModel):
        parts = [*value]  # pairs of name and value, extra ones too
    elif isinstance(value, tuple):
        parts = [*enumerate(value)]
    else:
        yield path, value
        return
    for name, part in parts:
        yield from _leaves(part, (*path, name))


def _is_given(experiment: Experiment, path: Path) -> bool:
    """Whether the user set this key, to something that would have an effect."""
    table: Any = experiment
    for part in path[:-1]:
        table = table[part] if isinstance(part, int) else getattr(table, part)
    name = str(path[-1])
    return name in table.model_fields_set and getattr(table, name) not in (None, 0)
