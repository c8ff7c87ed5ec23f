"""What an operator asks of a run: taken between rounds, once, and at once where nobody drives it."""

import gc
import itertools
import os
import shutil
from dataclasses import replace

import pytest

from fedloom.adapters.algebra import norm, subtract
from fedloom.engine import control
from fedloom.engine.control import Word, ask
from fedloom.engine.drive import drive
from fedloom.engine.events import Journaled, Stage
from fedloom.errors import FedLoomError, RunError
from fedloom.report.summary import summarise
from fedloom.report.values import SumRelease
from fedloom.spec.experiment import PrivacyTable
from fedloom.spec.secure_table import SecureAggregationTable
from fedloom.store import requests, rollback
from fedloom.store.checkpoint import rounds as folders
from fedloom.store.control import submit
from fedloom.store.requests import Request
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.engine import NAMES, PretendEngine
from fedloom.testing.engine import pretend_experiment as experiment_of
from tests.some import mostly_slow

METHODS = ("loom", "flora", "ffa", "fedsa", "fedalt")


def kinds(loop, *kinds):
    return [record for record in loop.directory.journal.records() if record["kind"] in kinds]


def digest(state):
    """Of all that was learned, what the server keeps for each client too."""
    learned = state.learned
    return [
        learned.delta().digest(),
        *(each.digest() for _, each in sorted({**learned.clients, **learned.rests}.items())),
    ]


def asking(*wishes):
    """An observer that asks: each wish (round, Request) as soon as that round is committed, for the first time."""
    left = list(wishes)

    def make(loop_path):
        def observe(event):
            if not isinstance(event, Journaled) or event.kind != "round_committed":
                return
            for wish in [each for each in left if each[0] == event.fields["round"]]:
                left.remove(wish)
                submit(loop_path, wish[1])

        return observe

    return make


@pytest.fixture
def driven(make_loop, tmp_path):
    """driven(experiment, *wishes): the loop of a run that was asked for them, and the state it ended with."""

    def run(experiment, *wishes, name="run", **options):
        loop = make_loop(experiment, name=name, observe=asking(*wishes)(tmp_path / name), **options)
        return loop, drive(loop)

    return run


def back(to, id="back"):
    return Request(id, "rollback", to=to, reason="it went wrong")


@pytest.mark.parametrize("method", mostly_slow(METHODS, "loom", "fedalt"))
def test_after_a_rollback_the_run_ends_as_one_that_never_took_the_bad_round(method, driven, make_loop):
    experiment = experiment_of(method, rounds={"participation": 0.5})
    loop, state = driven(experiment, (3, back(2)))
    first = make_loop(experiment, name="never", last_round=2)
    drive(first)
    never = replace(first, world=replace(first.world, branch=1), last_round=4)
    assert digest(state) == digest(drive(never))
    assert digest(state) != digest(driven(experiment, name="undisturbed")[1])
    assert folders(loop.directory.path / "rounds") == [1, 2, 3, 4]
    assert [entry.name for entry in (loop.directory.path / "rolled-back" / "1").iterdir()] == ["0003"]


def test_a_rollback_to_the_beginning_draws_everything_anew(driven):
    loop, state = driven(experiment_of(), (2, back(0)), (4, back(2, "again")))
    assert [record["branch"] for record in kinds(loop, "rolled_back")] == [1, 2]
    assert [record["lost"] for record in kinds(loop, "rolled_back")] == [[1, 2], [3, 4]]
    assert state.round == 4
    assert digest(state) != digest(driven(experiment_of(), name="undisturbed")[1])


def test_a_rollback_survives_a_kill_at_each_of_its_steps(driven, make_loop, monkeypatch):
    """Journal, move, journal, remove: whichever of them the process does not come to."""
    experiment = experiment_of("fedalt")
    expected = digest(driven(experiment, (3, back(1)), name="undisturbed")[1])
    steps = [(control, "_takes_effect"), (rollback, "_move"), (rollback, "publish"), (requests, "remove")]
    for number, (module, step) in enumerate(steps):
        name = f"killed-{number}"
        with monkeypatch.context() as patched:
            patched.setattr(module, step, killed)
            with pytest.raises(KeyboardInterrupt):
                driven(experiment, (3, back(1)), name=name)
        path = kept_path(make_loop, experiment, name)
        assert digest(drive(make_loop(experiment, name=name))) == expected, step
        records = RunDirectory.open(path).journal.records()
        assert [record.kind for record in records].count("rolled_back") == 1
        assert [record.kind for record in records].count("control") == 1
        assert not list((path / "control").iterdir())
        assert sorted(entry.name for entry in (path / "rolled-back" / "1").iterdir()) == ["0002", "0003"]


def killed(*_, **__):
    raise KeyboardInterrupt


def kept_path(make_loop, experiment, name):
    """Where the run is, after its next process has repaired it and gone."""
    gc.collect()  # the loop of the process that was killed has the lock
    loop = make_loop(experiment, name=name)
    loop.directory.close()
    return loop.directory.path


def test_readers_find_a_sound_run_while_rounds_are_being_moved(driven, monkeypatch):
    loop, _ = driven(experiment_of())
    loop.directory.close()
    monkeypatch.setattr(rollback, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        ask(loop.directory.path, back(2))
    assert folders(loop.directory.path / "rounds") == [1, 2, 3, 4]
    assert RunDirectory.open(loop.directory.path).latest() == 2


def test_pause_waits_until_it_is_told_to_go_on(make_loop, tmp_path, monkeypatch):
    told, waits = [], []

    def wait(_):
        waits.append(len(kinds(loop, "round_committed")))
        if len(waits) == 3:
            submit(tmp_path / "run", Request("go", "continue", seen=2))

    monkeypatch.setattr(control.time, "sleep", wait)
    watch = asking((2, Request("wait", "pause")))(tmp_path / "run")
    loop = make_loop(experiment_of(), observe=lambda event: (told.append(event), watch(event)))
    assert drive(loop).round == 4
    assert waits == [2, 2, 2]
    stages = [event.text for event in told if isinstance(event, Stage)]
    assert [text.split(" after ")[0] for text in stages] == ["paused", "going on"]
    assert [(record["action"], record["round"], record["by"]) for record in kinds(loop, "control")] == [
        ("pause", 2, "operator"),
        ("continue", 2, "operator"),
    ]


@pytest.mark.parametrize(("request_", "ended"), [(Request("x", "stop"), 2), (Request("x", "rollback", to=1), 4)])
def test_stop_and_rollback_end_a_pause(request_, ended, driven, tmp_path, monkeypatch):
    monkeypatch.setattr(control.time, "sleep", lambda _: submit(tmp_path / "run", request_))
    assert driven(experiment_of(), (2, Request("wait", "pause")))[1].round == ended


def test_a_stopped_run_has_an_end_and_goes_on_to_the_same_digest(driven, make_loop):
    experiment = experiment_of()
    loop, state = driven(experiment, (2, Request("enough", "stop", reason="it is good enough")))
    assert state.round == 2
    (stopped,) = kinds(loop, "stopped_early")
    assert (stopped["round"], stopped["reason"], stopped["by"]) == (2, "it is good enough", "operator")
    assert {record["round"] for record in kinds(loop, "evaluation") if record["stage"] == "final"} == {2}
    loop.directory.close()
    again = make_loop(experiment)
    assert digest(drive(again)) == digest(driven(experiment, name="undisturbed")[1])
    assert not [record for record in again.records() if record["kind"] == "stopped_early"]
    assert {record["round"] for record in again.records() if record.get("stage") == "final"} == {4}


def test_who_is_shut_out_is_not_drawn_until_let_in_again(driven):
    out, back_in = Request("out", "exclude", client="b", reason="loss rises"), Request("in", "readmit", client="b")
    loop, _ = driven(experiment_of(), (1, out), (3, back_in))
    drawn = [record["participants"] for record in kinds(loop, "round_started")]
    assert drawn == [["a", "b", "c"], ["a", "c"], ["a", "c"], ["a", "b", "c"]]
    assert [(r["by"], r["reason"], r["request"]) for r in kinds(loop, "excluded")] == [
        ("operator", "loss rises", "out")
    ]


@pytest.mark.parametrize("step", ["_takes_effect", "remove"])
def test_an_exclusion_that_a_kill_interrupted_is_done_once(step, driven, make_loop, monkeypatch):
    wish = (1, Request("out", "exclude", client="b", reason="odd"))
    with monkeypatch.context() as patched:
        patched.setattr(control if step == "_takes_effect" else requests, step, killed)
        with pytest.raises(KeyboardInterrupt):
            driven(experiment_of(), wish)
    kept_path(make_loop, experiment_of(), "run")
    loop = make_loop(experiment_of())
    drive(loop)
    assert [len(kinds(loop, kind)) for kind in ("control", "excluded")] == [1, 1]
    assert not requests.pending(loop.directory.path)


def test_what_was_asked_of_a_process_that_is_gone_is_void_unless_it_is_about_clients(make_loop):
    loop = make_loop(experiment_of())
    for request in (Request("s", "stop"), Request("p", "pause"), Request("e", "exclude", client="a", reason="x")):
        submit(loop.directory.path, request)
    loop.directory.close()
    again = make_loop(experiment_of())
    assert drive(again).round == 4
    assert {record["request"]: "refused" in record for record in kinds(again, "control")} == {
        "s": True,
        "p": True,
        "e": False,
    }


def test_what_makes_no_sense_any_more_is_journaled_and_the_run_goes_on(make_loop, tmp_path):
    loop = make_loop(experiment_of())
    place = loop.directory.path / "control"
    submit(loop.directory.path, Request("one", "exclude", client="a", reason="x"))
    submit(loop.directory.path, Request("two", "exclude", client="a", reason="y"))
    submit(loop.directory.path, Request("go", "continue"))
    (place / "odd.json").write_text("{")
    (place / "other.json").write_text('{"id": "another", "action": "stop"}')
    assert drive(loop).round == 4
    refused = {record["request"]: record["refused"] for record in kinds(loop, "control") if "refused" in record}
    assert set(refused) == {"two", "go", "odd", "other"}
    assert "shut out already" in refused["two"]
    assert not list(place.iterdir())


def test_where_nobody_drives_it_is_done_at_once(driven):
    loop, _ = driven(experiment_of())
    path = loop.directory.path
    loop.directory.close()
    for name in rollback.OF_THE_LAST_ROUND:
        (path / name).write_text("made of round 4")
    assert ask(path, Request("out", "exclude", client="c", reason="x", seen=4))
    assert ask(path, Request("back", "rollback", to=2, seen=4))
    assert not [name for name in rollback.OF_THE_LAST_ROUND if (path / name).exists()]
    moved = {entry.name for entry in (path / "rolled-back" / "1").iterdir()}
    assert moved == {"0003", "0004", *rollback.OF_THE_LAST_ROUND}
    summary = summarise(experiment_of(), RunDirectory.open(path).journal.records())
    assert (summary.committed_rounds, summary.federated_round, summary.digest) == (2, 2, None)
    assert max(entry.number for entry in summary.rounds) == 2
    with pytest.raises(RunError, match=r"not in progress, there is nothing to stop.*fedloom resume"):
        ask(path, Request("end", "stop"))


def test_what_waits_from_before_is_done_first(driven, make_loop):
    loop, _ = driven(experiment_of())
    submit(loop.directory.path, back(2))
    loop.directory.close()
    with pytest.raises(RunError, match=r"came first.*no such round"):
        ask(loop.directory.path, back(3, "later"))
    assert RunDirectory.open(loop.directory.path).latest() == 2


def test_a_run_that_is_driven_takes_it_itself(make_loop):
    loop = make_loop(experiment_of())
    assert not ask(loop.directory.path, Request("end", "stop"))
    assert control.taken(loop, 0) is Word.STOP


def test_no_privacy_comes_back(make_loop, driven):
    experiment = experiment_of("fedit", rounds={"weighting": "uniform"})
    experiment = experiment.model_copy(
        update={"privacy": PrivacyTable(unit="client", noise_multiplier=3.0, delta=1e-5)}
    )
    loop, _ = driven(experiment, (3, back(1)))
    spent = [record["epsilon"] for record in kinds(loop, SumRelease.KIND)]
    assert len(spent) == 3 + 3
    assert spent == sorted(spent)


@pytest.mark.parametrize(
    "engine", [PretendEngine(NAMES, together=True), PretendEngine(NAMES)], ids=["together", "apart"]
)
def test_a_rollback_after_the_last_round_is_taken_too(engine, driven):
    loop, state = driven(experiment_of(), (4, back(3)), engine=engine)
    assert state.round == 4
    assert [record["round"] for record in kinds(loop, "round_committed")] == [1, 2, 3, 4, 4]
    measured = [(r["stage"], r["round"], r["client"]) for r in loop.records() if r["kind"] == "evaluation"]
    assert len(measured) == len(set(measured)) == 3 * (1 + 4 + 1)


def test_nobody_is_excluded_by_a_rollback_of_the_journal(driven):
    """What was decided about a client holds on when rounds are rolled back."""
    out = Request("out", "exclude", client="b", reason="odd")
    loop, _ = driven(experiment_of(), (3, out), (4, back(1)))
    assert [record["participants"] for record in kinds(loop, "round_started")][-3:] == [["a", "c"]] * 3


def test_an_error_of_a_request_is_one_that_a_user_can_act_on(make_loop):
    loop = make_loop(experiment_of())
    with pytest.raises(FedLoomError):
        ask(loop.directory.path.with_name("nowhere"), Request("a", "stop"))


CALLS = ("write", "fsync", "rename", "mkdir", "open", "link", "unlink", "truncate")


def interrupted_at(number, patched):
    """From now on the process is gone at the given system call; a write is done by half before."""
    calls = [0]

    def wrapped(real, name):
        def call(*arguments, **named):
            calls[0] += 1
            if calls[0] < number:
                return real(*arguments, **named)
            if name == "write" and calls[0] == number:
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            raise KeyboardInterrupt

        return call

    for name in CALLS:
        patched.setattr(os, name, wrapped(getattr(os, name), name))


@pytest.mark.slow
def test_whichever_system_call_is_the_last_the_run_is_whole(driven, tmp_path, monkeypatch):
    """Either nothing was asked, or the next process does all of it, once."""
    loop, _ = driven(experiment_of("fedit"))
    loop.directory.close()
    found = []
    for number in itertools.count(1, 3):  # every third call tells as much, in a third of the time
        path = shutil.copytree(loop.directory.path, tmp_path / str(number))
        try:
            with monkeypatch.context() as patched:
                interrupted_at(number, patched)
                ask(path, back(1))
            break
        except KeyboardInterrupt:
            gc.collect()
        with RunDirectory.open(path, to_write=True) as directory:
            again = replace(loop, directory=directory)
            control.taken(again, max(directory.committed()))
            records = [record.kind for record in directory.journal.records()]
            counts = [records.count(kind) for kind in ("control", "rolled_back", "moved_away")]
            moved = sorted(entry.name for entry in path.glob("rolled-back/1/*"))
            assert (directory.latest(), counts, moved) in NOTHING_OR_ALL
            assert not list(path.glob("control/*.json"))
            found.append(directory.latest())
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (4, 1)
    assert len(found) > 8


NOTHING_OR_ALL = [(4, [0, 0, 0], []), (1, [1, 1, 1], ["0002", "0003", "0004"])]


@pytest.mark.parametrize("method", ["flora", "fedit"])
def test_a_secure_run_is_rolled_back_as_a_plain_one(method, driven):
    def ended(secure):
        experiment = experiment_of(method, rounds={"max_update_norm": 50.0})
        table = SecureAggregationTable(enabled=secure)
        experiment = experiment.model_copy(update={"secure_aggregation": table})
        return driven(experiment, (3, back(2)), name=f"secure {secure}")[1].learned.delta()

    plain = ended(False)
    assert norm(subtract(ended(True), plain)) <= 2e-5 * norm(plain)
