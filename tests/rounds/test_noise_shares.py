"""Noise that clients add to a secure sum: as much as is promised whoever drops out, on changes that are clipped."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from fedloom.adapters.factors import Factors
from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS
from fedloom.errors import ContributionRefusedError, RunError
from fedloom.privacy.entropy import Entropy
from fedloom.privacy.noise_share import NoiseShare
from fedloom.rounds.assign import masking_of, training_assignment
from fedloom.rounds.client_noise import clipped
from fedloom.rounds.masking import layout_of, to_vector
from fedloom.rounds.messages import Contribution
from fedloom.rounds.noise_shares import clipped_words, covered, fixed_point_for, noisy_words
from fedloom.rounds.state import RunState
from fedloom.rounds.wire import assignment_from_bytes, assignment_to_bytes
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import ClientTable
from fedloom.spec.secure_table import SecureAggregationTable
from fedloom.testing.engine import pretend_experiment
from tests.rounds.answers import learned

FITTING = [name for name, method in METHODS.items() if method.reveals == "sum" and Law.SPLIT in method.laws]
MODULES, NAMES = {"q": (60, 50), "v": (8, 10)}, ("a", "b", "c", "d", "e")
BOUND, MULTIPLIER = 0.5, 1.5


def asked(name="fedit", colluding=0, multiplier=MULTIPLIER, bound=BOUND, counting=0.0):
    """What five clients are asked, of whom four must stay, and what they answer: changes of norm above 0.5."""
    rounds = {"max_update_norm": 100.0, "weighting": "uniform"}
    clients = tuple(ClientTable(name=client, rank=2, data="none.jsonl") for client in NAMES)
    table = SecureAggregationTable(enabled=True, threshold=4)
    experiment = pretend_experiment(name, rounds=rounds)
    experiment = experiment.model_copy(update={"clients": clients, "secure_aggregation": table})
    method, world = METHODS[name], world_of(experiment, MODULES)
    state = RunState(method.init(world), {"score.weight": torch.zeros(2, 3)})
    noise = NoiseShare(bound, multiplier, colluding, None, 1e-5, "rdp", counting)
    masking = masking_of(experiment, world, NAMES, dict.fromkeys(NAMES, 9), bytes(32), noise)
    sent = [training_assignment(experiment, method, world, state, client, masking) for client in NAMES]
    arrived = [assignment_from_bytes(assignment_to_bytes(one)) for one in sent]
    return method, world, [(one, trained(one)) for one in arrived]


def trained(assignment):
    draw = torch.Generator().manual_seed(assignment.seed)
    adapter, head = learned(assignment, draw)
    return Contribution(1, assignment.client, 9, {}, adapter, head)


def decoded(assignment, words):
    layout = layout_of(assignment.masking, assignment)
    return fixed_point_for(assignment.masking, layout).decode(words), covered(layout)


@pytest.mark.parametrize("colluding", [0, 2])
def test_whoever_drops_out_the_honest_part_of_the_noise_is_what_is_promised(colluding):
    """Of every set that the threshold lets through; 5% is far from the factor sqrt(2) of one honest share in two."""
    answers = asked(colluding=colluding)[2]
    source = np.random.default_rng(11)
    draws = 12
    added = {
        one.client: np.concatenate(
            [
                decoded(one, noisy_words(made, one, Entropy(source.bytes)) - clipped_words(made, one))[0][
                    decoded(one, clipped_words(made, one))[1]
                ]
                for _ in range(draws)
            ]
        )
        for one, made in answers
    }
    promised = MULTIPLIER * BOUND
    for size in (4, 5):
        for survivors in combinations(NAMES, size):
            honest = survivors[: size - colluding]
            deviation = sum(added[client] for client in honest).std()
            expected = promised * ((size - colluding) / (4 - colluding)) ** 0.5
            assert deviation == pytest.approx(expected, rel=0.05)
            assert deviation > 0.95 * promised


def test_those_who_keep_the_bound_are_counted_and_all_else_is_as_without_a_count():
    method, world, answers = asked()
    norms = sorted(clipped(made, one, method, world, BOUND)[1] for one, made in answers)
    for within, bound in enumerate([norms[0] / 2, *norms]):
        counted = asked(bound=bound * (1 + 1e-9), counting=3.0)[2]
        words = sum((clipped_words(made, one) for one, made in counted), np.uint64(0))
        assert decoded(counted[0][0], words)[0][-1] == within
        plain = asked(bound=bound * (1 + 1e-9))[2][0]
        found, wanted = (decoded(one, clipped_words(made, one))[0] for one, made in (counted[0], plain))
        np.testing.assert_allclose(found[:-1], wanted, atol=2e-3 * bound)


def test_sum_and_count_have_the_noise_that_is_worth_the_promise_together():
    """1.5 of the sum alone is as much as 3 of the count, whose one client counts a half, beside 1.732 of the sum."""
    one, made = asked(counting=1.5)[2][0]
    still, source = clipped_words(made, one), np.random.default_rng(5)
    draws = np.stack([decoded(one, noisy_words(made, one, Entropy(source.bytes)) - still)[0] for _ in range(400)])
    noisy = covered(layout_of(one.masking, one))
    assert draws[:, noisy].std() * 4**0.5 == pytest.approx(BOUND * (1.5**-2 - 3.0**-2) ** -0.5, rel=0.02)
    assert draws[:, -1].std() * 4**0.5 == pytest.approx(1.5, rel=0.15)
    assert not draws[:, ~noisy][:, :-1].any()


@pytest.mark.parametrize("name", FITTING)
def test_without_its_noise_the_sum_is_that_of_changes_clipped_at_a_server(name):
    method, world, answers = asked(name)
    words = sum((clipped_words(made, one) for one, made in answers), np.uint64(0))
    found, _ = decoded(answers[0][0], words)
    plain = [clipped(made, one, method, world, BOUND)[0] for one, made in answers]
    wanted = sum(to_vector(made, one) for (one, _), made in zip(answers, plain, strict=True))
    unclipped = sum(to_vector(made, one) for one, made in answers)
    assert np.linalg.norm(found - wanted) < 5 * BOUND * 2e-3
    assert np.linalg.norm(found - unclipped) > 1


@pytest.mark.parametrize("name", FITTING)
def test_one_client_moves_the_whole_numbers_by_at_most_the_bound(name):
    one, made = asked(name)[2][0]
    still = replace(made, adapter=one.start.trainable, head=one.head)
    moved = (clipped_words(made, one) - clipped_words(still, one)).view(np.int64)
    digits = fixed_point_for(one.masking, layout_of(one.masking, one)).bits
    norm = sum(int(step) ** 2 for step in moved.tolist()) ** 0.5 / 2.0**digits
    assert 0.998 * BOUND < norm <= BOUND


def test_what_only_counts_gets_no_noise():
    one, made = asked("rbla")[2][0]
    before, noisy = decoded(one, clipped_words(made, one))
    after, _ = decoded(one, noisy_words(made, one, Entropy()))
    assert np.array_equal(before[~noisy], after[~noisy])
    assert before[~noisy].sum() > 0
    assert (before[noisy] != after[noisy]).all()


def test_noise_is_another_one_each_time_whatever_the_seed_of_the_run():
    one, made = asked()[2][0]
    assert not np.array_equal(noisy_words(made, one, Entropy()), noisy_words(made, one, Entropy()))


def test_there_is_room_for_the_noise_and_a_start_beyond_the_bound_is_refused():
    one, made = asked(multiplier=400.0)[2][0]
    noisy_words(made, one, Entropy())  # deviations of 100, of which the plain fixed point allows none
    far = one.start.trainable.map(lambda _, factors: Factors(factors.a + 1e4, factors.b, factors.scaling))
    with pytest.raises(ContributionRefusedError, match="beyond the bound"):
        noisy_words(replace(made, adapter=far), replace(one, start=replace(one.start, trainable=far)), Entropy())


def test_a_bound_that_64_bits_cannot_hold_beside_the_numbers_is_refused():
    one, made = asked()[2][0]
    tiny = replace(one.masking, noise=replace(one.masking.noise, bound=1e-12), max_update_norm=1e6)
    with pytest.raises(RunError, match="no room for numbers so large, and so fine"):
        noisy_words(made, replace(one, masking=tiny), Entropy())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weighting": "examples"}, "all count alike"),
        ({"noise": None}, "all count alike"),
        ({"method": "loom"}, "plain factors are added up.*sketches"),
    ],
)
def test_a_sum_that_noise_does_not_protect_is_refused(change, named):
    one, made = asked()[2][0]
    with pytest.raises(RunError, match=named):
        noisy_words(made, replace(one, masking=replace(one.masking, **change)), Entropy())
