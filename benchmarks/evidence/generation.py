"""Text: SmolLM2-135M on eight tasks of Natural Instructions, one per client, and on ten sites of Dolly.

The held-out rows of every client are halved: one half chooses the rate, the other is the test.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from evidence.suite import NO_WORK, Problem, Setting, Suite
from evidence.tuning import Grid
from fedloom.engine.sites import Site, Sites, load_sites
from fedloom.errors import DataError
from fedloom.spec.experiment import (
    ClientTable,
    ColumnsTable,
    DataTable,
    EvaluationTable,
    Experiment,
    ModelTable,
    RoundsTable,
)

INSTRUCTIONS, DOLLY = "natural_instructions", "dolly15k_fed10"
COLUMNS = {
    INSTRUCTIONS: ColumnsTable(prompt="prompt", response="response"),
    DOLLY: ColumnsTable(prompt="instruction", context="context", response="response"),
}
VARIANTS = ("central@4", "central@64", "loom", "flora", "fedit@16", "rbla", "flexlora", "zeropad", "raflora", "local")


def problem(data: Path, setting: Setting, seed: int) -> Problem:
    """The same rows for every contender of a seed."""
    sites, tests = _halved(data, replace(setting, **NO_WORK), seed)
    return Problem(experiment(data, setting, seed), sites, tests)


def experiment(data: Path, setting: Setting, seed: int) -> Experiment:
    """The federation as a user would write it, without method and rate."""
    return Experiment(
        name="evidence",
        seed=seed,
        model=ModelTable(id=setting.model),
        training=setting.training,
        rounds=RoundsTable(participation=setting.participation),
        data=DataTable(columns=COLUMNS[setting.data], holdout=setting.held_out, max_rows=setting.rows_per_client),
        evaluation=EvaluationTable(generate_rows=setting.generate_rows, max_new_tokens=32),
        clients=tuple(
            ClientTable(name=path.stem, data=str(path), rank=rank)
            for path, rank in zip(_files(data, setting), setting.ranks, strict=True)
        ),
    )


def _files(data: Path, setting: Setting) -> list[Path]:
    if setting.data == INSTRUCTIONS:
        return sorted(Path(_as_rows(data / INSTRUCTIONS).name).glob("*.jsonl"))
    return sorted((data / setting.data).glob("local_training_*.json"))


@cache
def _as_rows(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """The tasks as rows of prompt and response: definition and input, and the first of the accepted outputs."""
    written = tempfile.TemporaryDirectory()
    for path in sorted(folder.glob("task*.json")):
        task = json.loads(path.read_text(encoding="utf-8"))
        rows = [_row(task["Definition"][0], instance) for instance in task["Instances"]]
        target = Path(written.name) / f"{path.stem.split('_')[0]}.jsonl"
        target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return written


def _row(definition: str, instance: dict[str, Any]) -> dict[str, str]:
    return {"prompt": f"{definition}\n\n{instance['input']}", "response": instance["output"][0]}


@lru_cache(maxsize=2)
def _halved(data: Path, setting: Setting, seed: int) -> tuple[Sites, dict[str, Site]]:
    """Sites whose held-out rows are the first half, and the other half by client. Loaded once per process and seed."""
    wanted = experiment(data, setting, seed)
    sites = load_sites(_with_all_questions(wanted))
    validation = {client: _half(site, 0) for client, site in sites.by_client.items()}
    return replace(sites, by_client=validation), {client: _half(site, 1) for client, site in sites.by_client.items()}


def _with_all_questions(wanted: Experiment) -> Experiment:
    """Keep the text of every held-out row, as it is not known yet which of them the test gets."""
    evaluation = wanted.evaluation.model_copy(update={"generate_rows": wanted.evaluation.max_rows})
    return wanted.model_copy(update={"evaluation": evaluation})


def _half(site: Site, which: int) -> Site:
    if len(site.questions) != len(site.held_out):
        raise DataError("a held-out row has no answer", expected=len(site.questions), found=len(site.held_out))
    return replace(site, held_out=site.held_out[which::2], questions=site.questions[which::2])


FULL = Setting(
    what="SmolLM2-135M on eight tasks of Natural Instructions, one per client, 240 training rows each (80 of the "
    "smallest), ranks 64, 32, 16, 16, 8, 8, 4, 4. 5 rounds of 20 steps of 8 rows.",
    model="smollm2-135m-instruct",
    data=INSTRUCTIONS,
    rows_per_client=300,
    max_tokens=256,
    rounds=5,
    local_steps=20,
    batch_size=8,
    ranks=(64, 32, 16, 16, 8, 8, 4, 4),
    generate_rows=8,
)
SMALL = replace(
    FULL,
    what="SmolLM2-135M on eight tasks of Natural Instructions, one per client, 80 training rows each, "
    "3 rounds of 4 steps of 4 rows.",
    rows_per_client=100,
    max_tokens=192,
    rounds=3,
    local_steps=4,
    batch_size=4,
    generate_rows=0,
)
DOLLY_RANKS = (64, 32, 16, 16, 8, 8, 4, 4, 4, 4)
SETTINGS = {
    "instructions": FULL,
    "dolly": replace(
        FULL,
        what="SmolLM2-135M on Dolly, ten sites non-IID by category, 240 training rows each, "
        "ranks 64, 32, 16, 16, 8, 8, 4, 4, 4, 4. 5 rounds of 20 steps of 8 rows.",
        data=DOLLY,
        ranks=DOLLY_RANKS,
    ),
    "instructions-small": SMALL,
    "dolly-small": replace(
        SMALL,
        what="SmolLM2-135M on Dolly, ten sites non-IID by category, 80 training rows each, "
        "3 rounds of 4 steps of 4 rows.",
        data=DOLLY,
        ranks=DOLLY_RANKS,
    ),
}

SUITE = Suite(
    name="generation",
    metric="loss",
    grid=Grid(rates=(5e-4, 1.5e-3, 4.5e-3), factor=3.0),
    settings=SETTINGS,
    variants=dict.fromkeys(SETTINGS, VARIANTS),
    problem=problem,
    heads=False,
)
