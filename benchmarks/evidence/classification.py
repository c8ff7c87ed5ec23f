"""Intents of bank customers: MiniLM-L6 on banking77, 77 classes over ten clients that each see some of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

from evidence.suite import NO_WORK, Problem, Setting, Suite
from evidence.tuning import Grid
from evidence.variants import every_method
from fedloom.data.columns import examples_of
from fedloom.data.examples import Example
from fedloom.data.sources import read_rows
from fedloom.data.tokens import Encoded, encode_all
from fedloom.engine.sites import Site, Sites, load_sites
from fedloom.spec.experiment import (
    ClientTable,
    ColumnsTable,
    DataTable,
    Experiment,
    ModelTable,
    PartitionTable,
    RoundsTable,
)

COLUMNS = ColumnsTable(text="text", label="category")
TEST_SEED = 0
FIRST = ("loom", "flora", "fedit@16", "rbla", "flexlora", "zeropad", "central@16")
RBLA = ("rbla:min_owners=2", "rbla:min_owners=3", "rbla:min_owners=2,lonely=shrink")
LOOM = tuple(f"loom:directions={rule}" for rule in ("top", "half", "rotating", "fresh", "covering"))


def problem(data: Path, setting: Setting, seed: int) -> Problem:
    """The same rows for every contender of a seed; the test rows are the same for every seed, too.

    Each client holds a share of the test rows, drawn regardless of its classes: one model for all is judged on every
    row once, and models of clients alone on what all clients see, not on what they know.
    """
    # Neither the work nor the participation change what is loaded.
    sites = _sites(data, replace(setting, **NO_WORK), seed)
    encoded = _test_rows(data, setting, sites)
    clients = list(sites.by_client)
    tests = {client: _tested(encoded[number :: len(clients)]) for number, client in enumerate(clients)}
    return Problem(experiment(data, setting, seed), sites, tests)


def experiment(data: Path, setting: Setting, seed: int) -> Experiment:
    """The federation as a user would write it, without method and rate."""
    return Experiment(
        name="evidence",
        seed=seed,
        model=ModelTable(id=setting.model, task="classification"),
        training=setting.training,
        rounds=RoundsTable(participation=setting.participation),
        data=DataTable(
            source=str(data / setting.data / "train.csv"),
            columns=COLUMNS,
            partition=PartitionTable(kind="dirichlet", column="category", alpha=0.3),
            holdout=0.2,
            max_rows=setting.rows_per_client,
        ),
        clients=tuple(ClientTable(name=f"client-{number:02}", rank=rank) for number, rank in enumerate(setting.ranks)),
    )


@lru_cache(maxsize=3)
def _sites(data: Path, setting: Setting, seed: int) -> Sites:
    """Loaded once per process and seed."""
    return load_sites(experiment(data, setting, seed))


def _tested(rows: Sequence[Encoded]) -> Site:
    return Site(train=(), held_out=rows, questions=(), dropped=0, digest="")


def _test_rows(data: Path, setting: Setting, sites: Sites) -> list[Encoded]:
    numbers = {label: number for number, label in enumerate(sites.labels)}
    examples = _test_examples(str(data / setting.data / "test.csv"), sites.labels)
    drawn = random.Random(TEST_SEED).sample(examples, min(setting.test_rows, len(examples)))
    return encode_all(drawn, sites.base.tokenizer, sites.max_tokens, numbers, client="test")


@cache
def _test_examples(source: str, labels: tuple[str, ...]) -> list[Example]:
    rows = read_rows(source, client="test")
    return examples_of(rows, COLUMNS, "classification", source=source, client="test", labels=labels)


WHAT = (
    "MiniLM-L6 on Banking77: ten clients, Dirichlet 0.3 over 77 classes, 400 training rows each, ranks 64, 32, 16, 16, "
    "8, 8, 4, 4, 4, 4 (16 for all: @16), 1,000 test rows. 10 rounds of"
)
MAIN = Setting(
    what=f"{WHAT} 20 steps of 4 rows.",
    model="minilm-l6",
    data="banking77",
    rows_per_client=500,
    max_tokens=64,
    rounds=10,
    local_steps=20,
    batch_size=4,
    ranks=(64, 32, 16, 16, 8, 8, 4, 4, 4, 4),
    test_rows=1000,
)
SETTINGS = {
    "main": MAIN,
    "few": replace(MAIN, what=f"{WHAT} 4 steps of 8 rows.", local_steps=4, batch_size=8),
    "absent": replace(MAIN, what=f"{WHAT} 20 steps of 4 rows, half of the clients absent.", participation=0.5),
}


def _variants() -> list[str]:
    usual = [*FIRST, "local", "central@64", *RBLA, *LOOM, *every_method(16), "local@16"]
    return list(dict.fromkeys(usual))


SUITE = Suite(
    name="classification",
    metric="accuracy",
    grid=Grid(rates=(2.5e-3, 6.2e-3, 1.6e-2)),
    settings=SETTINGS,
    # A client alone does not notice who is absent.
    variants={name: [label for label in _variants() if name != "absent" or "local" not in label] for name in SETTINGS},
    problem=problem,
)
