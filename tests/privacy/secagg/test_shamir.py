"""Shares give the secret from any t of them, and fewer say nothing of it."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.errors import RunError
from fedloom.privacy.secagg.shamir import PRIME, combine, split, weights_at_zero
from fedloom.testing.insecure import InsecureBytes

SECRETS = st.one_of(st.binary(min_size=32, max_size=32), st.sampled_from([bytes(32), b"\xff" * 32]))


def test_the_field_is_one_and_holds_every_secret():
    assert PRIME > 2**256
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37))


@settings(deadline=None, max_examples=60)
@given(SECRETS, st.integers(1, 7), st.data())
def test_any_threshold_of_shares_gives_the_secret(secret, count, data):
    threshold = data.draw(st.integers(1, count))
    shares = split(secret, range(1, count + 1), threshold, InsecureBytes(3))
    chosen = data.draw(st.permutations(sorted(shares)))[:threshold]
    assert combine(shares, weights_at_zero(chosen)) == secret


def test_fewer_shares_fit_every_secret():
    """For any secret there is a polynomial through two shares: they tell nothing of which it was."""
    shares = split(b"\x01" * 32, (1, 2, 3), 3, InsecureBytes(4))
    known = {point: int.from_bytes(shares[point], "big") for point in (1, 2)}
    for other in (bytes(32), b"\x77" * 32):
        weights = weights_at_zero((1, 2, 3))
        rest = int.from_bytes(other, "big") - sum(weights[point] * known[point] for point in known)
        third = rest * pow(weights[3], -1, PRIME) % PRIME
        assert combine({1: shares[1], 2: shares[2], 3: third.to_bytes(33, "big")}, weights) == other
    assert all(combine(shares, weights_at_zero(pair)) != b"\x01" * 32 for pair in combinations((1, 2, 3), 2))


def test_a_wrong_share_gives_another_secret():
    secret = b"\x05" * 32
    shares = split(secret, (1, 2, 3), 2, InsecureBytes(5))
    shares[2] = bytes(33)
    assert combine(shares, weights_at_zero((1, 2))) != secret
    assert combine(shares, weights_at_zero((1, 3))) == secret


@pytest.mark.parametrize(
    ("secret", "points", "threshold"),
    [(b"short", (1, 2), 2), (bytes(32), (1, 1), 2), (bytes(32), (0, 1), 2), (bytes(32), (1, 2), 3)],
)
def test_what_cannot_be_shared_is_refused(secret, points, threshold):
    with pytest.raises(RunError, match="cannot be shared"):
        split(secret, points, threshold, InsecureBytes(6))
