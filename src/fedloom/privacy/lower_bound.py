"""What guesses about membership prove: an epsilon that the training exceeds, with 95% confidence.

Of canaries, each trained on by the toss of a fair coin of its own, one run is enough (Steinke, Nasr, Jagielski, 2023,
"Privacy auditing with one (1) training run", corollary 5.4 and appendix D).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedloom.privacy.binomial import log_masses, lower_limit, upper_limit

CONFIDENCE = 0.95
# Of the canaries that are guessed at, fixed before anything is seen. Never all: as many are called "in" as "out", and
# coins hardly ever fall half and half, so that even an attacker who knows them all would be wrong at the border.
SHARES = (0.25, 0.5, 0.8)
CUTS = (0.01, 0.05, 0.25)  # of all rows that are called members, or non-members
HALVINGS = 40
LARGEST_SEARCHED = 100_000


@dataclass(frozen=True)
class Guesses:
    """canaries: of them all.  made: guesses, the others being left out.  right: of those made."""

    canaries: int
    made: int
    right: int


def guesses_of(scores: np.ndarray, included: np.ndarray, shares: Iterable[float] = SHARES) -> list[Guesses]:
    """For each share: the highest half of the guesses say "in", the lowest half "out". Shapes: (canaries,).

    Equal scores are told apart by their place, which must not depend on the coins.
    scores: of canary i, any function of the model and of canaries; never of the coins of the canaries guessed at.
    """
    order = np.argsort(scores, kind="stable")
    found = []
    for share in shares:
        half = math.floor(share * len(scores) / 2)
        right = int(included[order[len(order) - half :]].sum() + (~included[order[:half]]).sum())
        found.append(Guesses(len(scores), 2 * half, right))
    return found


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """The most that (epsilon, delta)-privacy allows as the chance of so many right guesses.

    Formula: beta + 2 m delta alpha with W ~ Binomial(made, 1 / (1 + e^-epsilon)), beta = P[W >= right] and
    alpha = max over i = 1 .. right of P[right - i <= W < right] / i.
    """
    log_right = -math.log1p(math.exp(-epsilon))
    masses = np.exp(log_masses(guesses.made, log_right, log_right - epsilon))
    beta = float(masses[guesses.right :].sum())
    if not delta or not guesses.right:
        return min(1.0, beta)
    below = np.cumsum(masses[: guesses.right][::-1])
    alpha = float((below / np.arange(1, guesses.right + 1)).max())
    return min(1.0, beta + 2 * guesses.canaries * delta * alpha)


def epsilon_at_least(trials: Sequence[Guesses], delta: float, confidence: float = CONFIDENCE) -> float:
    """The largest epsilon that one of the trials refutes; 0 where none does.

    Each trial is held to (1 - confidence) / number of trials (Bonferroni), so that the largest may be taken.
    """
    miss = (1 - confidence) / max(len(trials), 1)
    return max((_refuted_by(one, delta, miss) for one in trials), default=0.0)


def most_that_shows(canaries: int, trials: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """The bound if every single guess were right: what so many canaries can show at most.

    trials: how many are made in all, which share the confidence.
    """
    best = [Guesses(canaries, made, made) for made in {2 * math.floor(share * canaries / 2) for share in SHARES}]
    return epsilon_at_least(best, delta, 1 - (1 - confidence) * len(best) / trials)


def canaries_needed(trials: int, delta: float, confidence: float = CONFIDENCE) -> int | None:
    """How few canaries could show more than 0, if every guess were right; None if no number can at this delta."""
    count = 2
    while count <= LARGEST_SEARCHED:
        if most_that_shows(count, trials, delta, confidence) > 0:
            return count
        count += max(1, count // 50)
    return None


def epsilon_of_rates(members: np.ndarray, others: np.ndarray, delta: float, confidence: float = CONFIDENCE) -> float:
    """What rates of right and false guesses about rows suggest, where no coin decided who is a member: a heuristic.

    Formula: the largest of log((TPR_low - delta) / FPR_high) and log((TNR_low - delta) / FNR_high) over the cuts, by
    Clopper and Pearson's limits (Jagielski et al., 2020, "Auditing differentially private machine learning"), each
    limit held to (1 - confidence) / number of limits. The cuts are shares of all rows together, so that they are made
    without a look at who is a member.
    """
    miss = (1 - confidence) / (4 * len(CUTS))
    ordered = np.sort(np.concatenate((members, others)))
    best = 0.0
    for cut in CUTS:
        accused = math.floor(cut * len(ordered))
        if accused:
            above, below = ordered[-accused], ordered[accused - 1]
            best = max(
                best,
                _log_ratio(_hits(members >= above), _hits(others >= above), delta, miss),
                _log_ratio(_hits(others <= below), _hits(members <= below), delta, miss),
            )
    return best


def _hits(called: np.ndarray) -> tuple[int, int]:
    return int(called.sum()), len(called)


def _log_ratio(right: tuple[int, int], wrong: tuple[int, int], delta: float, miss: float) -> float:
    """At least 0. right, wrong: (hits, of how many)."""
    low, high = lower_limit(*right, miss) - delta, upper_limit(*wrong, miss)
    return max(0.0, math.log(low / high)) if low > 0 else 0.0


def _refuted_by(guesses: Guesses, delta: float, miss: float) -> float:
    """The largest epsilon under which so many right guesses have a chance under `miss`, from below; 0 if none is."""

    def rejects(epsilon: float) -> bool:
        return p_value(guesses, epsilon, delta) < miss

    if not rejects(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while rejects(high):
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rejects(middle) else (low, middle)
    return low
