"""The laws of batches: every row once an epoch, little padding, masks only where they are needed."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedloom.data.batches import FEWEST, WIDEST, evaluation_batches, sampled_batches, training_batches
from fedloom.data.tokens import IGNORED, Encoded
from fedloom.errors import DataError

PAD = 0


def examples(lengths):
    """Rows whose tokens are their number + 1; the first token is prompt."""
    return [
        Encoded((number + 1,) * length, (IGNORED, *(number + 1,) * (length - 1)), number % 3)
        for number, length in enumerate(lengths)
    ]


def padding_share(batches, encoded):
    tokens = sum(len(encoded[row].input_ids) for batch in batches for row in batch.rows)
    return 1 - tokens / sum(batch.input_ids.numel() for batch in batches)


def rows_of(batches):
    return Counter(row for batch in batches for row in batch.rows)


LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 40), st.integers(0, 99))
def test_each_epoch_has_each_row_once(lengths, batch_size, steps, seed):
    encoded = examples(lengths)
    batches = list(training_batches(encoded, batch_size, steps, seed, PAD, "generation"))
    assert len(batches) == steps
    per_epoch = math.ceil(len(lengths) / batch_size)
    for start in range(0, steps - per_epoch + 1, per_epoch):
        assert rows_of(batches[start : start + per_epoch]) == Counter(range(len(lengths)))
    sizes = {len(batch.rows) for batch in batches}
    assert not sizes or (max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1)


@given(LENGTHS, st.integers(1, 400))
def test_evaluation_has_every_row_once_within_its_bound(lengths, bound):
    encoded = examples(lengths)
    batches = list(evaluation_batches(encoded, bound, PAD, "generation"))
    assert rows_of(batches) == Counter(range(len(lengths)))
    assert all(batch.input_ids.numel() <= bound or len(batch.rows) == 1 for batch in batches)
    assert all(first.input_ids.shape[1] >= second.input_ids.shape[1] for first, second in pairwise(batches))


@given(LENGTHS, st.sampled_from(["generation", "classification"]))
def test_a_batch_holds_its_rows_and_nothing_else(lengths, task):
    encoded = examples(lengths)
    for batch in evaluation_batches(encoded, 300, PAD, task):
        mask = batch.attention_mask
        equal = len({len(encoded[row].input_ids) for row in batch.rows}) == 1
        assert (mask is None) == (task == "generation" or equal)
        for index, row in enumerate(batch.rows):
            length = len(encoded[row].input_ids)
            assert batch.input_ids[index].tolist() == [row + 1] * length + [PAD] * (batch.input_ids.shape[1] - length)
            if mask is not None:
                assert mask[index].sum() == length == mask[index, :length].sum()
            if task == "classification":
                assert batch.labels[index] == encoded[row].label
            else:
                assert batch.labels[index].tolist()[:length] == list(encoded[row].labels)
                assert set(batch.labels[index].tolist()[length:]) <= {IGNORED}
    assert batch.input_ids.dtype == batch.labels.dtype == torch.int64


def skewed(count):
    """Lengths as of real answers: many short, few very long."""
    return np.clip(np.random.default_rng(0).lognormal(4.5, 0.8, count), 5, 1024).astype(int).tolist()


def test_less_than_a_twentieth_of_skewed_lengths_is_padding():
    encoded = examples(skewed(2000))
    trained = list(training_batches(encoded, 8, 1000, 3, PAD, "generation"))
    evaluated = list(evaluation_batches(encoded, 4096, PAD, "generation"))
    assert padding_share(trained, encoded) < 0.05
    assert padding_share(evaluated, encoded) < 0.05
    in_order = [range(start, start + 8) for start in range(0, 2000, 8)]
    naive = 1 - sum(skewed(2000)) / sum(8 * max(skewed(2000)[row] for row in rows) for rows in in_order)
    assert naive > 0.3


def test_the_same_seed_repeats_and_another_does_not():
    encoded = examples(skewed(100))
    first, again, other = (
        [batch.rows for batch in training_batches(encoded, 8, 26, seed, PAD, "generation")] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert set(map(frozenset, first[:13])) != set(map(frozenset, first[13:]))


def test_batches_do_not_come_in_the_order_of_their_lengths():
    batches = training_batches(examples(skewed(400)), 8, 50, 5, PAD, "generation")
    widths = [batch.input_ids.shape[1] for batch in batches]
    assert abs(np.corrcoef(widths, range(50))[0, 1]) < 0.5


def test_a_small_client_has_smaller_batches():
    batches = list(training_batches(examples([5, 6, 7]), 8, 4, 0, PAD, "generation"))
    assert [sorted(batch.rows) for batch in batches] == [[0, 1, 2]] * 4


def test_no_examples_are_refused():
    with pytest.raises(DataError, match="no examples"):
        list(training_batches([], 8, 1, 0, PAD, "generation"))


@given(st.lists(st.integers(1, 90), min_size=1, max_size=200), st.integers(1, 40), st.integers(0, 99))
def test_a_sample_is_split_into_parts_of_like_lengths(lengths, batch_size, seed):
    encoded, draw = examples(lengths), np.random.default_rng(seed)
    samples = [np.flatnonzero(draw.random(len(lengths)) < rate) for rate in (0.0, 0.5, 1.0)]
    empty, *drawn = sampled_batches(encoded, samples, batch_size, PAD, "generation")
    assert empty == []
    for sample, parts in zip(samples[1:], drawn, strict=True):
        assert rows_of(parts) == Counter(map(int, sample))
        assert all(len(part.rows) <= batch_size for part in parts)
        sizes = [[lengths[row] for row in part.rows] for part in parts]
        assert all(max(size) <= WIDEST * min(size) for size in sizes if len(size) > FEWEST)


def test_a_sample_of_mixed_lengths_has_little_padding():
    encoded = examples([10] * 60 + [60] * 60)
    ((*parts,),) = sampled_batches(encoded, [np.arange(120)], 100, PAD, "generation")
    assert padding_share(parts, encoded) == 0
    assert len(parts) == 2
