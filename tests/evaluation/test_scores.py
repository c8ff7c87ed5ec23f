"""Scores of answers, and pooling."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.errors import DataError
from fedloom.evaluation.scores import (
    Scores,
    accuracy,
    answer_scores,
    exact_match,
    pooled,
    rouge1,
    rougeL,
    scores_of,
    words,
)

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=7).map(" ".join)


# Values of the package rouge-score 0.1.2, use_stemmer=False.
@pytest.mark.parametrize(
    ("prediction", "reference", "one", "longest"),
    [
        ("The cat sat on the mat.", "the cat is on the mat", 5 / 6, 5 / 6),
        ("Return a_b-c, e.g. x2!", "returns a b c x2", 2 / 3, 2 / 3),
        ("b a b a", "a b a b b", 8 / 9, 2 / 3),
        ("copy a file\nand its mode", "Copy its mode and a file.", 1.0, 0.5),
        ("don't split", "do not split don t", 0.75, 0.5),
        ("", "x", 0.0, 0.0),
        ("...", "...", 0.0, 0.0),
    ],
)
def test_rouge_equals_the_reference_package(prediction, reference, one, longest):
    assert rouge1(prediction, reference) == pytest.approx(one)
    assert rougeL(prediction, reference) == pytest.approx(longest)


@given(TEXTS, TEXTS)
def test_rouge_l_equals_the_longest_of_all_common_subsequences(left, right):
    subsequences = [
        {pick for length in range(len(text.split()) + 1) for pick in combinations(text.split(), length)}
        for text in (left, right)
    ]
    longest = max(map(len, subsequences[0] & subsequences[1]))
    total = len(left.split()) + len(right.split())
    assert rougeL(left, right) == pytest.approx(2 * longest / total if total else 0.0)


@given(TEXTS.filter(bool), TEXTS)
def test_rouge_is_symmetric_bounded_and_one_for_equal_texts(left, right):
    for score in (rouge1, rougeL):
        assert score(left, left) == 1.0
        assert score(left, right) == score(right, left)
    assert 0 <= rougeL(left, right) <= rouge1(left, right) <= 1


def test_words_of_other_scripts_count():
    assert words("Größe über_alles 東京へ") == ["größe", "über", "alles", "東", "京", "へ"]
    assert rouge1("東京へ行く", "京都へ行く") == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("prediction", "same"), [(" Yes,\n it  IS", True), ("yes it is", False), ("yes, it is not", False)]
)
def test_exact_match_ignores_case_and_white_space_only(prediction, same):
    assert exact_match(prediction, "yes, it is") is same


def test_answer_scores_are_means_over_rows():
    found = answer_scores(["a b", "c"], ["a b", "d"])
    assert found == {"rouge1": 0.5, "rougeL": 0.5, "exact_match": 0.5, "generated_rows": 2}


@pytest.mark.parametrize("score", [accuracy, answer_scores])
@pytest.mark.parametrize("pair", [([], []), (["a"], ["a", "b"])])
def test_scores_need_one_prediction_per_row(score, pair):
    with pytest.raises(DataError, match="per row"):
        score(*pair)


def test_accuracy_is_the_share_of_equal_classes():
    assert accuracy([1, 2, 3, 3], [1, 2, 0, 3]) == 0.75


ROWS = st.tuples(st.floats(0, 9), st.integers(1, 30), st.floats(0, 1), st.booleans())


def _of_rows(rows):
    """The scores of single rows (loss, label tokens, ROUGE, right or wrong), the slow way."""
    tokens = sum(row[1] for row in rows)
    return Scores(
        loss=sum(loss * count for loss, count, *_ in rows) / tokens,
        label_tokens=tokens,
        rows=len(rows),
        rouge1=sum(row[2] for row in rows) / len(rows),
        accuracy=sum(row[3] for row in rows) / len(rows),
        generated_rows=len(rows),
    )


@given(st.lists(st.lists(ROWS, min_size=1, max_size=5), min_size=1, max_size=4))
def test_pooled_scores_are_those_of_all_rows_in_one_place(clients):
    found = pooled({str(number): _of_rows(rows) for number, rows in enumerate(clients)})
    expected = _of_rows([row for rows in clients for row in rows])
    assert (found.label_tokens, found.rows, found.generated_rows) == (
        expected.label_tokens,
        expected.rows,
        expected.rows,
    )
    for name in ("loss", "rouge1", "accuracy"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))


def test_pooled_does_not_mix_up_counts():
    few, many = Scores(1.0, 10, 1, 0.0, accuracy=0.0, generated_rows=3), Scores(2.0, 30, 3, 1.0, accuracy=1.0)
    found = pooled({"few": few, "many": replace(many, generated_rows=1)})
    assert (found.loss, found.accuracy, found.rouge1) == (1.75, 0.75, 0.25)


def test_what_one_client_did_not_measure_is_not_pooled():
    found = pooled({"a": Scores(1.0, 10, 5, 0.5, generated_rows=5), "b": Scores(1.0, 10, 5)})
    assert found.rouge1 is None
    assert found.loss == 1.0


def test_a_client_without_labels_does_not_poison_the_loss():
    assert pooled({"a": Scores(1.0, 10, 5), "b": Scores(math.nan, 0, 2)}).loss == 1.0


@pytest.mark.parametrize("clients", [{}, {"a": Scores(1.0, 0, 3)}])
def test_nothing_to_pool_is_an_error(clients):
    with pytest.raises(DataError, match="no label tokens"):
        pooled(clients)


def test_a_negative_count_is_refused():
    with pytest.raises(DataError, match=r"label_tokens.*-1"):
        Scores(1.0, -1, 1)


def test_scores_of_a_journal_record():
    record = {"stage": "final", "client": "a", "loss": 1.5, "label_tokens": 20.0, "rows": 4.0, "rouge1": 0.2}
    assert scores_of(record) == Scores(1.5, 20, 4, rouge1=0.2)


def test_a_diverged_loss_is_kept_and_a_missing_one_is_an_error():
    record = {"client": "a", "loss": None, "label_tokens": 20, "rows": 4}
    assert math.isnan(scores_of(record | {"not_finite": {"loss": "nan"}}).loss)
    with pytest.raises(DataError, match=r"'a'.*loss missing"):
        scores_of(record)
