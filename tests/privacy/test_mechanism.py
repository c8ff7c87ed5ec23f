"""What [privacy] becomes at a client."""

import pytest

from fedloom.errors import RunError
from fedloom.privacy.mechanism import PrivacyPromise, mechanism_of


def promise(**changes):
    return PrivacyPromise(
        **{
            "unit": "example",
            "epsilon": 4.0,
            "delta": 1e-3,
            "max_grad_norm": 0.5,
            "noise_multiplier": None,
            "accountant": "rdp",
            "rounds": 10,
            **changes,
        }
    )


def test_all_rounds_of_a_run_spend_at_most_its_budget():
    mechanism = mechanism_of(promise(), rows=200, batch=20, steps=3, client="a")
    assert 3.8 < mechanism.epsilon_after(10) <= 4.0 < mechanism.epsilon_after(11)
    assert (mechanism.sampling_rate, mechanism.max_grad_norm, mechanism.round.steps) == (0.1, 0.5, 3)


def test_clients_of_unequal_size_need_unequal_noise():
    few, many = (mechanism_of(promise(), rows=rows, batch=20, steps=3, client="a") for rows in (50, 800))
    assert few.noise_multiplier > many.noise_multiplier
    assert few.epsilon_after(10) <= 4.0


def test_who_takes_part_in_fewer_rounds_needs_less_noise():
    all_rounds, some = (
        mechanism_of(promise(), rows=200, batch=20, steps=3, client="a", participations=count) for count in (None, 3)
    )
    assert some.noise_multiplier < all_rounds.noise_multiplier


def test_a_noise_multiplier_is_taken_as_it_is():
    given = promise(epsilon=None, noise_multiplier=1.25)
    assert mechanism_of(given, rows=200, batch=20, steps=3, client="a").noise_multiplier == 1.25


def test_a_batch_larger_than_all_rows_is_refused():
    with pytest.raises(RunError, match=r"'a': a batch is larger.*at most 19, found 20"):
        mechanism_of(promise(), rows=19, batch=20, steps=3, client="a")
    mechanism_of(promise(), rows=20, batch=20, steps=3, client="a")


def test_a_delta_of_one_row_or_more_is_refused():
    with pytest.raises(RunError, match=r"'a': delta is too large.*found 0.001"):
        mechanism_of(promise(), rows=1000, batch=20, steps=3, client="a")
