"""A run whose clients measure more memory than planned, or may use something else than before, is planned anew."""

from dataclasses import replace

import pytest

from fedloom.engine.control import ask
from fedloom.engine.drive import drive
from fedloom.engine.events import Journaled
from fedloom.engine.planner import from_text, to_text
from fedloom.engine.planning import client_choice, work_of
from fedloom.engine.replanning import REPLANNED, as_replanned
from fedloom.engine.surprises import SURPRISE, Surprise
from fedloom.errors import RunError
from fedloom.report.summary import summarise
from fedloom.rounds.budgets import BUDGET
from fedloom.store.control import submit
from fedloom.store.requests import Request
from fedloom.testing.engine import NAMES
from tests.engine.planned_loops import (
    ARCHITECTURE,
    left_open,
    planned_loop,
    planner_of,
    ranks,
    records,
    saying,
    sent_ranks,
)

ENOUGH, LITTLE = 40_000.0, 14_000.0  # bytes: for the whole ladder, and for one layer


@pytest.fixture
def steady(make_loop):
    """steady(name, memory, **limits): a run whose clients say nothing of their seconds, and thus surprise by none."""

    def make(name="run", memory=ENOUGH, **limits):
        experiment = left_open(deadline=None, memory=memory)
        return saying(planned_loop(make_loop, 0.1, name, experiment, **limits), *NAMES, seconds=None)

    return make


def bytes_of(loop):
    """What the planner expects of the peak memory of client a's training."""
    known = loop.planner.known["a"]
    choice = client_choice(loop.experiment, loop.world, "a", ARCHITECTURE, known.machine)
    return loop.planner.expected_memory("a", choice, work_of(loop.experiment, known))


def after(loop):
    """The loop with all that its journal decided."""
    return as_replanned(loop, records(loop))


def asking(loop, *wishes):
    """The loop that is asked: each wish (round, Request) as soon as that round is committed, for the first time."""
    left = list(wishes)

    def observe(event):
        if isinstance(event, Journaled) and event.kind == "round_committed":
            for wish in [each for each in left if each[0] == event.fields["round"]]:
                left.remove(wish)
                submit(loop.directory.path, wish[1])

    return replace(loop, observe=observe)


def budget(client="a", id="less", reason="an old machine", **limits):
    return Request(id, "budget", client=client, limits=limits, reason=reason)


def allowing(loop, limits):
    """The loop whose sites say this: limits: after a round -> client -> bytes."""

    def allow(round):
        told = [limits[each] for each in sorted(limits) if each <= round]
        return told[-1] if told else {}

    return replace(loop, engine=replace(loop.engine, allow=allow))


def test_the_small_memory_of_these_tests_binds(steady):
    assert sum(ranks(steady("enough"))["a"].values()) > sum(ranks(steady("little", LITTLE))["a"].values()) > 0


def test_who_takes_more_memory_than_planned_is_given_less_until_it_fits(steady):
    loop = steady(memory=LITTLE)
    measured = 1.15 * bytes_of(loop)
    rounds = sent_ranks(saying(loop, memory_bytes=measured))
    assert rounds[1] == ranks(loop)["a"]
    assert sum(rounds[2].values()) < sum(rounds[1].values())
    first = records(loop)[0]
    assert (first["factors"], first["memory"]) == ({}, {"a": 1.15})
    [because] = first["because"]
    assert because == {
        "client": "a",
        "what": "memory",
        "measured": pytest.approx(measured),
        "planned": pytest.approx(bytes_of(loop)),
    }
    assert "a took" in first["reason"]
    assert "of memory, planned were" in first["reason"]
    assert set(first["clients"]) == {"a"}


def test_a_plan_after_more_memory_counts_it_and_fits(steady):
    loop = steady(memory=LITTLE)
    drive(saying(replace(loop, last_round=2), memory_bytes=1.15 * bytes_of(loop)))
    now = after(loop)
    assert now.planner.known["a"].machine.memory_factor == 1.15
    assert bytes_of(now) <= LITTLE
    assert now.planner.known["b"] == loop.planner.known["b"]


@pytest.mark.parametrize("share", [0.2, 1.0, 1.09])
def test_memory_as_planned_or_less_changes_nothing(share, steady):
    loop = steady()
    rounds = sent_ranks(saying(loop, memory_bytes=share * bytes_of(loop)))
    assert rounds[1] == rounds[4]
    assert records(loop) == []


def test_a_little_more_than_it_may_use_is_a_surprise_once(steady):
    loop = steady(memory=LITTLE)
    assert bytes_of(loop) < LITTLE < 1.1 * bytes_of(loop)
    drive(saying(loop, memory_bytes=lambda round: LITTLE + 50 if round == 1 else 12_500.0))
    [only] = records(loop)
    assert 1 < only["memory"]["a"] < 1.1


@pytest.mark.parametrize("said", [-1.0, 0, 1e-300, 1e300])
def test_whatever_a_client_says_of_its_memory_the_run_goes_on(said, steady):
    loop = steady()
    assert drive(saying(loop, memory_bytes=said)).round == 4
    found = records(loop)
    assert all(set(record["memory"]) == {"a"} for record in found)
    assert bool(found) == (said > 1)
    if found:
        assert "the plan of a stays as it is: there is nothing that a client could train" in found[0]["reason"]
        assert found[0]["clients"] == {}


def test_an_operator_gives_a_client_less_and_it_is_planned_for_that(steady):
    loop = steady()
    rounds = sent_ranks(asking(loop, (2, budget(memory=LITTLE))))
    assert rounds[1] == rounds[2]
    assert sum(rounds[3].values()) < sum(rounds[2].values())
    [told], [anew] = ([one for one in loop.records() if one["kind"] == kind] for kind in (BUDGET, REPLANNED))
    assert {**told.fields} == {
        "round": 2, "client": "a", "limits": {"memory": LITTLE}, "by": "operator", "request": "less",
    }  # fmt: skip
    assert (anew["round"], anew["limits"], set(anew["clients"])) == (2, {"a": {"memory": LITTLE}}, {"a"})
    assert "the memory of a is limited to 14 kB" in anew["reason"]
    assert bytes_of(after(loop)) <= LITTLE
    assert [event.kind for event in summarise(loop.experiment, loop.directory.journal.records()).events].count(
        BUDGET
    ) == 1


def test_a_deadline_of_one_client_is_kept_and_lifted_again(steady):
    loop = steady()
    wishes = (1, budget(deadline=0.02)), (3, budget(id="more", deadline=None))
    rounds = sent_ranks(asking(loop, *wishes))
    assert sum(rounds[2].values()) < sum(rounds[1].values())
    assert rounds[4] == rounds[1]


def test_a_budget_that_nothing_fits_into_leaves_the_plan_as_it_is_and_says_so_by_name(steady):
    loop = steady()
    rounds = sent_ranks(asking(loop, (1, budget(memory=500.0))))
    assert rounds[1] == rounds[4]
    [only] = records(loop)  # and not again in every round
    assert only["clients"] == {}
    assert "the plan of a stays as it is" in only["reason"]
    assert "memory: needs" in only["reason"]


def test_a_base_that_cannot_be_loaded_any_more_is_no_end_of_the_run(steady):
    loop = steady()
    known = {name: replace(one, loading={32: 11_000.0}) for name, one in loop.planner.known.items()}
    drive(asking(replace(loop, planner=replace(loop.planner, known=known)), (1, budget(memory=10_950.0))))
    assert "the plan of a stays as it is: client 'a': loading the base takes" in records(loop)[0]["reason"]


def test_killed_at_any_point_it_ends_as_the_undisturbed_run(steady):
    whole = steady("whole")
    digest = drive(asking(whole, (2, budget(memory=LITTLE)))).learned.delta().digest()
    assert drive(steady("other")).learned.delta().digest() != digest
    cut = steady("cut", last_round=2)
    drive(cut)
    cut.directory.close()
    ask(cut.directory.path, budget(memory=LITTLE))  # nobody drives it: done at once
    again = steady("cut")
    assert drive(again).learned.delta().digest() == digest
    assert len(records(again)) == 1


def test_a_budget_holds_on_after_a_rollback_behind_it(steady):
    loop = steady()
    drive(asking(loop, (2, budget(memory=LITTLE)), (3, Request("back", "rollback", to=1))))
    [again] = records(loop)  # the decision that was rolled back is void
    assert (again["round"], again["limits"]) == (1, {"a": {"memory": LITTLE}})
    assert bytes_of(after(loop)) <= LITTLE


def test_a_site_that_joins_again_with_less_memory_is_given_less(steady):
    loop = allowing(steady(), {1: {"a": 1e6, "b": None}, 2: {"a": LITTLE}})
    rounds = sent_ranks(loop)
    assert rounds[1] == rounds[2]  # more than its machine has planned with: nothing changes
    assert sum(rounds[3].values()) < sum(rounds[2].values())
    [only] = records(loop)
    assert only["sites"] == {"a": LITTLE}
    assert "the memory of a is limited to 14 kB at its site" in only["reason"]


def test_a_site_never_raises_what_an_operator_allows_and_may_take_its_limit_back(steady):
    loop = allowing(steady(memory=LITTLE), {1: {"a": 1e12}, 2: {"a": 12_500.0}, 3: {"a": None}})
    rounds = sent_ranks(loop)
    assert rounds[1] == rounds[2] == rounds[4]
    assert sum(rounds[3].values()) < sum(rounds[2].values())


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf"), 10**400])
def test_a_limit_that_is_none_is_not_believed(limit, steady):
    loop = allowing(steady(), {1: {"a": limit}})
    drive(loop)
    assert records(loop) == []


def test_a_journal_of_an_earlier_version_is_read(steady):
    old = {"factors": {"a": 2.0}, "clients": {"b": {"rank": 1, "rank_pattern": {}}}, "reason": "slow"}
    loop = as_replanned(steady(), [old])
    assert loop.experiment.client("b").rank == 1
    assert loop.planner.known["a"].machine.memory_factor == 1.0
    planner = planner_of(left_open(), 0.3)
    text = to_text(planner).replace('"memory_factor": 1.0, ', "").replace('"site_limit": null, ', "")
    assert "memory_factor" not in text
    assert "site_limit" not in text
    assert from_text(text) == planner


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (lambda: budget(client="nobody", memory=1e9), "no such client with a planned rank"),
        (lambda: budget(), "no limit of the budget is named"),
        (lambda: budget(memory=-1.0), "not a limit of memory"),
        (lambda: budget(memory=True), "not a limit of memory"),
        (lambda: budget(deadline=float("inf")), "not a limit of deadline"),
        (lambda: budget(memory=10**400), "not a limit of memory"),
        (lambda: budget(upload=5e-324), r"not a limit of upload .expected a number of bytes from 1e-09 to 1e\+18"),
        (lambda: budget(rank=3.0), "no such limit"),
    ],
)
def test_what_is_no_budget_is_refused_and_nothing_is_written(request_, words, steady):
    path = steady(last_round=1).directory.path
    before = (path / "journal.jsonl").read_bytes()
    with pytest.raises(RunError, match=words):
        submit(path, request_())
    assert (path / "journal.jsonl").read_bytes() == before
    assert not (path / "control").exists()


@pytest.mark.parametrize(
    ("method", "setting", "words"),
    [("rbla", {}, "whose state has clients' ranks"), ("loom", {"replan": False}, "replan = false")],
)
def test_a_run_that_is_not_planned_anew_takes_no_budget(method, setting, words, make_loop):
    experiment = left_open(method)
    experiment = experiment.model_copy(update={"planning": experiment.planning.model_copy(update=setting)})
    path = planned_loop(make_loop, seconds=0.1, experiment=experiment).directory.path
    with pytest.raises(RunError, match=words):
        submit(path, budget(memory=1e9))


def test_a_run_that_was_not_planned_or_is_over_takes_no_budget(make_loop, steady):
    bare = make_loop(left_open(rank=2, batch_size=None), name="bare")
    with pytest.raises(RunError, match="the run was not planned"):
        submit(bare.directory.path, budget(memory=1e9))
    loop = steady()
    drive(loop)
    with pytest.raises(RunError, match="all rounds are done"):
        submit(loop.directory.path, budget(memory=1e9))


def test_the_words_of_a_surprise():
    slow = Surprise("a", "time", 90.0, 60.0)
    assert slow.text() == "a took 1.5 min, planned were 1 min"
    assert slow.factor == 1.5 > SURPRISE
