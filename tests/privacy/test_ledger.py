"""Whether the budget allows what is asked."""

import re

import pytest

from fedloom.errors import RunError
from fedloom.privacy.accounting import Spending, epsilon_of, rounds_left
from fedloom.privacy.ledger import Entry, afforded, known, spent
from fedloom.privacy.mechanism import Mechanism

MECHANISM = Mechanism(200, 20, 3, 1.0, 1.0, 1e-3, "rdp", 4.0)
SPENT = [Entry(round, f"digest {round}", MECHANISM.round, 1e-3) for round in (1, 2, 3)]


def ask(budget, rounds=1, entries=SPENT):
    before, bound = spent(entries), (MECHANISM.delta, MECHANISM.accountant)
    whose = "privacy.epsilon of the run"
    return afforded(before, MECHANISM.round, budget, *bound, where="here", whose=whose, rounds=rounds)


def test_one_round_more_is_counted_on_top_of_all_before():
    expected = epsilon_of([MECHANISM.round.times(4)], 1e-3)
    assert ask(None) == ask(100.0, rounds=5) == pytest.approx(expected)


def test_more_rounds_than_the_budget_allows_say_how_many_are_left():
    budget = epsilon_of([MECHANISM.round.times(5)], 1e-3) + 1e-9
    assert ask(budget, rounds=2) < budget
    with pytest.raises(RunError, match=r"does not allow the 3 rounds to come.*left with this noise: 2\."):
        ask(budget, rounds=3)
    with pytest.raises(RunError, match=r"does not allow this round.*spent in 5 rounds.*left with this noise: 0\."):
        ask(budget, entries=[*SPENT, *SPENT[:2]])


def test_what_another_noise_spent_counts_too():
    loud = [Entry(1, "x", Spending(0.4, 0.2, 10), 1e-3)]
    budget = ask(None, entries=loud) + 0.5
    with pytest.raises(RunError) as refused:
        ask(budget, rounds=1000, entries=loud)
    left = rounds_left([loud[0].spending], MECHANISM.round, budget, 1e-3)
    assert int(re.search(r"noise: (\d+)", str(refused.value))[1]) == left > 0


def test_an_assignment_is_known_by_its_digest():
    assert known(SPENT, "digest 2")
    assert not known(SPENT, "digest")
    assert not known([], "digest 2")
