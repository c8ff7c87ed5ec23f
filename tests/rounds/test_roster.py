"""Who takes part is drawn from the seed, repeatably."""

import pytest

from fedloom.errors import RunError
from fedloom.rounds.roster import roster
from fedloom.spec.experiment import ClientTable, Experiment, RoundsTable


def with_rounds(clients=30, **table) -> Experiment:
    return Experiment(
        clients=tuple(ClientTable(name=f"c{number:02d}", data="x.jsonl") for number in range(clients)),
        rounds=RoundsTable(**table),
    )


@pytest.mark.parametrize(("participation", "expected"), [(1.0, 30), (0.5, 15), (0.1, 3), (0.01, 1), (0.11, 4)])
def test_the_share_of_clients_is_drawn(participation, expected):
    assert len(roster(with_rounds(participation=participation), 1)) == expected


def test_the_draw_is_repeatable_changes_by_round_and_reaches_everybody():
    experiment = with_rounds(participation=0.2)
    draws = [roster(experiment, round) for round in range(1, 60)]
    assert draws == [roster(experiment, round) for round in range(1, 60)]
    assert len(set(draws)) > 50
    assert {name for draw in draws for name in draw} == {client.name for client in experiment.clients}
    assert all(list(draw) == sorted(draw) for draw in draws)


def test_at_least_min_clients_take_part():
    assert len(roster(with_rounds(participation=0.01, min_clients=5), 1)) == 5


def test_only_the_named_clients_take_part():
    experiment = with_rounds().model_copy(update={"rounds": RoundsTable(clients=("c07", "c03"))})
    assert roster(experiment, 1) == ("c03", "c07")


def test_the_share_is_of_those_who_are_not_shut_out():
    experiment = with_rounds(clients=10, participation=0.5)
    draws = [roster(experiment, round, {"c00", "c01"}) for round in range(1, 40)]
    assert {len(draw) for draw in draws} == {4}
    assert not {"c00", "c01"} & {name for draw in draws for name in draw}


def test_a_round_without_anybody_says_who_was_shut_out():
    with pytest.raises(RunError, match=r"excluded or at work: c00, c01"):
        roster(with_rounds(clients=2), 3, {"c01", "c00"})


def test_another_seed_than_the_runs_draws_others():
    experiment = with_rounds(participation=0.2)
    assert roster(experiment, 1, seed=experiment.seed) == roster(experiment, 1)
    assert roster(experiment, 1, seed=experiment.seed + 1) != roster(experiment, 1)
