"""Whole clients under secure aggregation: each clips and adds its noise, and no draw is in two sums."""

import json
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from fedloom.engine.client_privacy import noise_share
from fedloom.engine.drive import drive
from fedloom.engine.releasing import refuse_without_noise
from fedloom.errors import RunError
from fedloom.privacy.secagg.session import AGREEMENT, DELIVERY, ROSTER, SURVIVORS
from fedloom.report.spending import releases
from fedloom.report.values import SumRelease
from fedloom.rounds.messages import Assignment, Masking
from fedloom.spec.experiment import PrivacyTable
from fedloom.spec.secure_table import SecureAggregationTable
from fedloom.store.audit.run import audit_files
from fedloom.testing.engine import NAMES, PretendEngine, pretend_experiment
from fedloom.training.local import DivergedError, Tally, check_finite


def experiment_of(method="ffa", **privacy):
    rounds = {"max_update_norm": 50.0, "weighting": "uniform"}
    asked = {"unit": "client", "epsilon": 8.0, "delta": 1e-5, "max_change_norm": 0.5, **privacy}
    update = {"privacy": PrivacyTable(**asked), "secure_aggregation": SecureAggregationTable(enabled=True, threshold=2)}
    return pretend_experiment(method, rounds=rounds).model_copy(update=update)


def kinds(loop, kind):
    return [record for record in loop.records() if record["kind"] == kind]


def ledger(loop, client):
    lines = (loop.directory.clients / client / "ledger.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == "released"]


def put_away(loop, client):
    [path] = (loop.directory.clients / client).glob("answer-*")
    return path.name, path.read_bytes()


def test_a_private_secure_run_is_in_every_ledger_and_spends_its_budget(make_loop):
    loop = make_loop(experiment_of())
    drive(loop)
    sums = kinds(loop, SumRelease.KIND)
    assert [record["round"] for record in sums] == [1, 2, 3, 4]
    assert 7 < sums[-1]["epsilon"] <= 8
    order = [one["kind"] for one in loop.records() if one["kind"] in (SumRelease.KIND, "secure_sum", "round_committed")]
    assert order == [SumRelease.KIND, "secure_sum", "round_committed"] * 4
    spent = [record["epsilon"] for record in sums]
    for client in NAMES:
        assert [line["epsilon"] for line in ledger(loop, client)] == spent
    assert len(releases(loop.records())) == 12
    assert len(kinds(loop, "contribution")) == 12
    assert all(
        "loss" not in one.fields and "tokens_per_second" not in one.fields for one in kinds(loop, "contribution")
    )
    loop.directory.close()
    audit = audit_files(loop.directory.path)
    assert [check.damage for check in audit.checks if check.what.startswith("ledger of")] == [()] * 3
    cut = loop.directory.clients / "b" / "ledger.jsonl"
    cut.write_text("".join(cut.read_text().splitlines(keepends=True)[:-1]))
    assert [check for check in audit_files(loop.directory.path).checks if check.damage]


def test_the_noise_is_in_the_model_and_not_that_of_the_seed(make_loop):
    """Sums of changes of norm 0.5 under a noise multiplier of 20: a deviation of 10 x sqrt(3 / 2) / 3 in the mean."""
    experiment = experiment_of(epsilon=None, noise_multiplier=20.0)
    found = [drive(make_loop(experiment, name=name, last_round=1)) for name in ("one", "two")]
    means = [torch.cat([factors.b.flatten() for factors in one.learned.shared.values()]) for one in found]
    assert not torch.equal(*means)
    assert float(torch.cat(means).std()) == pytest.approx(10 * 1.5**0.5 / 3, rel=0.25)


@pytest.mark.parametrize("step", [ROSTER, DELIVERY])
def test_a_round_that_is_repeated_before_numbers_left_draws_no_second_noise(step, make_loop):
    experiment = experiment_of()
    silent = frozenset((client, step) for client in NAMES)
    loop = make_loop(experiment, PretendEngine(NAMES, silent=silent))
    with pytest.raises(RunError, match="too few clients"):
        drive(loop)
    before = {client: put_away(loop, client) for client in NAMES}
    assert not kinds(loop, SumRelease.KIND)
    loop.directory.close()
    again = make_loop(experiment, last_round=1)
    drive(again)
    assert {client: put_away(again, client) for client in NAMES} == before
    assert [len(ledger(again, client)) for client in NAMES] == [1, 1, 1]
    told = {record["client"]: record["epsilon"] for record in kinds(again, "contribution")}
    assert told == {client: ledger(again, client)[0]["epsilon"] for client in NAMES}


@pytest.mark.parametrize("step", [SURVIVORS, AGREEMENT])
def test_numbers_that_left_are_never_in_a_second_sum_and_the_repetition_is_counted(step, make_loop):
    experiment = experiment_of()
    loop = make_loop(experiment, PretendEngine(NAMES, silent=frozenset((client, step) for client in NAMES)))
    with pytest.raises(RunError, match="too few clients"):
        drive(loop)
    before = {client: put_away(loop, client) for client in NAMES}
    assert len(kinds(loop, SumRelease.KIND)) == (step == AGREEMENT), "only what was about to be opened"
    loop.directory.close()
    again = make_loop(experiment, last_round=1)
    drive(again)
    assert all(put_away(again, client)[1] != before[client][1] for client in NAMES)
    assert [[line["round"] for line in ledger(again, client)] for client in NAMES] == [[1, 1]] * 3
    assert ledger(again, "a")[1]["epsilon"] > ledger(again, "a")[0]["epsilon"]


def test_words_without_their_line_are_sent_and_counted_once_the_line_is_written(make_loop):
    """As after a crash between the two writes."""
    experiment = experiment_of()
    loop = make_loop(experiment, PretendEngine(NAMES, silent=frozenset((client, ROSTER) for client in NAMES)))
    with pytest.raises(RunError):
        drive(loop)
    (loop.directory.clients / "a" / "ledger.jsonl").unlink()
    loop.directory.close()
    again = make_loop(experiment, last_round=1)
    drive(again)
    assert len(ledger(again, "a")) == 1


def test_a_client_whose_budget_is_spent_takes_no_part(make_loop):
    """Four rounds are what epsilon allows; one of them was repeated after its numbers had left."""
    experiment = experiment_of()
    loop = make_loop(experiment, PretendEngine(NAMES, silent=frozenset((client, SURVIVORS) for client in NAMES)))
    with pytest.raises(RunError):
        drive(loop)
    loop.directory.close()
    again = make_loop(experiment)
    with pytest.raises(RunError, match="too few contributions"):
        drive(again)
    assert again.directory.latest() == 3
    assert "budget does not allow this round" in kinds(again, "dropout")[-1]["reason"]


def test_a_damaged_memory_of_what_left_stops_the_client(make_loop):
    loop = make_loop(experiment_of(), last_round=1)
    drive(loop)
    for client in NAMES:
        (loop.directory.clients / client / "masked.json").write_text("{}")
    loop.directory.close()
    again = make_loop(experiment_of(), last_round=2)
    with pytest.raises(RunError):
        drive(again)
    assert "nobody knows which masked numbers left" in kinds(again, "dropout")[0]["reason"]


def test_a_bound_that_adapts_follows_the_count_of_the_sum_also_after_a_resume(make_loop):
    """Nobody reaches a bound of 20, and noise of a hundredth of a client counts them."""
    experiment = experiment_of(epsilon=None, noise_multiplier=0.01, max_change_norm=20.0, clip_quantile=0.5)
    loop = make_loop(experiment, last_round=2)
    drive(loop)
    loop.directory.close()
    again = make_loop(experiment, last_round=4)
    drive(again)
    released = [record["max_change_norm"] for record in kinds(again, SumRelease.KIND)]
    assert released[0] == 20.0
    assert len(released) == 4
    assert all(later / earlier == pytest.approx(math.exp(-0.1), rel=0.05) for earlier, later in pairwise(released))
    told = [line["max_change_norm"] for line in ledger(again, "a")]
    assert told == pytest.approx(released)


def masking_of(noise):
    return Masking("00", NAMES, 2, "ffa", {}, 0, {}, {}, "uniform", 1.0, 1.0, noise=noise)


def test_a_site_with_a_budget_of_its_own_asks_for_noise_of_its_own():
    masking = masking_of(noise_share(experiment_of(), 3))
    assignment = Assignment("train", 1, "a", start=None, trains={}, head={}, seed=1, masking=masking)
    with pytest.raises(RunError, match=r"noise of this client's own.*little without its peers"):
        refuse_without_noise(assignment, 3.0)
    refuse_without_noise(assignment, None)


def test_numbers_do_not_leave_before_it_is_written_that_they_do(make_loop, monkeypatch):
    def full(*_):
        raise RunError("the disk is full")

    monkeypatch.setattr("fedloom.engine.masked_half.leaves", full)
    loop = make_loop(experiment_of())
    with pytest.raises(RunError, match="masked numbers: too few clients"):
        drive(loop)
    assert {record["reason"] for record in kinds(loop, "dropout")} == {"secure sum, delivery: the disk is full"}


@pytest.mark.parametrize("private", [True, False])
def test_a_training_that_diverged_tells_no_loss_where_noise_is_to_cover_it(private):
    masking = masking_of(noise_share(experiment_of(), 3)) if private else None
    assignment = Assignment("train", 1, "a", start=None, trains={}, head={}, seed=1, masking=masking)
    tally = Tally()
    tally.last_loss, tally.last_grad_norm = 12.5, math.inf
    with pytest.raises(DivergedError, match="norm of the gradient is not a finite") as caught:
        check_finite(SimpleNamespace(head=None), assignment, 3, tally)
    assert ("12.5" in str(caught.value)) == ("step 4" in str(caught.value)) == (not private)
