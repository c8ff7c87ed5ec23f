"""The suite of images: how digits are divided, and the reference that trains all weights."""

import pytest
from evidence import tiny
from evidence.measure import measure
from evidence.variants import variant

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
digits = pytest.importorskip("digits")
images = pytest.importorskip("evidence.images")


@pytest.fixture
def pictures(tmp_path):
    """The suite of images in small, and a problem of it."""
    suite = tiny.quick(images.SUITE, tmp_path)
    return suite, suite.problem(tmp_path, next(iter(suite.settings.values())), 0)


def test_every_client_has_one_digit_or_two_neighbours():
    rows = [{"label": label, "row": row} for label in images.CLASSES for row in range(4)]
    one, two = images.shares(rows, 1), images.shares(rows, 2)
    assert [{row["label"] for row in share} for share in one] == [{label} for label in images.CLASSES]
    assert [{row["label"] for row in share} for share in two[:2]] == [{"0", "1"}, {"1", "2"}]
    for shares in (one, two):
        assert sorted((row["label"], row["row"]) for share in shares for row in share) == sorted(
            (row["label"], row["row"]) for row in rows
        )


@pytest.mark.slow
def test_images_are_compared_with_all_weights_trained(pictures):
    suite, problem = pictures
    still, again, learned = (suite.references["full"](problem, rate) for rate in (1e-12, 1e-12, 1e-2))
    assert still["validation_loss"] == again["validation_loss"]
    assert learned["validation_loss"] < still["validation_loss"]
    federated = measure(problem, variant("loom"), 1e-2)
    assert federated["test_rows"] == learned["test_rows"] == len(digits.digit_rows(0)["test"])


def test_the_leading_rank_indices_of_rbla_are_judged_apart(pictures):
    _, problem = pictures
    metrics = measure(problem, variant("rbla"), 0.3)
    assert metrics[f"leading_{images.RANKS[0]}_loss"] != metrics["test_loss"]
