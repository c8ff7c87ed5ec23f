"""The view of a run, record by record, against the report's summary of the whole journal."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fedloom.dashboard.fold import fold_
from fedloom.dashboard.shown import apply, delta, quantile, shown, states_of, table
from fedloom.dashboard.state import View
from fedloom.engine.control import ask
from fedloom.engine.drive import drive
from fedloom.report.summary import summarise
from fedloom.rounds.messages import Dropout
from fedloom.store.requests import Request
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.engine import NAMES, PretendEngine

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def view_of(records):
    view = View("run", planned_rounds=4)
    for record in records:
        fold_(view, record)
    return view


def b_drops_out(asked, contribution):
    return (
        Dropout(round=asked.round, client="b", reason="a cable was pulled")
        if (asked.client, asked.round) == ("b", 2)
        else contribution
    )


def agrees(path):
    directory = RunDirectory.open(path)
    records = directory.journal.records()
    view, summary = view_of(records), summarise(directory.experiment(), records)
    rows = shown(view, NOW)["rounds"]
    for round in summary.rounds:
        row = rows[str(round.number)]
        pooled = round.scores.pooled
        assert row["loss"] == (None if pooled is None else pytest.approx(pooled.loss, rel=1e-5))
        assert (row["bytes_up"], row["bytes_down"]) == (round.bytes_up, round.bytes_down)
    assert sorted(rows) == sorted(str(round.number) for round in summary.rounds)
    for client in summary.clients:
        found = view.clients[client.name]
        for name in ("contributions", "dropouts", "refused", "bytes_up", "bytes_down"):
            assert getattr(found, name) == getattr(client, name), (client.name, name)
    assert sum(view.alert_counts.values()) == len(summary.events)
    return view


def test_the_fold_says_what_the_report_says(make_loop):
    loop = make_loop(engine=PretendEngine(NAMES, change=b_drops_out))
    drive(loop)
    view = agrees(loop.directory.path)
    assert view.latest == 4
    assert view.clients["b"].dropouts == 3  # it did not measure either, before and after
    assert {(alert["kind"], alert["client"]) for alert in view.alerts} == {("dropout", "b")}
    assert "cable" in view.alerts[0]["reason"]
    row = shown(view, NOW)["rounds"]["2"]
    assert (row["participants"], row["contributed"], row["gone"]) == (3, 2, 1)


def test_who_is_late_is_said_to_be_until_its_answer_counts(make_loop):
    loop = make_loop(engine=PretendEngine(NAMES, slow={("c", 1): 1, ("b", 3): 2}), rounds={"late": "next"})
    drive(loop)
    records = loop.directory.journal.records()
    came = next(number for number, record in enumerate(records) if "late_of" in record)
    assert states_of(view_of(records[:came]), NOW)["c"] == "late"
    assert states_of(view_of(records[: came + 1]), NOW)["c"] == "contributed"
    view = agrees(loop.directory.path)
    assert [view.rounds[round].answered.get("c") for round in (1, 2)] == ["late", "contributed"]
    assert dict(view.alert_counts) == {"late": 2, "late_dropped": 1}
    assert view.unknown == 0


def test_who_was_late_to_measure_and_to_train_is_late_in_the_round_it_was_to_train_in():
    late = {"kind": "late", "client": "a", "stage": "round", "reason": "enough others had answered"}
    view = view_of([{**late, "round": 1}, {**late, "round": 2, "stage": ""}])
    assert {number: each.answered for number, each in view.rounds.items()} == {2: {"a": "late"}}
    assert (view.clients["a"].dropouts, view.alert_counts["late"]) == (0, 2)
    gone = {"kind": "dropout", "client": "a", "round": 1, "stage": "old-holdout", "reason": "it broke"}
    contribution = {"kind": "contribution", "client": "a", "round": 1}
    assert view_of([contribution, gone]).rounds[1].answered == {"a": "contributed"}


def test_what_a_client_may_use_is_told_in_words():
    told = {"kind": "budget", "round": 1, "client": "a"}
    limits = {"memory": 3e9, "deadline": None, "upload": 2e7}
    view = view_of([{**told, "limits": limits, "by": "operator"}, {**told, "limits": {"memory": 5e8}, "by": "site"}])
    assert [alert["reason"] for alert in view.alerts] == [
        "memory 3 GB, deadline none, upload 20 MB, as an operator says",
        "memory 500 MB, as its site says",
    ]


def test_what_was_rolled_back_is_gone_and_was_spent(finished):
    before = view_of(RunDirectory.open(finished).journal.records())
    ask(finished, Request("back", "rollback", to=2, reason="it went wrong"))
    ask(finished, Request("out", "exclude", client="b", reason="odd"))
    after = view_of(RunDirectory.open(finished).journal.records())
    assert (before.latest, after.latest) == (4, 2)
    assert after.bytes_up == before.bytes_up > 0
    assert sorted(shown(after, NOW)["rounds"]) == ["0", "1", "2"]
    assert after.excluded == {"b": "odd"}
    assert states_of(after, NOW)["b"] == "excluded"
    assert after.clients["a"].loss == after.rounds[2].measured["a"].loss != before.clients["a"].loss


def test_every_delta_leads_from_one_page_to_the_next(finished):
    ask(finished, Request("back", "rollback", to=1))
    records = RunDirectory.open(finished).journal.records()
    pages = [shown(view_of(records[:count]), NOW) for count in range(len(records) + 1)]
    changed = 0
    for before, after in itertools.pairwise(pages):
        change = delta(before, after)
        assert apply(before, change) == after
        changed += len(change["rows"].get("rounds", {}))
    assert len(records) / 4 < changed < 2 * len(records)
    assert delta(pages[-1], pages[-1]) == {"set": {}, "rows": {}, "gone": {}}


def test_who_is_training_who_is_late_and_who_answered(finished):
    records = RunDirectory.open(finished).journal.records()
    begins = next(number for number, record in enumerate(records) if record["kind"] == "round_started")
    first = next(number for number, record in enumerate(records) if record["kind"] == "contribution")
    begun = view_of(records[: begins + 1])
    assert set(states_of(begun, NOW).values()) == {"training"}
    second = view_of(records[: first + 2])
    round = second.current
    now = datetime.fromisoformat(round.started)
    assert sorted(states_of(second, now).values()) == ["contributed", "contributed", "training"]
    assert sorted(states_of(second, now + timedelta(seconds=60)).values()) == ["contributed", "contributed", "late"]


def test_gate_robust_and_unknown_kinds_become_alerts():
    kinds = [
        {"kind": "round_started", "round": 1, "participants": ["a"], "time": "2026-01-01T00:00:00+00:00"},
        {"kind": "gate", "round": 1, "decision": "accepted", "reasons": []},
        {"kind": "gate", "round": 2, "decision": "rejected", "reasons": ["the loss rose"]},
        {"kind": "robust", "round": 2, "dropped": ["a"], "scores": {"a": 7.0}},
        {"kind": "contribution", "round": 2, "client": "a", "epsilon": 2.5},
        {"kind": "contribution", "round": 3, "client": "a", "epsilon": 1.5},
        {"kind": "from_tomorrow", "reason": "who knows"},
        {"kind": "similarity", "round": 3, "clients": ["a", "b"], "cosines": [[1, 0], [0, 1]],
         "shares": [[0, 1], [1, 0]], "weights": [1, 1]},
    ]  # fmt: skip
    view = view_of([{"number": number, **record} for number, record in enumerate(kinds, 1)])
    assert [(alert["kind"], alert["reason"]) for alert in view.alerts] == [
        ("gate", "the loss rose"),
        ("robust", "left out of the sum: a"),
        ("from_tomorrow", "who knows"),
    ]
    page = shown(view, NOW)
    assert view.unknown == 1
    assert page["totals"]["epsilon"] == 2.5
    assert page["rounds"]["2"]["gate"] == "rejected"
    assert view.clients["a"].anomaly == 7.0
    assert page["similarity"]["shares"] == [[0, 1], [1, 0]]


def test_the_table_is_sorted_searched_and_paged(finished):
    view = view_of(RunDirectory.open(finished).journal.records())
    losses = {name: client.loss for name, client in view.clients.items()}
    view.clients["b"] = replace(view.clients["b"], loss=None)
    page = {"search": "", "offset": 0, "limit": 2, "sort": "loss", "descending": True}
    found = table(view, NOW, **page)
    others = sorted("ac", key=lambda name: losses[name], reverse=True)
    assert [row["name"] for row in found["rows"]] == others
    assert [row["name"] for row in table(view, NOW, **page | {"offset": 2})["rows"]] == ["b"]
    assert table(view, NOW, **page | {"search": "B"})["total"] == 1


def test_a_quantile_is_the_nearest_rank():
    values = [float(number) for number in range(1, 11)]
    assert [quantile(values, share) for share in (0.1, 0.5, 0.9, 1.0)] == [1, 5, 9, 10]
    assert quantile([3.0], 0.1) == 3.0
    assert quantile([], 0.5) is None
