"""How much privacy subsampled Gaussian noise spends, and how much noise a budget needs: dp-accounting's numbers.

A step of DP-SGD (Abadi et al., 2016) takes each row with probability q, clips every gradient to norm C, and adds noise
of standard deviation sigma C. All steps at a client compose: T = rounds x local steps, q = B / n_k (FFA-LoRA,
arXiv 2403.12313, section 5; Mironov et al., 2019, for the Renyi bound).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from fedloom.errors import RunError
from fedloom.privacy.extra import lacking

Accountant = Literal["rdp", "pld"]
DECIMALS = 2  # of a noise multiplier, rounded up: more noise than the budget needs, never less
_FINEST = 10**DECIMALS
_MOST_NOISE = 10**4
# Of the Renyi bound, which holds at every order: the best one counts. Below 2 the sums converge slowly, or not at all.
ORDERS = (*(order / 10 for order in range(20, 110)), *range(11, 64), 128, 256, 512, 1024)


@dataclass(frozen=True)
class Spending:
    """Steps with one noise: noise_multiplier sigma, sampling_rate q in (0, 1], number of steps."""

    noise_multiplier: float
    sampling_rate: float
    steps: int

    def times(self, count: int) -> Spending:
        return Spending(self.noise_multiplier, self.sampling_rate, self.steps * count)


def epsilon_of(spent: Iterable[Spending], delta: float, accountant: Accountant = "rdp") -> float:
    """Epsilon at `delta` of all of it together; 0 for nothing. Raises: RunError without dp-accounting."""
    library, total = _library(), _accountant(accountant)
    together: dict[tuple[float, float], int] = {}
    for part in spent:
        key = part.noise_multiplier, part.sampling_rate
        together[key] = together.get(key, 0) + part.steps
    with _quiet():
        for (noise, rate), steps in together.items():
            if steps:
                step = library.PoissonSampledDpEvent(rate, library.GaussianDpEvent(noise))
                total.compose(library.SelfComposedDpEvent(step, steps))
        return float(total.get_epsilon(delta)) if any(together.values()) else 0.0


@contextmanager
def _quiet() -> Iterator[None]:
    """The library tells of every order that it leaves out, each of which only makes the bound larger."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@lru_cache(maxsize=256)
def noise_for(epsilon: float, delta: float, sampling_rate: float, steps: int, accountant: Accountant = "rdp") -> float:
    """The smallest noise multiplier, in hundredths, with which so many steps spend at most epsilon.

    Raises: RunError if no noise up to 10,000 is enough.
    """

    def enough(hundredths: int) -> bool:
        spending = Spending(hundredths / _FINEST, sampling_rate, steps)
        return epsilon_of([spending], delta, accountant) <= epsilon

    if accountant == "pld":
        # The Renyi bound is above the exact one by little; far below it the exact one takes minutes.
        highest = round(noise_for(epsilon, delta, sampling_rate, steps) * _FINEST)
        return _smallest(enough, max(1, highest * 3 // 4), highest) / _FINEST
    highest = _FINEST
    while not enough(highest):
        highest *= 2
        if highest > _MOST_NOISE * _FINEST:
            raise RunError(
                "no noise is enough for this budget",
                where="privacy.epsilon",
                found=f"epsilon {epsilon:g} over {steps} steps at sampling rate {sampling_rate:.3g}",
                do="Allow a larger epsilon, fewer rounds or steps, or smaller batches",
            )
    return _smallest(enough, 1, highest) / _FINEST


def _smallest(enough: Any, low: int, high: int) -> int:
    """The smallest number in low..high that is enough; `high` is."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def rounds_left(
    spent: Iterable[Spending], each: Spending, epsilon: float, delta: float, accountant: Accountant = "rdp"
) -> int:
    """How many more rounds like `each` stay within epsilon, after what was spent."""
    before = list(spent)

    def within(rounds: int) -> bool:
        return epsilon_of([*before, each.times(rounds)], delta, accountant) <= epsilon

    if not within(1):
        return 0
    high = 1
    while within(2 * high) and high < 2**20:
        high *= 2
    return _smallest(lambda rounds: not within(rounds), high, 2 * high) - 1


def _accountant(name: Accountant) -> Any:
    if name == "pld":
        from dp_accounting.pld import PLDAccountant

        return PLDAccountant()
    from dp_accounting.rdp import RdpAccountant

    return RdpAccountant(ORDERS)


def _library() -> Any:
    """dp-accounting, imported when it is needed: runs without noise do without it."""
    try:
        import dp_accounting
    except ImportError as error:
        raise lacking("privacy accounting", error) from error
    return dp_accounting


def require_delta(delta: float, count: int, *, where: str, of: str = "rows") -> None:
    """Raises: RunError for a delta of 1 / count or more. of: what there are so many of."""
    if not 0 < delta < 1 / count:
        raise RunError(
            f"delta is too large for so few {of}: it would allow to publish one of them whole",
            where=where,
            expected=f"privacy.delta below 1 / {count} = {1 / count:.3g}",
            found=f"{delta:g}",
            do=f"Lower privacy.delta; 1e-5 is usual, and smaller for more than 100,000 {of}",
        )
