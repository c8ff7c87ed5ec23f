"""Made-up rows: drawn from the seed alone, in or out by a coin, and never among what is held out."""

import json
from collections import Counter

import pytest

from fedloom.data.canaries import planted
from fedloom.data.clients import load_client
from fedloom.data.examples import Classification, Generation
from fedloom.errors import DataError
from fedloom.spec.experiment import Experiment

CHATS = [{"prompt": f"What is {number}?", "response": f"It is {number}."} for number in range(20)]
TEXTS = [{"text": f"text {number}", "label": "xy"[number % 2]} for number in range(20)]


@pytest.fixture
def experiment_of(tmp_path):
    """experiment_of(canaries, task=..., rows=...) -> an experiment of the client "a" (and "b", with the same rows)."""

    def make(canaries, task="generation", rows=None, seed=7, **model):
        path = tmp_path / "rows.jsonl"
        rows = rows or (CHATS if task == "generation" else TEXTS)
        path.write_text("\n".join(map(json.dumps, rows)))
        return Experiment(
            seed=seed,
            model={"task": task, **model},
            privacy={"canaries": canaries},
            clients=[{"name": name, "data": str(path)} for name in "ab"],
        )

    return make


def test_without_canaries_a_client_has_what_it_had(experiment_of):
    without, some = load_client(experiment_of(0), "a"), load_client(experiment_of(30), "a")
    assert without.canaries == ()
    assert some.train[: len(without.train)] == without.train
    assert some.held_out == without.held_out
    assert some.digest() != without.digest()


def test_those_that_are_included_are_the_last_rows_to_train_and_the_others_are_nowhere(experiment_of):
    data = load_client(experiment_of(30), "a")
    included = [canary.example for canary in data.canaries if canary.included]
    left_out = [canary.example for canary in data.canaries if not canary.included]
    assert 5 < len(included) < 25
    assert list(data.train[-len(included) :]) == included
    assert len(data.train) == 18 + len(included)
    assert not set(left_out) & {*data.train, *data.held_out}
    assert not set(included) & set(data.held_out)


def test_they_come_from_the_seed_and_the_client_and_from_no_row(experiment_of):
    canaries = load_client(experiment_of(30), "a").canaries
    assert load_client(experiment_of(30), "a").canaries == canaries
    assert load_client(experiment_of(30, rows=CHATS[3:]), "a").canaries == canaries
    for other in (load_client(experiment_of(30), "b"), load_client(experiment_of(30, seed=8), "a")):
        assert not {one.example for one in canaries} & {one.example for one in other.canaries}
        assert [one.included for one in canaries] != [one.included for one in other.canaries]


def test_coins_are_fair_and_depend_on_nothing_of_the_text(experiment_of):
    canaries = planted(experiment_of(4000), "a", ())
    assert 1900 < sum(canary.included for canary in canaries) < 2100
    digits = Counter((canary.included, canary.example.response[0]) for canary in canaries)
    assert all(130 < digits[included, digit] < 270 for included in (True, False) for digit in "0123456789")


def test_questions_hardly_repeat_and_answers_are_eight_digits(experiment_of):
    canaries = planted(experiment_of(1000), "a", ())
    assert all(isinstance(canary.example, Generation) for canary in canaries)
    assert len({canary.example.prompt_messages for canary in canaries}) == 1000
    assert all(len(canary.example.response) == 8 and canary.example.response.isdigit() for canary in canaries)


def test_texts_have_classes_of_the_client_or_of_the_model(experiment_of):
    canaries = load_client(experiment_of(60, "classification"), "a").canaries
    assert all(isinstance(canary.example, Classification) for canary in canaries)
    assert {canary.example.label for canary in canaries} == {"x", "y"}
    named = load_client(experiment_of(60, "classification", labels=("x", "y", "z")), "a").canaries
    assert {canary.example.label for canary in named} == {"x", "y", "z"}


def test_a_client_of_one_class_is_told_to_name_the_classes(experiment_of):
    lonely = experiment_of(4, "classification", rows=[{**row, "label": "x"} for row in TEXTS])
    with pytest.raises(DataError, match=r"client 'a': canaries need classes.*at least 2.*found x.*\[model\] labels"):
        load_client(lonely, "a")
