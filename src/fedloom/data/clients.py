"""What each client has: examples to train on and examples held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedloom import rng
from fedloom.data.canaries import Canary, planted
from fedloom.data.columns import examples_of
from fedloom.data.examples import Classification, Example, Generation, Labelled
from fedloom.data.partition import partition
from fedloom.data.sources import read_rows, source_folder
from fedloom.errors import DataError
from fedloom.spec.experiment import Experiment


@dataclass(frozen=True)
class ClientData:
    """One client's examples. dropped: rows that were left out because a text or an image in them is empty.

    canaries: made-up rows for an audit; those that are included are the last of `train`, and none is held out.
    """

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    dropped: int = 0
    canaries: tuple[Canary, ...] = ()

    def digest(self) -> str:
        """SHA-256 over all examples in order, and over which of them are held out."""
        return hashlib.sha256(repr((self.train, self.held_out)).encode()).hexdigest()


class Sources:
    """The rows of an experiment, each source read once and each client only when it is asked for."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._clients: dict[str, ClientData] = {}
        self._shared: tuple[list[dict[str, Any]], dict[str, list[int]]] | None = None

    def client(self, name: str) -> ClientData:
        """Raises: DataError that names the client; KeyError for a name that is not in the experiment."""
        if name not in self._clients:
            self._clients[name] = self._load(name)
        return self._clients[name]

    def _load(self, name: str) -> ClientData:
        experiment = self.experiment
        rows, numbers, source = self._rows(name)
        examples = examples_of(
            rows,
            experiment.client(name).columns or experiment.data.columns,
            experiment.model.task,
            source=source,
            client=name,
            numbers=numbers,
            labels=experiment.model.labels,
            folder=source_folder(source),
        )
        dropped = len(rows) - len(examples)
        kept = _drawn(examples, experiment.data.max_rows, rng.child(experiment.seed, "max_rows", name))
        seed = rng.child(experiment.seed, "held_out", name)
        train, held_out = split(kept, experiment.data.holdout, seed, where=f"client {name!r}, {source}")
        canaries = planted(experiment, name, [item.label for item in kept if isinstance(item, Labelled)])
        included = tuple(canary.example for canary in canaries if canary.included)
        return ClientData((*train, *included), held_out, dropped, canaries)

    def _rows(self, name: str) -> tuple[list[dict[str, Any]], list[int] | None, str]:
        """A client's rows, their numbers in the source where it has only a share of it, and the source."""
        own = self.experiment.client(name).data
        if own is not None:
            return read_rows(own, client=name), None, own
        shared = self.experiment.data.source
        if shared is None:
            raise DataError("no data", where=f"client {name!r}", do="Give it data, or all clients a source in [data]")
        rows, shares = self._divided(shared)
        return [rows[position] for position in shares[name]], [position + 1 for position in shares[name]], shared

    def _divided(self, source: str) -> tuple[list[dict[str, Any]], dict[str, list[int]]]:
        """The common source and its partition among the clients without data of their own."""
        if self._shared is None:
            # By name, so that the order in the file plays no part.
            sharing = sorted(client.name for client in self.experiment.clients if client.data is None)
            rows = read_rows(source, client=" and ".join(sharing) if len(sharing) < 4 else f"{len(sharing)} clients")
            self._shared = rows, partition(rows, sharing, self.experiment.data.partition, self.experiment.seed)
        return self._shared


def load_client(experiment: Experiment, name: str) -> ClientData:
    """One client's data alone, for a process that serves only this client. Raises: as `Sources.client`."""
    return Sources(experiment).client(name)


def labels(experiment: Experiment, sources: Sources) -> tuple[str, ...]:
    """The class names: those of [model] in their order, or else the sorted union over the active clients.

    Where [model] names them, no client is read here: each client's rows are held to them when it is loaded.
    Raises: DataError for a client that cannot be loaded, or where all rows are of one class.
    """
    if experiment.model.labels is not None:
        return experiment.model.labels
    found: set[str] = set()
    for client in experiment.expected:
        data = sources.client(client.name)
        found |= {item.label for item in (*data.train, *data.held_out) if isinstance(item, Labelled)}
    if len(found) < 2:
        raise DataError("the clients' rows have fewer than two labels", expected="at least 2", found=sorted(found))
    return tuple(sorted(found))


def split(
    examples: Sequence[Example], share: float, seed: int, *, where: str
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(train, held out): about `share` of the examples are held out, at least one; order is kept.

    Examples that ask the same thing stay together, so that nothing held out was seen in training.
    Raises: DataError where all examples are the same.
    """
    groups = _groups(examples)
    if len(groups) < 2:
        raise DataError(
            "all usable rows are the same", where=where, expected="at least 2 different", found=len(examples)
        )
    target = max(1, round(share * len(examples)))
    held: set[int] = set()
    order = np.random.default_rng(seed).permutation(len(groups))
    for group in (groups[index] for index in order):
        if len(held) + len(group) <= min(target, len(examples) - 1):
            held.update(group)
    if not held:  # every group is larger than the target
        smallest: list[int] = min(groups, key=len)
        held.update(smallest)
    train = tuple(item for position, item in enumerate(examples) if position not in held)
    return train, tuple(item for position, item in enumerate(examples) if position in held)


def _groups(examples: Sequence[Example]) -> list[list[int]]:
    """Positions of examples with one prompt or text; of equal examples where they all ask the same."""
    for key in (_asked, lambda example: example):
        groups: dict[Any, list[int]] = {}
        for position, example in enumerate(examples):
            groups.setdefault(key(example), []).append(position)
        if len(groups) > 1:
            break
    return list(groups.values())


def _asked(example: Example) -> object:
    if isinstance(example, Generation):
        return example.prompt_messages
    return example.text if isinstance(example, Classification) else example.image


def _drawn(examples: list[Example], count: int | None, seed: int) -> list[Example]:
    if count is None or count >= len(examples):
        return examples
    chosen = np.random.default_rng(seed).choice(len(examples), count, replace=False)
    return [examples[position] for position in sorted(map(int, chosen))]
