"""Models of their own: SmolLM2-135M on eight tasks of Natural Instructions, one per client, or on ten sites of Dolly.

Every client is measured alone.

Everyone trains at one rate, which is written into the table: a grid for each contender does not fit a small machine.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evidence.generation import DOLLY, SMALL, problem
from evidence.suite import Problem, Setting, Suite
from evidence.tuning import Grid

VARIANTS = (
    "fedalt",
    "local",
    "loom",
    "fedit",
    "fedalt:own=share",
    "fedalt:own=share,share=0.5",  # the paper's
    "loomlocal",
    "fedsa",
    "fedalt:mixer=static",
    "fedalt:mixer=static,own=share",
    "fedalt:mixer=static,own=share,share=0.5",
    "fedalt:mixer=sum",
    "fedalt:own=share,share=0.5,combine=factors",
    "fedalt:train_rest=true",
    "fedalt:neighbours=2",
    "fedalt:borrow=chosen",
    "fedalt:borrow=chosen,mixer=sum",
)
CHOSEN = "fedalt:borrow=chosen"
FEW = ("local", "fedalt", CHOSEN, "fedalt:own=share", "fedalt:own=share,share=0.5", "fedsa", "fedit", "loom")
ALIKE = (*FEW, "loomlocal", "fedalt:mixer=sum", "fedalt:borrow=chosen,mixer=sum")  # where clients have much in common
TASKS = replace(
    SMALL,
    what="SmolLM2-135M on eight tasks of Natural Instructions, one per client, 80 training rows each, "
    "rank 8 for all. 4 rounds of 4 steps of 4 rows.",
    rounds=4,
    ranks=(8,) * 8,
    generate_rows=10,
)
SCARCE = replace(
    TASKS,
    what="The same with 20 training rows each, so that every row is seen about three times.",
    rows_per_client=40,
    held_out=0.5,
)
LONGER = replace(
    TASKS,
    what="The same with 8 rounds of 10 steps, so that every one of the 80 training rows is seen four times.",
    rounds=8,
    local_steps=10,
)
SITES = replace(
    TASKS,
    what="SmolLM2-135M on Dolly, ten sites non-IID by category, 80 training rows each, rank 8 for all. "
    "4 rounds of 4 steps of 4 rows.",
    data=DOLLY,
    ranks=(8,) * 10,
)


def each_by_itself(data: Path, setting: Setting, seed: int) -> Problem:
    """As for the other suites of texts, with the scores of every client."""
    return replace(problem(data, setting, seed), each_client=True)


SUITE = Suite(
    name="personal",
    metric="loss",
    grid=Grid(rates=(2e-3,), widenings=0),
    settings={"tasks": TASKS, "scarce": SCARCE, "longer": LONGER, "sites": SITES},
    variants={"tasks": VARIANTS, "scarce": FEW, "longer": FEW, "sites": ALIKE},
    problem=each_by_itself,
    reference="local",
    heads=False,
)
