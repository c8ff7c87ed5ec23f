"""What the first part says: each sentence where it is due, and not otherwise."""

from dataclasses import replace

import pytest

from fedloom.report.decisions.cost import cost_section
from fedloom.report.decisions.further import further_section
from fedloom.report.decisions.incidents import incidents_section
from fedloom.report.decisions.learned import gain_section, learned_section
from fedloom.report.decisions.privacy import promise_section
from fedloom.report.decisions.reproduce import reproduce_section
from fedloom.report.document import Figures
from fedloom.report.lang.english import ENGLISH
from fedloom.report.summary import summarise
from fedloom.report.values import Release
from fedloom.spec.prices import Prices

PRICES = Prices(currency="EUR", watts_per_client=360.0, per_kwh=1000.0, per_client_hour=900.0, per_gb=1000.0)


@pytest.fixture
def run(experiment, journal):
    return summarise(experiment, journal)


def longer(experiment, journal, *losses):
    """The same run with further rounds of these losses, of 4 s and 18 kB each."""
    for number, loss in enumerate(losses, 3):
        for name in ("north", "south"):
            journal.add("contribution", round=number, client=name, seconds=2.0, bytes_up=4000, bytes_down=5000)
            journal.add("evaluation", stage="round", round=number, client=name, loss=loss, label_tokens=100, rows=10)
    return summarise(experiment, journal)


def test_what_was_learned_is_told_in_words(run):
    said = learned_section(run, ENGLISH)
    assert "On 20 rows that nobody trained on, the loss fell from 3.500 to 2.500" in said
    assert "2.72 times as probable" in said  # e to the 1
    assert "did not fall: 2.500 before, 2.500 after" in learned_section(replace(run, base=run.federated), ENGLISH)
    assert "Nothing can be said yet" in learned_section(replace(run, base=type(run.base)()), ENGLISH)


def test_gain_over_alone_by_client(experiment, journal):
    journal.add("evaluation", stage="alone", round=2, client="south", loss=0.5, label_tokens=100, rows=10)
    figures = Figures()
    said = gain_section(summarise(experiment, journal), figures)
    assert "1 of 2 clients have a lower loss with the federation than alone" in said
    assert "No gain for: south." in said
    (bars,) = figures.by_id["chart-gain"]["data"]
    assert bars["x"] == [pytest.approx(0.2), pytest.approx(-2.5)]
    assert bars["text"] == ["+0.200", "−2.500"]  # not by colour alone
    assert len(set(bars["marker"]["color"])) == 2


def test_without_baselines_it_says_how_to_measure_them(run):
    figures = Figures()
    assert "evaluation.baselines = true" in gain_section(replace(run, alone=type(run.alone)()), figures)
    assert figures.by_id == {}


def test_costs_have_hours_bytes_and_at_prices_money(run):
    unpriced = cost_section(run, ENGLISH, None)
    assert "8.0 s" in unpriced
    assert "12.0 kB up, 24.0 kB down" in unpriced
    assert "No prices were given" in unpriced
    assert "EUR" not in unpriced
    priced = cost_section(run, ENGLISH, PRICES)
    for part in ("0.800 Wh", "EUR 0.80", "EUR 2.00", "EUR 0.04", "EUR 2.84"):
        assert part in priced
    assert "Not in these sums" not in priced
    assert "per_gb" in cost_section(run, ENGLISH, Prices(per_client_hour=1.0))


def test_busy_seconds_of_a_message_go_before_those_of_training(experiment, journal):
    journal.add("contribution", round=3, client="south", seconds=1.0, busy_seconds=5.0)
    found = summarise(experiment, journal)
    assert {client.name: client.busy_seconds for client in found.clients} == {"north": 4.0, "south": 9.0}
    assert found.rounds[3].busy_by_client == {"south": 5.0}


def test_too_few_rounds_have_no_extrapolation_but_their_gains(run):
    figures = Figures()
    said = further_section(run, figures, PRICES)
    assert "No extrapolation: gains of 2 rounds are known, and fewer than 4" in said
    assert "may lower" not in said
    assert "EUR 1.42 a round" in said
    assert figures.by_id["chart-further"]["data"][0]["y"] == [0.5, 0.5]


def test_the_next_round_is_priced_by_its_gain(experiment, journal):
    losses = [2.0 + 0.5**number for number in range(2, 7)]
    journal_before = summarise(experiment, journal).rounds[2].scores.pooled.loss
    assert journal_before == 2.5
    said = further_section(longer(experiment, journal, *losses), Figures(), PRICES)
    assert "The last measured round (7) lowered the held-out loss by 0.0156" in said
    assert "The next round may lower the loss by" in said
    assert "Assumption: each round gains a fixed share of the round before, here 5" in said
    assert "The next 0.01 of lower loss then costs EUR" in said
    assert "at the prices" not in further_section(longer(experiment, journal), Figures(), None).lower()


def test_a_loss_that_rises_is_no_reason_to_go_on(experiment, journal):
    said = further_section(longer(experiment, journal, 2.4, 2.6), Figures(), None)
    assert "raised the held-out loss by 0.200" in said
    assert "the loss did not fall" in said


def test_unmeasured_runs_say_so(experiment):
    figures = Figures()
    assert "Nothing can be said" in further_section(summarise(experiment, []), figures, None)
    assert figures.by_id == {}


@pytest.mark.parametrize(("epsilon", "told"), [(1.0, "factor of 2.72"), (50.0, "An epsilon of 50.0 is large")])
def test_epsilon_is_told_in_words(run, epsilon, told):
    spent = (Release("north", 1, 0.5, 1e-5, 1.1, 0.25), Release("south", 1, epsilon, 1e-5, 1.1, 0.25))
    said = promise_section(replace(run, releases=spent), ENGLISH)
    assert told in said
    assert "most by south" in said
    assert "no formal promise" in promise_section(run, ENGLISH)


@pytest.mark.parametrize("enabled", [True, False])
def test_whether_the_server_saw_single_updates(run, enabled):
    said = promise_section(replace(run, settings={"secure_aggregation": {"enabled": enabled}}), ENGLISH)
    assert ("saw sums of updates" in said) == enabled


def test_incidents_of_any_kind_are_counted_and_shown(experiment, journal):
    assert "Nothing: no dropouts" in incidents_section(summarise(experiment, journal), ENGLISH)
    for number in (1, 2):
        journal.add("dropout", round=number, client="south", reason="asleep")
    journal.add("gate", round=2, decision="reject", reasons=["worse", "<b>"])
    journal.add("weather", wind=3, clients=["north"])
    journal.add("gate", round=3, decision="accepted")
    journal.add("excluded", round=3, client="south", by="operator", reason="unwell")
    said = incidents_section(summarise(experiment, journal), ENGLISH)
    for part in ("dropped out: 2", 'gate <code translate="no">reject</code>: 1', "shut out: 1", "asleep",
                 "5 events", "worse; &lt;b&gt;", '<code translate="no">weather</code>: 1',
                 "wind=3", "[&quot;north&quot;]"):  # fmt: skip
        assert part in said, part


def test_how_to_reproduce(run):
    said = reproduce_section(run, ENGLISH)
    for part in ("fedloom run runs/trial/experiment.toml", ">7<", "fedloom 0.1.0", "cd" * 32, "ab" * 32, "same digest"):
        assert part in said
    noisy = reproduce_section(replace(run, releases=(Release("north", 1, 1.0, 1e-5, 1.0, 0.5),)), ENGLISH)
    assert "not the same digest" in noisy
