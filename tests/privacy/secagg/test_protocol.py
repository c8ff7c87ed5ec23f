"""The whole protocol: the masked sum is the plain sum, whoever is lost; below the threshold nothing comes out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.errors import RunError
from fedloom.privacy.secagg.masks import to_words
from fedloom.privacy.secagg.session import AGREEMENT, DELIVERY
from tests.privacy.secagg.whole_sum import WholeSum, plain_sum, terms_of, words_of


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_the_masked_sum_is_the_plain_sum_for_any_allowed_dropouts(data):
    count = data.draw(st.integers(2, 7))
    threshold = data.draw(st.integers(max(2, count // 2 + 1), count))
    words = words_of(count, data.draw(st.integers(1, 9)), seed=count)
    lost = data.draw(st.lists(st.sampled_from(sorted(words)), unique=True, max_size=count - threshold))
    steps = {client: data.draw(st.integers(0, 4)) for client in lost}
    gone = {step: [client for client in lost if steps[client] == step] for step in range(5)}
    result = WholeSum(terms_of(words, threshold), words, gone).run()
    present = tuple(client for client in sorted(words) if steps.get(client, 9) > 2)
    assert result.clients == present
    assert (result.words == plain_sum(words, present)).all()
    assert result.lost == tuple(sorted(client for client in lost if steps[client] == 2))
    assert not result.faults


@pytest.mark.parametrize("step", range(5))
def test_below_the_threshold_the_round_fails_and_nobody_reveals(step):
    words = words_of(5, 3)
    whole = WholeSum(terms_of(words, 4), words, {step: ["c00", "c03"]})
    with pytest.raises(
        RunError, match=r"too few clients are left for a secure sum; nothing was revealed.*at least 4 of 5"
    ):
        whole.run()
    revealed = [client for name, client in whole.seen if name == AGREEMENT]
    assert len(revealed) == (3 if step == 4 else 0)  # three shares of each seed are fewer than the threshold


def test_wraps_around_are_part_of_the_sum():
    words = {"a": np.array([2**64 - 1], dtype=np.uint64), "b": np.array([3], dtype=np.uint64)}
    assert WholeSum(terms_of(words, 2), words).run().words.tolist() == [2]


def test_a_masked_vector_says_nothing_of_the_plain_one():
    """Constant and extreme plain values: correlations, bits and bytes of what is sent are those of noise."""
    length = 40_000
    draws = np.random.default_rng(1)
    plain = np.where(draws.random(length) < 0.5, np.uint64(0), np.uint64(2**62))
    words = {client: plain.copy() for client in ("a", "b", "c")}
    whole = WholeSum(terms_of(words, 2), words)
    whole.run()
    sent = {client: to_words(whole.seen[DELIVERY, client]) for client in words}
    for masked in sent.values():
        signed = masked.view(np.int64).astype(np.float64)
        assert abs(np.corrcoef(signed, plain.astype(np.float64))[0, 1]) < 5 / np.sqrt(length)
        bits = np.unpackbits(masked.view(np.uint8).reshape(length, 8), axis=1).mean(axis=0)
        assert np.abs(bits - 0.5).max() < 5 * 0.5 / np.sqrt(length)
        high = (masked >> np.uint64(62)) & np.uint64(1)  # the one bit in which plain values differ
        assert abs(high[plain > 0].mean() - high[plain == 0].mean()) < 5 / np.sqrt(length)
    pair = np.corrcoef(*(sent[client].view(np.int64).astype(np.float64) for client in ("a", "b")))[0, 1]
    assert abs(pair) < 5 / np.sqrt(length)
    # the control: without masks the correlation is there
    assert np.corrcoef(plain.astype(np.float64), words["a"].astype(np.float64))[0, 1] > 0.99


def test_two_sums_of_the_same_numbers_are_sent_as_different_words():
    words = words_of(3, 50)
    sent = []
    for seed in (1, 2):
        whole = WholeSum(terms_of(words, 2), words, seed=seed)
        whole.run()
        sent.append(to_words(whole.seen[DELIVERY, "c00"]))
    assert not (sent[0] == sent[1]).any()


@pytest.mark.parametrize(("count", "threshold"), [(4, 2), (3, 4), (2, 1), (1, 1)])
def test_a_threshold_of_half_or_less_or_more_than_all_is_refused(count, threshold):
    with pytest.raises(RunError, match="more than half of its clients, and at most all"):
        terms_of(words_of(count, 1), threshold)
