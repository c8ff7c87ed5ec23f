"""Answers that come rounds later: they count once, as the journal says, and a run that was killed ends the same."""

import pytest
import torch

from fedloom.engine.drive import drive
from fedloom.engine.events import Journaled
from fedloom.errors import RunError
from fedloom.rounds.messages import Dropout
from fedloom.spec.experiment import WireTable
from fedloom.store.control import submit
from fedloom.store.requests import Request
from fedloom.testing.engine import NAMES, PretendEngine, pretend_experiment
from tests.some import mostly_slow

TAKING = ("loom", "fedit", "zeropad", "rbla", "ffa", "flora", "flexlora")
LATE = {"late": "next"}


class KilledError(Exception):
    """Instead of a signal."""


def kinds(loop, *kinds):
    return [record for record in loop.directory.journal.records() if record["kind"] in kinds]


def slow(*whom, **more):
    """whom: (client, round, rounds late)."""
    return PretendEngine(NAMES, slow={(client, round): wait for client, round, wait in whom}, **more)


def experiment(method="loom", **rounds):
    return pretend_experiment(method, rounds={**LATE, **rounds})


def late_ones(loop):
    return [record for record in kinds(loop, "contribution") if "late_of" in record]


def trained(loop):
    """round -> who was asked."""
    return {record["round"]: record["participants"] for record in kinds(loop, "round_started")}


@pytest.mark.parametrize("method", mostly_slow(TAKING, "loom", "fedit"))
def test_it_counts_once_in_the_round_in_which_it_comes(method, make_loop):
    loop = make_loop(experiment(method), slow(("c", 1, 1)))
    assert drive(loop).round == 4
    (record,) = late_ones(loop)
    assert (record["round"], record["client"], record["late_of"], record["late_age"]) == (2, "c", 1, 1)
    assert record["late_weight"] == 0.5 * record["examples"]
    assert trained(loop) == {1: ["a", "b", "c"], 2: ["a", "b"], 3: ["a", "b", "c"], 4: ["a", "b", "c"]}
    assert [record["contributions"] for record in kinds(loop, "round_committed")] == [2, 3, 3, 3]
    assert [(record["round"], record["client"]) for record in kinds(loop, "late")] == [(1, "c")]
    assert kinds(loop, "round_started")[1]["at_work"] == {"c": 1}
    assert not list(loop.directory.late)
    assert not kinds(loop, "dropout", "refused", "late_dropped")


def test_it_moves_the_model_and_by_its_weight(make_loop):
    ends = {}
    for name, rounds in {"dropped": {"late": "drop"}, "half": LATE, "whole": {**LATE, "staleness": 1.0}}.items():
        loop = make_loop(pretend_experiment("loom", rounds=rounds), slow(("c", 1, 1)), name=name, last_round=2)
        ends[name] = drive(loop).learned.delta().digest()
    assert len(set(ends.values())) == 3


@pytest.mark.parametrize("age", [1, 2, 3])
def test_too_old_is_dropped_and_the_client_asked_again(age, make_loop):
    loop = make_loop(experiment(max_staleness=2), slow(("c", 1, age)))
    drive(loop)
    assert [record["late_age"] for record in late_ones(loop)] == ([age] if age <= 2 else [])
    assert ["c" in trained(loop)[round] for round in (2, 3, 4)] == [False, age == 1, True]
    assert [record["late_of"] for record in kinds(loop, "late_dropped")] == ([] if age <= 2 else [1])


def test_what_is_underway_at_the_end_is_dropped_and_the_client_measured(make_loop):
    loop = make_loop(experiment(), slow(("c", 4, 1)))
    drive(loop)
    assert [(record["round"], record["client"]) for record in kinds(loop, "late_dropped")] == [(4, "c")]
    final = {record["client"] for record in kinds(loop, "evaluation") if record["stage"] == "final"}
    assert final == set(NAMES)


def test_who_is_at_work_is_not_measured_either(make_loop):
    loop = make_loop(experiment(), slow(("c", 1, 1)))
    drive(loop)
    measured = {(one["round"], one["client"]) for one in kinds(loop, "evaluation") if one["stage"] == "round"}
    assert (1, "c") not in measured
    assert (2, "c") in measured


def test_late_answers_do_not_make_a_round(make_loop):
    loop = make_loop(experiment(min_clients=2), slow(("c", 1, 1), ("b", 2, 1)))
    with pytest.raises(RunError, match="too few contributions"):
        drive(loop)


def test_a_failed_round_that_is_done_again_has_the_same_late_answer(make_loop):
    """The second attempt neither asks that client nor counts it twice."""
    broken = [True]

    def change(assignment, contribution):
        if assignment.kind == "train" and assignment.round == 2 and assignment.client == "b" and broken.pop():
            return Dropout(2, "b", "it broke")
        return contribution

    settings = experiment(min_clients=2)
    whole = drive(make_loop(settings, slow(("c", 1, 1)), name="whole"))
    loop = make_loop(settings, slow(("c", 1, 1), change=change))
    with pytest.raises(RunError, match="too few contributions"):
        drive(loop)
    loop.directory.close()
    broken.append(False)
    again = make_loop(settings, PretendEngine(NAMES))
    assert drive(again).learned.delta().digest() == whole.learned.delta().digest()
    assert len(late_ones(again)) == 1
    assert [record["participants"] for record in kinds(again, "round_started")][1:3] == [["a", "b"]] * 2


@pytest.mark.parametrize("method", mostly_slow(TAKING, "loom", "fedit"))
@pytest.mark.parametrize("moment", ["counted", "committed"])
def test_a_kill_after_it_came_ends_with_the_same_digest(method, moment, make_loop):
    whole = drive(make_loop(experiment(method), slow(("c", 1, 1)), name="whole"))

    def kill(event):
        if not isinstance(event, Journaled) or event.fields.get("round") != 2:
            return
        if (moment, event.kind) == ("counted", "contribution") and "late_of" in event.fields:
            raise KilledError
        if (moment, event.kind) == ("committed", "round_committed"):
            raise KilledError

    loop = make_loop(experiment(method), slow(("c", 1, 1)), observe=kill)
    with pytest.raises(KilledError):
        drive(loop)
    loop.directory.close()
    again = make_loop(experiment(method), PretendEngine(NAMES))
    state = drive(again)
    assert state.learned.delta().digest() == whole.learned.delta().digest()
    assert dict(state.last_rounds) == dict(whole.last_rounds)
    assert len(late_ones(again)) == 1


def test_a_kill_before_it_came_says_that_it_is_lost_and_asks_again(make_loop):
    def kill(event):
        if isinstance(event, Journaled) and (event.kind, event.fields.get("round")) == ("round_committed", 1):
            raise KilledError

    loop = make_loop(experiment(), slow(("c", 1, 1)), observe=kill)
    with pytest.raises(KilledError):
        drive(loop)
    loop.directory.close()
    again = make_loop(experiment(), PretendEngine(NAMES))
    drive(again)
    assert [(record["client"], record["late_of"]) for record in kinds(again, "late_dropped")] == [("c", 1)]
    assert trained(again)[2] == ["a", "b", "c"]
    assert not late_ones(again)


def test_a_message_that_is_there_twice_counts_once(make_loop):
    class Twice(PretendEngine):
        def overdue(self):
            for answer in super().overdue():
                yield answer
                yield answer

    loop = make_loop(experiment(), Twice(NAMES, slow={("c", 1): 1}))
    drive(loop)
    assert len(late_ones(loop)) == 1
    assert [record["client"] for record in kinds(loop, "late_dropped")] == ["c"]


def test_one_that_is_bad_or_of_a_client_that_was_shut_out_or_has_left_does_not_count(make_loop):
    def poisoned(assignment, contribution):
        if (assignment.kind, assignment.round, assignment.client) != ("train", 1, "c"):
            return contribution
        nan = contribution.adapter.map(lambda _, f: type(f)(f.a * torch.nan, f.b, f.scaling))
        return type(contribution)(1, "c", 10, {"loss": 1.0}, nan)

    bad = make_loop(experiment(), slow(("c", 1, 1), change=poisoned), name="bad")
    shut_out = make_loop(experiment(), slow(("c", 1, 1)), name="shut-out")
    shut_out.journal("excluded", round=0, client="c", by="operator", reason="why")
    shut_out.journal("readmitted", round=0, client="c", by="operator")

    def exclude(event):
        if isinstance(event, Journaled) and (event.kind, event.fields.get("round")) == ("round_committed", 1):
            shut_out.directory.journal.append("excluded", round=1, client="c", by="operator", reason="why")

    object.__setattr__(shut_out, "observe", exclude)
    table = experiment()
    leaving = [one.model_copy(update={"leaves": 2} if one.name == "c" else {}) for one in table.clients]
    left = make_loop(table.model_copy(update={"clients": tuple(leaving)}), slow(("c", 1, 1)), name="left")
    for loop, words in ((bad, "not finite"), (shut_out, "shut out"), (left, "has left")):
        drive(loop)
        assert words in "".join(record["reason"] for record in kinds(loop, "late_dropped"))
        assert not late_ones(loop)


def test_a_damaged_file_is_named(make_loop):
    def kill(event):
        if isinstance(event, Journaled) and "late_of" in event.fields:
            raise KilledError

    loop = make_loop(experiment(), slow(("c", 1, 1)), observe=kill)
    with pytest.raises(KilledError):
        drive(loop)
    loop.directory.close()
    (path,) = (loop.directory.path / "late").iterdir()
    path.write_bytes(b"nothing")
    with pytest.raises(RunError, match="damaged or missing"):
        drive(make_loop(experiment(), PretendEngine(NAMES)))


def rolling_back(loop, after, to):
    """Asks for it once, when a round is committed."""
    asked = []

    def observe(event):
        committed = isinstance(event, Journaled) and event.kind == "round_committed"
        if committed and event.fields["round"] == after and not asked:
            asked.append(submit(loop.directory.path, Request("back", "rollback", to=to)))

    object.__setattr__(loop, "observe", observe)
    return loop


def test_what_is_underway_when_the_run_is_rolled_back_never_counts(make_loop):
    loop = rolling_back(make_loop(experiment(), slow(("c", 2, 1))), after=2, to=1)
    drive(loop)
    assert [record["participants"] for record in kinds(loop, "round_started") if record["round"] == 2] == [
        ["a", "b", "c"],
        ["a", "b", "c"],
    ]
    assert [record["late_of"] for record in late_ones(loop)] == [2]  # that of the second attempt
    assert not kinds(loop, "late_dropped")


def test_what_counted_in_a_round_that_was_rolled_back_counts_in_no_other(make_loop):
    loop = rolling_back(make_loop(experiment(), slow(("c", 1, 1))), after=2, to=1)
    drive(loop)
    started = [(record["round"], record["participants"]) for record in kinds(loop, "round_started")]
    assert started[1:3] == [(2, ["a", "b"]), (2, ["a", "b", "c"])]
    assert [record["contributions"] for record in kinds(loop, "round_committed")] == [2, 3, 3, 3, 3]
    assert len(late_ones(loop)) == 1


@pytest.mark.parametrize("together", [False, True])
def test_with_reserves_late_answers_are_not_among_those_that_are_wanted(together, make_loop):
    table = experiment("fedit", participation=0.6, over_selection=0.5)
    loop = make_loop(table, slow(("c", 1, 1), together=together))
    drive(loop)
    assert {record["wanted"] for record in kinds(loop, "round_started")} == {2}
    assert [record["contributions"] for record in kinds(loop, "round_committed")] == [2, 3, 2, 2]


@pytest.mark.parametrize("method", mostly_slow(("loom", "ffa"), "ffa"))
def test_on_a_compact_wire_the_client_goes_on_from_what_it_kept(method, make_loop):
    """Its store has the round that it trained in, not the one in which that counted."""
    table = experiment(method).model_copy(update={"wire": WireTable(up="int8", down="int8")})
    found = {}

    def watch(assignment, contribution):
        found.setdefault((assignment.kind, assignment.client), []).append((assignment.round, assignment.kept_round))
        return contribution

    loop = make_loop(table, slow(("c", 1, 1), change=watch))
    drive(loop)
    assert len(late_ones(loop)) == 1
    assert found["train", "c"] == [(1, 0), (3, 1), (4, 3)]
    assert not kinds(loop, "dropout", "refused")


def test_an_engine_that_would_take_late_answers_is_not_asked_for_them(make_loop):
    loop = make_loop(pretend_experiment(), slow(("c", 1, 1)))
    drive(loop)
    assert trained(loop)[2] == ["a", "b", "c"]
    assert not late_ones(loop)


def test_without_the_setting_nothing_is_different(make_loop):
    loop = make_loop(pretend_experiment(), PretendEngine(NAMES))
    drive(loop)
    assert not (loop.directory.path / "late").exists()
    assert not [record for record in kinds(loop, "round_started") if "at_work" in record]
