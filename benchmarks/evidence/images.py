"""Digits: a small ViT pretrained without classes, over ten clients that each see one or two of the ten digits.

Ranks are the fractions 0.1 to 1.0 of a layer's width, as in RBLA's evaluation; all weights trained are the reference.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import digits
from digits import CLASSES, PRETEXT_STEPS, TASK, WIDTH, digit_rows, encoded, pretrained_base

from evidence.full import full_fine_tuning
from evidence.suite import NO_WORK, Problem, Setting, Suite
from evidence.tiny import QUICK
from evidence.tuning import Grid
from evidence.variants import every_method
from fedloom.data.batches import Row
from fedloom.engine.sites import Site, Sites, load_sites
from fedloom.spec.experiment import ClientTable, DataTable, Experiment, ModelTable, RoundsTable

CLIENTS = 10
RANKS = tuple(round(WIDTH * fraction / CLIENTS) for fraction in range(1, CLIENTS + 1))
PRETEXT_STEPS_OF = {"digits": PRETEXT_STEPS, QUICK: 2}
ONE, TWO = "digits, one each", "digits, two each"


def problem(_: Path, setting: Setting, seed: int) -> Problem:
    """The same rows for every contender of a seed. Each client judges a share of the test rows, drawn from all digits.

    No directory of data is needed: the images come with scikit-learn.
    """
    sites, test = _loaded(replace(setting, **NO_WORK), seed)
    tests = {client: _tested(test[number::CLIENTS]) for number, client in enumerate(sites.by_client)}
    return Problem(experiment(setting, seed), sites, tests)


def experiment(setting: Setting, seed: int) -> Experiment:
    """The federation as a user would write it, without method and rate."""
    folder = Path(_written(setting.data, seed).name)
    return Experiment(
        name="evidence",
        seed=seed,
        model=ModelTable(id=str(_base(setting.model, seed)), task=TASK, dtype="float32", labels=CLASSES),
        training=setting.training,
        rounds=RoundsTable(participation=setting.participation),
        data=DataTable(holdout=0.2, max_rows=setting.rows_per_client),
        clients=tuple(
            ClientTable(name=f"client-{number}", data=str(folder / f"client-{number}.jsonl"), rank=rank)
            for number, rank in enumerate(setting.ranks)
        ),
    )


@lru_cache(maxsize=6)
def _loaded(setting: Setting, seed: int) -> tuple[Sites, list[Row]]:
    """Once per process and seed."""
    sites = load_sites(experiment(setting, seed))
    return sites, encoded(sites.base, digit_rows(seed)["test"])


def _tested(rows: Sequence[Row]) -> Site:
    return Site(train=(), held_out=rows, questions=(), dropped=0, digest="")


@cache
def _base(model: str, seed: int) -> Path:
    """The pretrained model, kept for later processes as long as digits.py stays as it is."""
    version = hashlib.sha256(Path(digits.__file__).read_bytes()).hexdigest()[:12]
    place = Path(tempfile.gettempdir()) / "fedloom-digits" / f"{version}-{model}-{seed}"
    if not place.exists():
        place.parent.mkdir(exist_ok=True)
        made = tempfile.mkdtemp(dir=place.parent)
        pretrained_base(Path(made), seed, PRETEXT_STEPS_OF[model])
        # Another process may have been faster; both are the same.
        with contextlib.suppress(OSError):
            os.rename(made, place)
    return place


@cache
def _written(share: str, seed: int) -> tempfile.TemporaryDirectory[str]:
    """A folder with the rows of every client; it is there as long as this process."""
    written = tempfile.TemporaryDirectory()
    for number, rows in enumerate(shares(digit_rows(seed)["train"], labels=1 if share == ONE else 2)):
        path = Path(written.name) / f"client-{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return written


def shares(rows: Sequence[Mapping], labels: int) -> list[list[Mapping]]:
    """Client k gets the digits k .. k + labels - 1 (mod 10); a digit of several clients is divided among them."""
    by_label = {label: [row for row in rows if row["label"] == label] for label in CLASSES}
    return [
        [row for part in range(labels) for row in by_label[CLASSES[(number + part) % CLIENTS]][part::labels]]
        for number in range(CLIENTS)
    ]


WHAT = (
    "A ViT of width 64, pretrained on turned digits without their classes; scikit-learn's digits over ten clients of "
    "about 77 training rows, ranks 0.1 to 1.0 of the width."
)
ONE_EACH = Setting(
    what=f"{WHAT} One digit each, 20 rounds of 5 steps of 16 rows.",
    model="digits",
    data=ONE,
    rows_per_client=1000,
    max_tokens=512,
    rounds=20,
    local_steps=5,
    batch_size=16,
    ranks=RANKS,
    head_rate=1e-2,
)
SETTINGS = {
    "one": ONE_EACH,
    "two": replace(ONE_EACH, what=f"{WHAT} Two digits each, 20 rounds of 5 steps of 16 rows.", data=TWO),
    "two-few": replace(
        ONE_EACH, what=f"{WHAT} Two digits each, 20 rounds of 2 steps of 16 rows.", data=TWO, local_steps=2
    ),
    "two-absent": replace(
        ONE_EACH,
        what=f"{WHAT} Two digits each, 20 rounds of 5 steps, half of the clients absent.",
        data=TWO,
        participation=0.5,
    ),
}


def _variants() -> list[str]:
    usual = ["loom", "rbla", "zeropad", "flora", "flexlora", "full", "central@64", "local", "rbla:min_owners=2"]
    return list(dict.fromkeys([*usual, *every_method(32)]))


SUITE = Suite(
    name="images",
    metric="accuracy",
    grid=Grid(rates=(2.5e-3, 6.2e-3, 1.6e-2)),
    settings=SETTINGS,
    variants=dict.fromkeys(SETTINGS, _variants()),
    problem=problem,
    references={"full": full_fine_tuning},
)
