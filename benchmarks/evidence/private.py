"""Under noise: MiniLM-L6 on banking77, three clients with skewed classes, DP-SGD at epsilon 1, 3, 6 and without."""

from __future__ import annotations

from dataclasses import replace

from evidence.classification import MAIN, problem
from evidence.suite import Suite
from evidence.tuning import Grid

DELTA = 1e-5
METHODS = ("ffa", "fedit", "fedsvd", "rolora", "loom:training.head_optimizer=adamw")  # one head for all
PROMISE = "privacy.unit=example,privacy.delta={delta},privacy.epsilon={epsilon}"


def private(method: str, epsilon: float | None) -> str:
    """The label of a method under a budget. epsilon: None for no noise."""
    if epsilon is None:
        return method
    return f"{method}{',' if ':' in method else ':'}{PROMISE.format(delta=DELTA, epsilon=epsilon)}"


VARIANTS = tuple(private(method, epsilon) for epsilon in (3, None, 1, 6) for method in METHODS)
SKEWED = replace(
    MAIN,
    what="MiniLM-L6 on Banking77: three clients, Dirichlet 0.3 over 77 classes, up to 3,400 rows each and a tenth held "
    "out, rank 8, 1,000 test rows. 8 rounds of 5 steps of 128 rows. With noise: DP-SGD, every example's gradient "
    "clipped to 1, delta 1e-5 for all rounds together.",
    rows_per_client=3400,
    held_out=0.1,
    max_tokens=40,
    rounds=8,
    local_steps=5,
    batch_size=128,
    ranks=(8, 8, 8),
    head_rate=0.3,
)

SUITE = Suite(
    name="private",
    metric="accuracy",
    grid=Grid(rates=(1.6e-2, 6.4e-2), factor=4.0, widenings=1),
    settings={"skewed": SKEWED},
    variants={"skewed": VARIANTS},
    problem=problem,
    reference=private("ffa", 3),
)
