"""A whole run over a grid: the same digest as in one process, whatever some of the nodes do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from threading import Timer

import pytest
import torch

from fedloom.engine.auditing import audit_run
from fedloom.engine.base import ENOUGH
from fedloom.engine.finished import load_finished
from fedloom.engine.flower.frames import framed, parts_of
from fedloom.engine.flower.host import FlowerHost, Patience, resume_with, run_with
from fedloom.engine.forming import PLACE
from fedloom.engine.run import run
from fedloom.errors import RunError
from fedloom.rounds.roster import drawn
from fedloom.spec.experiment import MethodTable, PrivacyTable
from fedloom.store.client_store import ClientStore
from fedloom.store.run_directory import RunDirectory
from tests.engine.flower.grid import MemoryGrid, changing, client, failing, never
from tests.some import mostly_slow

SOON = Patience(come=0.0, describe=30.0, deadline=30.0)
NAMES = ("site-0", "site-1", "site-2")


def grid_of(tmp_path, **others) -> MemoryGrid:
    """A node for each client; others: name -> another answer."""
    usual = {name: client(name, tmp_path / "store") for name in NAMES}
    return MemoryGrid(
        dict(enumerate({**usual, **{name.replace("_", "-"): of for name, of in others.items()}}.values(), 1))
    )


def records(path, kind):
    return [record for record in RunDirectory.open(path).journal.records() if record.kind == kind]


@pytest.fixture(scope="module")
def alone(common_pilot, tmp_path_factory):
    """The digest of the run in one process."""
    return run(common_pilot, root=tmp_path_factory.mktemp("local")).digest


def test_the_digest_is_that_of_one_process(pilot, tmp_path, alone):
    result = run_with(FlowerHost(grid_of(tmp_path), pilot, lambda _: None, SOON), tmp_path / "runs")
    assert result.digest == alone
    assert len(records(result.directory, "contribution")) == 6
    assert not records(result.directory, "dropout")
    assert all(record["busy_seconds"] > 0 for record in records(result.directory, "contribution"))


def test_canaries_are_planted_at_the_sites_and_found_as_in_one_process(pilot, tmp_path, alone):
    planted = pilot.model_copy(update={"privacy": PrivacyTable(canaries=6)})
    here = run(planted, root=tmp_path / "local")
    over = run_with(FlowerHost(grid_of(tmp_path), planted, lambda _: None, SOON), tmp_path / "runs")
    assert over.digest == here.digest != alone
    found, expected = (audit_run(result.directory).result for result in (over, here))
    assert found.canaries == 18
    assert found == expected


def test_answers_are_taken_in_the_order_of_the_clients_however_late(pilot, tmp_path, alone):
    waits = {"times": 3}
    first = client("site-0", tmp_path / "store")

    def late(message):
        waits["times"] -= 1
        return None if waits["times"] > 0 else first(message)

    grid = grid_of(tmp_path, site_0=late)
    result = run_with(FlowerHost(grid, pilot, lambda _: None, SOON), tmp_path / "runs")
    assert result.digest == alone
    assert waits["times"] <= 0


def test_who_never_answers_drops_out_and_the_others_count(pilot, tmp_path):
    silent = changing_to_never(client("site-1", tmp_path / "store"))
    quick = replace(SOON, deadline=0.3)
    result = run_with(FlowerHost(grid_of(tmp_path, site_1=silent), pilot, lambda _: None, quick), tmp_path / "runs")
    lost = records(result.directory, "dropout")
    assert {record["client"] for record in lost} == {"site-1"}
    assert "no answer in time" in lost[0]["reason"]
    assert [record["contributions"] for record in records(result.directory, "round_committed")] == [2, 2]


def changing_to_never(answer):
    """Answers until it is assigned something."""
    return lambda message: None if message.metadata.message_type == "train" else answer(message)


def crashing(answer):
    return lambda message: failing(message) if message.metadata.message_type == "train" else answer(message)


def test_a_crash_is_a_dropout_with_its_reason(pilot, tmp_path):
    grid = grid_of(tmp_path, site_2=crashing(client("site-2", tmp_path / "store")))
    result = run_with(FlowerHost(grid, pilot, lambda _: None, SOON), tmp_path / "runs")
    assert all("it crashed" in record["reason"] for record in records(result.directory, "dropout"))
    assert {record["client"] for record in records(result.directory, "contribution")} == {"site-0", "site-1"}


def asked_again(path):
    return [(record["round"], record["client"]) for record in records(path, "asked_again")]


def once(answer, instead):
    """The first assignment is answered otherwise."""
    left = [instead]
    return lambda message: left.pop()(message) if left and message.metadata.message_type == "train" else answer(message)


def test_an_error_is_asked_once_more(pilot, tmp_path, alone):
    grid = grid_of(tmp_path, site_2=once(client("site-2", tmp_path / "store"), failing))
    result = run_with(FlowerHost(grid, pilot, lambda _: None, SOON), tmp_path / "runs")
    assert result.digest == alone
    assert not records(result.directory, "dropout")
    assert set(asked_again(result.directory)) == {(0, "site-2"), (1, "site-2")}, "it was to measure, and to train"


def test_nobody_is_asked_again_where_that_is_not_wanted(pilot, tmp_path):
    never_twice = pilot.model_copy(update={"rounds": pilot.rounds.model_copy(update={"retries": 0})})
    grid = grid_of(tmp_path, site_2=once(client("site-2", tmp_path / "store"), failing))
    result = run_with(FlowerHost(grid, never_twice, lambda _: None, SOON), tmp_path / "runs")
    assert {record["client"] for record in records(result.directory, "dropout")} == {"site-2"}
    assert not asked_again(result.directory)


def test_a_client_that_was_lost_and_is_back_is_asked_once_more(pilot, tmp_path, alone):
    usual = client("site-2", tmp_path / "store")

    def lost(message):
        del grid.nodes[3]
        Timer(0.2, lambda: grid.nodes.update({4: usual})).start()
        return failing(message)

    grid = grid_of(tmp_path, site_2=once(usual, lost))
    result = run_with(FlowerHost(grid, pilot, lambda _: None, SOON), tmp_path / "runs")
    assert result.digest == alone
    assert (1, "site-2") in asked_again(result.directory)


def test_a_client_that_lacks_pieces_is_sent_all_in_the_same_round(pilot, tmp_path):
    def forget(event):
        if getattr(event, "kind", "") == "round_committed":
            shutil.rmtree(tmp_path / "store" / PLACE, ignore_errors=True)

    longer = pilot.model_copy(update={"training": pilot.training.model_copy(update={"rounds": 3})})
    expected = run(longer, root=tmp_path / "longer").digest
    grid = grid_of(tmp_path)
    result = run_with(FlowerHost(grid, longer, forget, SOON), tmp_path / "runs")
    assert result.digest == expected
    assert (3, "site-0") in asked_again(result.directory)
    assert not records(result.directory, "dropout")


def test_a_client_that_was_away_takes_part_when_it_comes(pilot, tmp_path):
    grid = grid_of(tmp_path)
    away = grid.nodes.pop(2)

    def observe(event):
        if getattr(event, "kind", "") == "round_committed":
            grid.nodes[2] = away

    result = run_with(FlowerHost(grid, pilot, observe, SOON), tmp_path / "runs")
    by_round = [(record["round"], record["client"]) for record in records(result.directory, "contribution")]
    assert (1, "site-1") not in by_round
    assert (2, "site-1") in by_round
    assert records(result.directory, "client_refused")[0]["client"] == "site-1"


def test_too_few_clients_end_the_run_before_there_is_a_directory(pilot, tmp_path):
    grid = MemoryGrid({1: never})
    host = FlowerHost(grid, pilot, lambda _: None, Patience(come=0.0, describe=0.1))
    with pytest.raises(RunError, match=r"too few clients.*found none; node 1: .*no answer in time"):
        run_with(host, tmp_path / "runs")
    assert not (tmp_path / "runs" / pilot.name).exists()


def test_a_stopped_run_goes_on_to_the_same_digest(pilot, tmp_path, alone):
    def stop(event):
        if getattr(event, "kind", "") == "round_committed":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_with(FlowerHost(grid_of(tmp_path), pilot, stop, SOON), tmp_path / "runs")
    path = tmp_path / "runs" / pilot.name
    assert resume_with(FlowerHost(grid_of(tmp_path), pilot, lambda _: None, SOON), path).digest == alone
    assert len(records(path, "contribution")) == 6


def test_changed_rows_are_refused_when_a_run_goes_on(pilot, tmp_path):
    result = run_with(FlowerHost(grid_of(tmp_path), pilot, lambda _: None, SOON), tmp_path / "runs")
    other = tmp_path / "other.jsonl"
    other.write_text((tmp_path / "sites" / "site-0.jsonl").read_text().replace("copper", "tin"))
    grid = grid_of(tmp_path, site_0=client("site-0", tmp_path / "again", data=str(other)))
    resume_with(FlowerHost(grid, pilot, lambda _: None, SOON), result.directory)
    assert "another rows" in records(result.directory, "client_refused")[-1]["reason"]


def test_an_answer_of_another_round_is_refused(pilot, tmp_path):
    """Whoever repeats the first answer counts once; as a measurement of the last state it is refused too."""
    first: list[bytes] = []

    def repeated(envelope):
        parts = parts_of(envelope.body)
        if len(parts) == 2:  # measured and trained
            first.append(parts[1])
            parts[1] = first[0]
        return replace(envelope, body=framed(parts))

    grid = grid_of(tmp_path, site_0=changing(client("site-0", tmp_path / "store"), repeated))
    result = run_with(FlowerHost(grid, pilot, lambda _: None, SOON), tmp_path / "runs")
    counted = [record["round"] for record in records(result.directory, "contribution") if record["client"] == "site-0"]
    assert counted == [1]
    assert [record["round"] for record in records(result.directory, "refused")] == [2, 2]


def test_clients_are_trained_alone_over_the_grid_too(pilot, tmp_path):
    baselines = one_round(pilot).model_copy(
        update={"evaluation": pilot.evaluation.model_copy(update={"baselines": True})}
    )
    local = run(baselines, root=tmp_path / "local")
    result = run_with(FlowerHost(grid_of(tmp_path), baselines, lambda _: None, SOON), tmp_path / "runs")
    assert result.digest == local.digest
    alone = [
        {record["client"]: record["loss"] for record in records(path, "evaluation") if record["stage"] == "alone"}
        for path in (local.directory, result.directory)
    ]
    assert alone[0] == alone[1]
    assert set(alone[0]) == set(NAMES)


def test_a_client_that_is_not_connected_is_assigned_nothing(pilot, tmp_path):
    grid = grid_of(tmp_path)
    del grid.nodes[3]
    begun = []
    result = run_with(FlowerHost(grid, pilot, begun.append, SOON), tmp_path / "runs")
    assert {getattr(event, "client", "") for event in begun if type(event).__name__ == "ClientBegins"} == set(NAMES[:2])
    lost = records(result.directory, "dropout")
    assert lost
    assert all("not connected" in record["reason"] for record in lost)


@pytest.mark.parametrize("method", mostly_slow(["fedsa", "fedalt"], "fedsa"))
def test_models_of_their_own_stay_at_the_sites_and_the_run_says_so(pilot, tmp_path, method):
    personal = pilot.model_copy(update={"method": MethodTable(name=method)})
    here = run(personal, root=tmp_path / "local")
    result = run_with(FlowerHost(grid_of(tmp_path), personal, lambda _: None, SOON), tmp_path / "runs")
    assert not records(result.directory, "dropout")
    away = [record["what"] for record in records(result.directory, "left_out")]
    assert away == [f"model of {name}" for name in NAMES]
    assert not result.models
    one, other = (load_finished(run.directory).state.learned for run in (here, result))
    assert {name: adapter.digest() for name, adapter in one.clients.items()} == {
        name: adapter.digest() for name, adapter in other.clients.items()
    }
    assert one.shared.digest() == other.shared.digest()
    for name in NAMES:
        kept = [ClientStore(root / name).load(2) for root in (here.directory / "clients", tmp_path / "store")]
        assert kept[0].keys() == kept[1].keys()
        assert all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0])


def reserves(pilot):
    """Of three clients one is wanted, and two are asked."""
    table = pilot.rounds.model_copy(update={"participation": 0.3, "over_selection": 1.0})
    return pilot.model_copy(update={"rounds": table})


def asleep(answer, when):
    """Does not answer assignments while it is `when(message)`."""
    return lambda message: None if message.metadata.message_type == "train" and when() else answer(message)


def test_the_first_that_answers_counts_and_the_other_is_late(pilot, tmp_path):
    experiment = reserves(pilot)
    slow, quick = drawn(experiment, 1)
    sleeping = asleep(client(slow, tmp_path / "store"), lambda: True)
    grid = grid_of(tmp_path, **{slow.replace("-", "_"): sleeping})
    result = run_with(FlowerHost(grid, one_round(experiment), lambda _: None, SOON_OVER), tmp_path / "runs")
    assert [record["client"] for record in records(result.directory, "contribution")] == [quick]
    late = [(one["round"], one["client"], one.get("stage")) for one in records(result.directory, "late")]
    assert late == [(0, slow, "base"), (1, slow, None)]
    assert all(ENOUGH in one["reason"] for one in records(result.directory, "late"))
    assert {one["round"] for one in records(result.directory, "dropout")} == {1}  # of the final measure: it sleeps on


def test_a_reserve_stands_in_for_a_client_that_fails(pilot, tmp_path):
    experiment = one_round(reserves(pilot))
    first, second = drawn(experiment, 1)
    usual = client(first, tmp_path / "store")
    broken = {first.replace("-", "_"): lambda message: (failing if is_train(message) else usual)(message)}
    grid = grid_of(tmp_path, **broken)
    result = run_with(FlowerHost(grid, experiment, lambda _: None, SOON), tmp_path / "runs")
    assert [record["client"] for record in records(result.directory, "contribution")] == [second]
    assert not records(result.directory, "late")
    assert first in {record["client"] for record in records(result.directory, "dropout")}


SOON_OVER = replace(SOON, deadline=1.0)


def is_train(message):
    return message.metadata.message_type == "train"


def one_round(experiment):
    return experiment.model_copy(update={"training": experiment.training.model_copy(update={"rounds": 1})})


def taking_late(pilot, rounds=2, **more):
    table = pilot.rounds.model_copy(update={"late": "next", **more})
    training = pilot.training.model_copy(update={"rounds": rounds})
    return pilot.model_copy(update={"rounds": table, "training": training})


def sent_in(grid, round):
    """The training messages of a round, in which the model of the one before is measured first."""
    sent = [message for message in grid.sent.values() if is_train(message)]
    return [message for message in sent if message.metadata.group_id == str(round - 1)]


def until_round(grid, number, answer):
    """Sleeps over the messages of round 1 until those of another round are sent."""
    return asleep(answer, lambda: not sent_in(grid, number))


def test_an_answer_after_the_deadline_counts_in_the_next_round(pilot, tmp_path):
    grid = grid_of(tmp_path)
    grid.nodes[3] = until_round(grid, 2, grid.nodes[3])
    quick = replace(SOON, deadline=0.5)
    result = run_with(FlowerHost(grid, taking_late(pilot), lambda _: None, quick), tmp_path / "runs")
    assert [(one["round"], one["client"]) for one in records(result.directory, "late")] == [
        (0, "site-2"),
        (1, "site-2"),
    ]
    (late,) = [one for one in records(result.directory, "contribution") if "late_of" in one]
    assert (late["round"], late["client"], late["late_of"], late["bytes_up"] > 0) == (2, "site-2", 1, True)
    assert [one["contributions"] for one in records(result.directory, "round_committed")] == [2, 3]
    assert [len(sent_in(grid, round)) for round in (1, 2, 3)] == [3, 2, 3]
    # An answer is kept for a deadline more, but for one that only measures.
    lives = [min(message.metadata.ttl for message in sent_in(grid, round)) for round in (1, 2, 3)]
    assert lives[0] > 0.6  # of 1 s, less what passed before it was sent
    assert lives[1] > 0.6
    assert lives[2] <= 0.5
    assert not records(result.directory, "refused")


@pytest.mark.slow
def test_one_that_does_not_come_is_given_up_and_asked_again(pilot, tmp_path):
    grid = grid_of(tmp_path)
    grid.nodes[3] = until_round(grid, 3, grid.nodes[3])
    quick = replace(SOON, deadline=0.5)
    result = run_with(FlowerHost(grid, taking_late(pilot, 3), lambda _: None, quick), tmp_path / "runs")
    assert [(one["round"], one["late_of"]) for one in records(result.directory, "late_dropped")] == [(3, 1)]
    asked = [one["participants"] for one in records(result.directory, "round_started")]
    assert [len(each) for each in asked] == [3, 2, 3]
    assert [one["round"] for one in records(result.directory, "contribution") if one["client"] == "site-2"] == [3]


@pytest.mark.slow
def test_a_late_answer_that_is_an_error_is_dropped(pilot, tmp_path):
    grid = grid_of(tmp_path)
    usual = grid.nodes[3]
    grid.nodes[3] = until_round(grid, 2, crashing(usual))
    quick = replace(SOON, deadline=0.5)
    result = run_with(FlowerHost(grid, taking_late(pilot), lambda _: None, quick), tmp_path / "runs")
    (dropped,) = records(result.directory, "late_dropped")
    assert "it crashed" in dropped["reason"]


def test_a_reserve_that_was_not_needed_counts_in_the_next_round(pilot, tmp_path):
    experiment = taking_late(reserves(pilot), participation=0.3, over_selection=1.0)
    slow, quick = drawn(experiment, 1)
    grid = grid_of(tmp_path)
    number = NAMES.index(slow) + 1
    grid.nodes[number] = until_round(grid, 2, grid.nodes[number])
    result = run_with(FlowerHost(grid, experiment, lambda _: None, SOON), tmp_path / "runs")
    first = [one for one in records(result.directory, "contribution") if one["round"] == 1]
    assert [one["client"] for one in first] == [quick]
    assert (slow, 1) in [(one["client"], one.get("late_of")) for one in records(result.directory, "contribution")]
    assert slow not in records(result.directory, "round_started")[1]["participants"]
