"""How different clients are: the ends of the scale, what must not matter, and a slow oracle."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.errors import FedLoomError
from fedloom.evaluation.advice import advice, warnings
from fedloom.evaluation.heterogeneity import compared
from fedloom.rounds.portrait import BINS, Portrait

few = settings(max_examples=25, deadline=None)
clients_of = st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any), min_size=2, max_size=5)


def portrait(client, counts, *, kind="labels", prints=(), repeated=0, epsilon=None):
    lengths = (0, 0, 0, sum(counts), *[0] * (BINS - 4))
    names = tuple(f"label {place}" for place in range(len(counts)))
    return Portrait(client, "words", lengths, kind, names, tuple(counts), frozenset(prints), repeated, epsilon)


def portraits(rows, **more):
    return [portrait(f"site-{place}", counts, **more) for place, counts in enumerate(rows)]


@few
@given(st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(any), st.integers(2, 5))
def test_identical_clients_have_no_distance_and_no_score(counts, clients):
    found = compared(portraits([counts] * clients))
    assert found.score == 0
    assert all(distance == 0 for row in found.distances for distance in row)


@few
@given(st.lists(st.integers(1, 50), min_size=2, max_size=5))
def test_clients_with_labels_of_their_own_are_as_different_as_can_be(sizes):
    rows = [[size if place == own else 0 for place in range(len(sizes))] for own, size in enumerate(sizes)]
    found = compared(portraits(rows))
    assert found.score == pytest.approx(1)
    for own, row in enumerate(found.distances):
        assert [value == pytest.approx(float(own != place)) for place, value in enumerate(row)] == [True] * len(row)


@few
@given(clients_of, st.randoms(use_true_random=False))
def test_the_order_of_clients_does_not_matter(rows, draw):
    every = portraits(rows)
    shuffled = draw.sample(every, len(every))
    one, other = compared(every), compared(shuffled)
    assert other.score == pytest.approx(one.score, abs=1e-12)
    place = {client: number for number, client in enumerate(other.clients)}
    for a, first in enumerate(one.clients):
        for b, second in enumerate(one.clients):
            assert other.distances[place[first]][place[second]] == pytest.approx(one.distances[a][b], abs=1e-7)


@few
@given(clients_of)
def test_score_and_distances_are_those_of_the_formulas_term_by_term(rows):
    found = compared(portraits(rows))
    total = sum(map(sum, rows))
    joint = [[count / total for count in row] for row in rows]
    label = [sum(column) for column in zip(*joint, strict=True)]
    client = [sum(row) for row in joint]
    mutual = sum(
        p * math.log(p / (client[k] * label[c])) for k, row in enumerate(joint) for c, p in enumerate(row) if p
    )
    assert found.score == pytest.approx(mutual / -sum(w * math.log(w) for w in client), abs=1e-9)
    p, q = ([count / sum(row) for count in row] for row in rows[:2])
    middle = [(one + other) / 2 for one, other in zip(p, q, strict=True)]
    divergence = sum(x * math.log2(x / m) / 2 for s in (p, q) for x, m in zip(s, middle, strict=True) if x)
    assert found.distances[0][1] ** 2 == pytest.approx(divergence, abs=1e-9)
    assert found.distances[0][1] == found.distances[1][0]


def test_what_chance_makes_is_about_what_equal_clients_have():
    import numpy as np

    draw = np.random.default_rng(5)
    scores = []
    for _ in range(40):
        found = compared(portraits(draw.multinomial(60, [0.25] * 4, size=3).tolist()))
        scores.append((found.score, found.by_chance))
    measured, said = (sum(column) / 40 for column in zip(*scores, strict=True))
    assert said == pytest.approx(measured, rel=0.3)


def test_counts_below_zero_are_none_and_an_empty_client_is_no_error():
    found = compared(portraits([[3, -2], [0, -5], [3, 0]]))
    assert found.score == 0
    assert found.distances == ((0, 0, 0),) * 3


def test_rows_in_common_are_counted_in_pairs():
    some = [portrait("a", [3], prints="xyz"), portrait("b", [3], prints="yzw"), portrait("c", [3], prints="u")]
    assert compared(some).shared == {("a", "b"): 2}
    assert compared([some[0], portrait("b", [3], repeated=None)]).shared is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "no clients"),
        ([portrait("a", [1]), portrait("a", [1])], "two portraits of one client"),
        ([portrait("a", [1]), portrait("b", [1, 2])], "cannot be compared"),
        ([portrait("a", [1]), portrait("b", [1], epsilon=1.0)], "cannot be compared"),
    ],
)
def test_what_cannot_be_compared_is_refused(wrong, said):
    with pytest.raises(FedLoomError, match=said):
        compared(wrong)


def test_clients_that_are_tiny_skewed_unequal_or_doubled_are_pointed_at():
    said = list(
        warnings(
            compared(
                [
                    portrait("small", [20, 20], prints="abcdef"),
                    portrait("skewed", [950, 50], prints=("a", "b", "c", "d", "e")),
                    portrait("twice", [300, 300], repeated=100),
                ]
            )
        )
    )
    assert [one for one in said if "tiny" in one] == [
        "small is tiny: 40 rows, fewer than 50; what it measures is mostly chance"
    ]
    assert any("skewed is skewed: 95% of its rows are 'label 0'" in one for one in said)
    assert any("twice has 100 of its 600 rows more than once" in one for one in said)
    assert any("skewed has 1000 rows and small has 40" in one for one in said)
    assert any("small and skewed have 5 rows in common" in one for one in said)
    assert list(warnings(compared(portraits([[300, 300], [310, 290]])))) == []


def test_noise_that_drowns_a_client_is_said():
    some = portraits([[20, 20], [4000, 4000]], epsilon=0.1, repeated=None)
    drowned = [one for one in warnings(compared(some)) if "noise changes" in one]
    assert len(drowned) == 1
    assert drowned[0].startswith("site-0: noise changes about 40 of its 40 counts")


@pytest.mark.parametrize(
    ("rows", "kind", "method", "rank"),
    [
        ([[300, 300], [310, 290]], "labels", "Method: loom, one model for all. The clients are alike", "Rank: 8"),
        ([[300, 100], [100, 300]], "labels", "evaluation.baselines = true. The clients differ somewhat", "Rank: 8"),
        ([[90, 0], [0, 90]], "labels", "The clients see different classes (1.00 beyond chance", "Rank: 4"),
        ([[9000, 0], [0, 9000]], "words", "Method: fedalt, a model of its own", "Rank: 16"),
        ([[90, 9]], "labels", "One client alone", "Rank: 4"),
    ],
)
def test_advice_follows_the_score_and_the_number_of_rows(rows, kind, method, rank):
    said = list(advice(compared(portraits(rows, kind=kind))))
    assert method in said[0]
    assert ("layerwise" in said[0]) == ("different classes" in method)
    assert said[1].startswith(rank)
