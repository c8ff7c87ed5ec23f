"""zeropad: the mean of each factor, padded with zeros to the largest rank.

A rank index that a share c of the weight owns comes out of the product c^2 times too small; that is the method.
"""

from __future__ import annotations

from fedloom.aggregation.bank import dispatch_part, finish_mean, initial_state, lift_padded
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.rebase import rebased_factors

METHOD = Method(
    name="zeropad",
    source="the zero-padding of HetLoRA (Cho et al., 2024, arXiv 2401.06432), section 3, weights by examples",
    summary="mean of each factor, padded with zeros; high ranks shrink",
    traffic="up: a and b of the client's rank. Down: its part of the bank, no trunk",
    when="""Use it as the baseline for unequal ranks where the server may only see a sum. A rank index that a share c
of the weight owns comes out c^2 times its size in every round, so that high ranks die out: not where they matter.""",
    laws=frozenset(Law) - {Law.EXACT_MEAN, Law.EXACT_SHARED_A, Law.ZERO_UPDATE},
    reveals="sum",
    init=initial_state,
    lift=lift_padded,
    finish=finish_mean,
    dispatch=dispatch_part,
    rebase=rebased_factors,
)
