"""Which method a comparison recommends, and in what words."""

from math import inf, isinf, nan

import pytest

from fedloom.evaluation.scores import Scores
from fedloom.report.recommendation import gap, recommendation
from fedloom.report.values import ClientSummary, RunSummary, Stage


def run(method, losses, *, moved=1000, base=9.0):
    """A run with one loss per client, over 100, 200, .. labels."""
    scores = {
        f"site-{number}": Scores(loss=loss, label_tokens=100 * number, rows=10) for number, loss in enumerate(losses, 1)
    }
    clients = tuple(ClientSummary(name, bytes_down=moved, bytes_up=0) for name in scores)
    first = {name: Scores(loss=base, label_tokens=100, rows=10) for name in scores}
    return RunSummary(method, method, "generation", "tiny", clients, federated=Stage(scores), base=Stage(first))


def said(**runs):
    return " ".join(recommendation(runs))


def test_the_gap_is_the_weighted_mean_and_its_standard_error():
    found = gap(run("loom", [1.0, 2.0]), run("flora", [1.3, 2.0]))
    assert found.mean == pytest.approx(0.3 * 100 / 300)
    parts = (100 / 300 * (0.3 - 0.1)) ** 2 + (200 / 300 * (0.0 - 0.1)) ** 2
    assert found.error == pytest.approx((2 * parts) ** 0.5)
    assert isinf(gap(run("loom", [1.0]), run("flora", [5.0])).error)


def test_a_clear_winner_is_taken_and_the_others_are_said_to_be_behind():
    text = said(loom=run("loom", [1.0, 2.0, 3.0]), flora=run("flora", [1.5, 2.5, 3.5]))
    assert "Take loom: its held-out loss of 2.333 is the lowest by more than chance." in text
    assert "Clearly behind: flora (0.500, ± 0.000 higher)." in text


def test_of_those_that_cannot_be_told_apart_the_one_that_moves_least_is_taken():
    text = said(loom=run("loom", [1.0, 2.0], moved=9000), rbla=run("rbla", [1.4, 1.9], moved=1500))
    assert "Take rbla: loom and rbla cannot be told apart on these rows" in text
    assert "3.00 kB in all" in text
    assert "Clearly behind" not in text


def test_one_client_does_not_tell_how_sure_a_difference_is():
    assert "cannot be told apart" in said(loom=run("loom", [1.0]), flora=run("flora", [5.0]))


def test_who_sees_what_is_said_with_the_best_that_reveals_the_sum_alone():
    runs = {"raflora": run("raflora", [1.0, 1.0]), "ffa": run("ffa", [2.0, 2.0]), "zeropad": run("zeropad", [3.0, 3.0])}
    assert "where it may only see their sum, take ffa, with a loss of 2.000" in said(**runs)
    assert "needs to see the sum of the clients' factors alone" in said(ffa=runs["ffa"], zeropad=runs["zeropad"])
    assert "the sum of the clients' deltas alone" in said(loom=run("loom", [1.0, 1.0]), ffa=runs["ffa"])


def test_a_client_that_another_method_serves_better_is_named():
    text = said(loom=run("loom", [3.0, 1.0, 1.0]), rbla=run("rbla", [2.5, 2.0, 2.0]))
    assert "site-1, which is off worst, does better with rbla: 2.500 instead of 3.000." in text


def test_a_comparison_that_made_everything_worse_says_so():
    text = said(loom=run("loom", [1.0, 1.0], base=0.5), flora=run("flora", [2.0, 2.0], base=0.5))
    assert "No method here is better than the base model, whose loss is 0.500" in text


def test_nothing_is_recommended_where_nothing_can_be_compared():
    assert recommendation({"loom": run("loom", [1.0])}) == ()
    assert recommendation({"loom": run("loom", [1.0]), "flora": run("flora", [nan])}) == ()
    assert recommendation({"loom": run("loom", [1.0]), "flora": run("flora", [inf])}) == ()
    other = RunSummary("flora", "flora", "generation", "tiny", (), federated=Stage({"far": Scores(2.0, 100, 10)}))
    assert "no client in common" in " ".join(recommendation({"loom": run("loom", [1.0]), "flora": other}))
