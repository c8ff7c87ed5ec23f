"""What was spent, by the journal of a run."""

from dataclasses import replace

import pytest

from fedloom.report.spending import epsilon_by_round, last_of, privacy_section, releases
from fedloom.report.summary import summarise
from fedloom.report.values import Release


def sent(client, round, epsilon, **changes):
    fields = {"delta": 1e-5, "noise_multiplier": 1.1, "sampling_rate": 0.25, **changes}
    return {"kind": "contribution", "client": client, "round": round, "epsilon": epsilon, **fields}


RECORDS = [
    sent("a", 1, 2.0),
    sent("b", 1, 3.0),
    {"kind": "dropout", "client": "b", "round": 2, "reason": "asleep"},
    sent("a", 2, 2.5),
    sent("a", 2, 2.5),  # the same bytes, sent again after a crash
    {"kind": "rolled_back", "round": 1},
    sent("a", 2, 3.5),  # another answer for round 2
    {"kind": "contribution", "client": "c", "round": 1, "loss": 2.0},
]


def test_each_release_counts_once_also_those_that_were_rolled_back():
    found = releases(RECORDS)
    assert [(one.client, one.round, one.epsilon) for one in found] == [
        *(("a", 1, 2.0), ("b", 1, 3.0), ("a", 2, 2.5), ("a", 2, 3.5))
    ]
    assert found[1] == Release("b", 1, 3.0, 1e-5, 1.1, 0.25)


def test_what_was_spent_stays_spent():
    found = releases([*RECORDS, sent("a", 1, 1.0)])
    assert {client: one.epsilon for client, one in last_of(found).items()} == {"a": 3.5, "b": 3.0}
    assert epsilon_by_round(found) == {1: {"a": 2.0, "b": 3.0}, 2: {"a": 3.5}}


@pytest.fixture
def summary(experiment, journal):
    return summarise(experiment, journal)


def test_the_page_has_a_row_for_each_client_and_none_without_noise(summary):
    assert privacy_section(summary) == ""
    page = privacy_section(replace(summary, releases=releases(RECORDS), settings={"privacy": {"accountant": "pld"}}))
    assert ">a</th>" in page
    assert all(number in page for number in (">3<", ">1.1<", ">0.2500<", ">3.500<", ">1e-05<", "bound pld"))


def test_the_page_says_that_rows_were_planted_with_noise_and_without(summary):
    planted = {"privacy": {"canaries": 12}}
    for page in (
        privacy_section(replace(summary, settings=planted)),
        privacy_section(replace(summary, settings=planted, releases=releases(RECORDS))),
    ):
        assert "Canaries: 12 made-up rows are planted at each client" in page


def test_a_summary_has_the_releases_of_its_journal(experiment, journal):
    journal.add(**sent("north", 2, 1.5))
    assert [one.epsilon for one in summarise(experiment, journal).releases] == [1.5]
