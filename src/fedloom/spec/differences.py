"""In which keys two experiments differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fedloom.spec.experiment import Experiment

_ABSENT = object()


def differences(old: Experiment, new: Experiment) -> list[str]:
    """One text for each key that differs, such as `training.local_steps was 10 and is 20`; clients by their names."""
    before, after = dict(_flat(_by_client(old), "")), dict(_flat(_by_client(new), ""))
    return [
        f"{path} was {_shown(before.get(path, _ABSENT))} and is {_shown(after.get(path, _ABSENT))}"
        for path in [*before, *(path for path in after if path not in before)]
        if before.get(path, _ABSENT) != after.get(path, _ABSENT)
    ]


def _by_client(experiment: Experiment) -> dict[str, Any]:
    table = experiment.model_dump()
    clients = {client["name"]: client for client in table["clients"]}
    order = [client["name"] for client in table["clients"]]
    return table | {"clients": clients, "order of clients": order}


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        yield path, value
        return
    for name, part in value.items():
        yield from _flat(part, f"{path}.{name}" if path else str(name))


def _shown(value: Any) -> str:
    return "not there" if value is _ABSENT else repr(value)
