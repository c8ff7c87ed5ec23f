"""What a client adds to a secure sum whose clients are protected as a whole: its clipped change and its noise.

    words = steps of the start + clipped steps of the change + whole noise        (see privacy.noise_share)
    count = 1 if the change needed no clipping, else 0, + whole noise of its own   where the bound follows what is sent

in the numbers that a method adds up: sides of the factors, and the head. All else in the vector (weights, owners of
rank indices) only counts, is the same whatever was learned, and gets no noise. For methods without sketches, whose
parts are products of what was trained, and no sums of it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedloom.aggregation.bank import sum_name
from fedloom.errors import RunError
from fedloom.privacy.entropy import Entropy
from fedloom.privacy.noise_share import TAILS, NoiseShare, clipped_steps, keeps
from fedloom.privacy.secagg.fixed_point import FixedPoint
from fedloom.privacy.secagg.masks import Words
from fedloom.rounds.masking import Layout, fixed_point_of, layout_of, to_vector
from fedloom.rounds.messages import Assignment, Contribution, Masking

Covered = NDArray[np.bool_]


def covered(layout: Layout) -> Covered:
    """Which numbers of a vector get the noise of the sum. Shape: (layout.length,).

    Raises: RunError for a vector with sketches or scores.
    """
    if layout.sketches or layout.scored:
        raise RunError(
            "noise on a secure sum protects clients only where plain factors are added up",
            found="sketches of products" if layout.sketches else "scores of modules",
            do='Take a method that averages factors, such as ffa, or privacy.unit = "example"',
        )
    sides = {sum_name(module, side) for module in layout.modules for side in ("a", "b")}
    sums = [np.full(math.prod(shape), name in sides) for name, (shape, _) in layout.sums.items()]
    head = [np.full(math.prod(shape), True) for shape, _ in layout.head.values()]
    return np.concatenate([*sums, np.full(len(layout.modules), False), *head, np.full(1 + layout.counts, False)])


def fixed_point_for(masking: Masking, layout: Layout) -> FixedPoint:
    """As `fixed_point_of`; under noise with room for the change and TAILS deviations of it, or of the count, on the
    grid of the noise.

    Raises: RunError if there is no room for that.
    """
    plain, noise = fixed_point_of(masking), masking.noise
    if noise is None:
        return plain
    deviation, counting = _deviations(masking, noise)
    least = min(deviation, counting) if layout.counts else deviation
    digits = noise.digits(least, int(covered(layout).sum()))
    room = max(noise.bound + TAILS * deviation, TAILS * counting)
    return FixedPoint(plain.largest + room, plain.clients, digits)


def noisy_words(contribution: Contribution, assignment: Assignment, entropy: Entropy) -> Words:
    """What is masked. entropy: of this one draw.

    Raises: RunError for an assignment without noise, or contributions that count by their examples;
        ContributionRefusedError naming the client for numbers beyond the fixed point.
    """
    masking = _require_bounded(assignment)
    assert masking.noise is not None
    layout = layout_of(masking, assignment)
    fixed, noisy = fixed_point_for(masking, layout), covered(layout)
    words = clipped_words(contribution, assignment)
    deviation, counting = (math.ldexp(each, fixed.bits) for each in _deviations(masking, masking.noise))
    steps = words.view(np.int64).copy()
    steps[noisy] += entropy.whole(int(noisy.sum()), deviation)
    if layout.counts:
        steps[-1:] += entropy.whole(1, counting)
    return fixed.words(steps, assignment.client)


def clipped_words(contribution: Contribution, assignment: Assignment) -> Words:
    """The same before its noise. Raises: RunError also for a change of what only counts."""
    masking = _require_bounded(assignment)
    assert masking.noise is not None
    layout = layout_of(masking, assignment)
    fixed, noisy = fixed_point_for(masking, layout), covered(layout)
    unchanged = replace(contribution, adapter=assignment.start.trainable, head=assignment.head)
    start, trained = to_vector(unchanged, assignment), to_vector(contribution, assignment)
    if not np.array_equal(start[~noisy], trained[~noisy]):
        raise RunError(
            "training changed a number that no noise covers",
            where=f"client {assignment.client!r}, round {assignment.round}",
            expected="weights and ranks as they were assigned",
        )
    steps, change = fixed.encode(start, assignment.client).view(np.int64).copy(), trained[noisy] - start[noisy]
    steps[noisy] += clipped_steps(change, masking.noise.bound, fixed.bits)
    if layout.counts:
        steps[-1] += int(keeps(change, masking.noise.bound)) << fixed.bits
    return fixed.words(steps, assignment.client)


def _require_bounded(assignment: Assignment) -> Masking:
    masking = assignment.masking
    if masking is None or masking.noise is None or masking.weighting != "uniform":
        raise RunError(
            "one client's part of a sum is bounded only if all count alike, under noise",
            where=f"client {assignment.client!r}",
            expected='a secure sum with noise and weighting "uniform"',
            found=None if masking is None else masking.weighting,
        )
    return masking


def _deviations(masking: Masking, noise: NoiseShare) -> tuple[float, float]:
    """Of the noise on each number of the sum, and on the count."""
    sizes = masking.threshold, len(masking.clients)
    return noise.deviation(*sizes), noise.count_deviation(*sizes)
