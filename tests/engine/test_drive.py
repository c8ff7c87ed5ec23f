"""The loop: commits every round, refuses what is wrong, resumes to the same digest."""

import shutil
from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import distance, truncate
from fedloom.adapters.factors import Factors
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.server_rule import ServerOptimizer, larger_steps
from fedloom.engine.drive import drive
from fedloom.engine.loop import server_optimizer
from fedloom.engine.losses import pooled_losses
from fedloom.errors import RunError
from fedloom.rounds.messages import Dropout
from fedloom.rounds.validate import TAKEN, TAKEN_ALWAYS
from fedloom.spec.experiment import PrivacyTable, ServerTable
from fedloom.testing.engine import NAMES, PretendEngine
from fedloom.testing.engine import pretend_experiment as experiment_of


def kinds(loop, kind):
    return [record for record in loop.records() if record["kind"] == kind]


def digest(state):
    return state.learned.delta().digest()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_all_rounds_with_half_of_the_clients(method, make_loop):
    loop = make_loop(experiment_of(method, rounds={"participation": 0.5}))
    state = drive(loop)
    assert state.round == 4
    assert [record["round"] for record in kinds(loop, "round_committed")] == [1, 2, 3, 4]
    assert all(record["contributions"] == 2 for record in kinds(loop, "round_committed"))
    assert torch.allclose(state.head["score.weight"], torch.full((2, 3), head_after(4, METHODS[method].server(2))))


def head_after(rounds: int, rule: ServerOptimizer) -> float:
    """Every round moves the head by 1; a server optimizer goes further."""
    head = memory = 0.0
    for _ in range(rounds):
        memory = rule.beta1 * memory + 1
        head += rule.learning_rate * memory if rule.rule == "momentum" else 1
    return head


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_run_that_was_stopped_goes_on_to_the_same_digest(method, stop_after, make_loop):
    experiment = experiment_of(method)
    undisturbed = digest(drive(make_loop(experiment, name="undisturbed")))
    first = make_loop(experiment, name="stopped", last_round=stop_after)
    drive(first)
    first.directory.close()
    again = make_loop(experiment, name="stopped")
    assert digest(drive(again)) == undisturbed
    assert len(kinds(again, "round_committed")) == 4


SERVERS = [ServerTable(optimizer="momentum", learning_rate=0.5), ServerTable(optimizer="adam")]


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.optimizer)
@pytest.mark.parametrize("method", ["loom", "rbla"])
def test_a_server_optimizer_acts_and_survives_a_stop(method, server, make_loop):
    experiment = experiment_of(method).model_copy(update={"server": server})
    undisturbed = digest(drive(make_loop(experiment, name="undisturbed")))
    first = make_loop(experiment, name="stopped", last_round=2)
    drive(first)
    first.directory.close()
    assert digest(drive(make_loop(experiment, name="stopped"))) == undisturbed
    assert undisturbed != digest(drive(make_loop(experiment_of(method), name="plain")))


def test_ranks_that_were_pruned_survive_a_stop(make_loop):
    experiment = experiment_of("hetlora")
    first = make_loop(experiment, PretendEngine(NAMES, change=shrink_the_tail), name="pruned", last_round=3)
    ranks = drive(first).learned.ranks
    first.directory.close()
    assert ranks["c"] == dict.fromkeys(first.federation.modules, 2)
    dispatched = {}

    def watch(assignment, contribution):
        dispatched[assignment.client, assignment.kind] = assignment.start.trainable.ranks
        return contribution

    drive(make_loop(experiment, PretendEngine(NAMES, change=watch), name="pruned"))
    assert dispatched["c", "train"] == ranks["c"]


def shrink_the_tail(assignment, contribution):
    """Client c has pruned its third rank in round 3."""
    if (assignment.client, assignment.round, assignment.kind) != ("c", 3, "train"):
        return contribution
    return replace(contribution, adapter=contribution.adapter.map(lambda _, f: truncate(f, 2)))


def test_uniform_weighting_reaches_the_fold(make_loop):
    def more(assignment, contribution):
        return replace(contribution, examples=1) if assignment.client == "a" else contribution

    by_examples, alike = (
        drive(
            make_loop(experiment_of(rounds={"weighting": weighting}), PretendEngine(NAMES, change=more), name=weighting)
        )
        for weighting in ("examples", "uniform")
    )
    all_the_same = drive(make_loop(experiment_of(), name="all the same"))
    assert distance(alike.learned.delta(), all_the_same.learned.delta()) < 1e-4
    assert distance(by_examples.learned.delta(), all_the_same.learned.delta()) > 1e-2


def test_another_seed_gives_another_digest(make_loop):
    one = drive(make_loop(experiment_of(), name="one"))
    other = drive(make_loop(experiment_of().model_copy(update={"seed": 8}), name="other"))
    assert digest(one) != digest(other)


def poison(client, module="layers.0.q_proj"):
    def change(assignment, contribution):
        if assignment.client != client or assignment.kind != "train":
            return contribution
        factors = contribution.adapter[module]
        bad = Factors(factors.a, torch.full_like(factors.b, float("nan")), factors.scaling)
        return replace(contribution, adapter=Adapter({**contribution.adapter, module: bad}))

    return change


def test_a_poisoned_contribution_is_refused_recorded_and_the_round_goes_on(make_loop):
    loop = make_loop(experiment_of(), PretendEngine(NAMES, change=poison("b")))
    state = drive(loop)
    refused = kinds(loop, "refused")
    assert [(r["client"], r["module"], r["round"]) for r in refused] == [
        ("b", "layers.0.q_proj", n) for n in (1, 2, 3, 4)
    ]
    assert all(factors.finite() for factors in state.learned.delta().values())
    assert [record["contributions"] for record in kinds(loop, "round_committed")] == [2] * 4


def test_a_refused_client_counts_for_nothing(make_loop):
    poisoned = drive(make_loop(experiment_of(), PretendEngine(NAMES, change=poison("b")), name="poisoned"))

    def leave(assignment, contribution):
        gone = assignment.client == "b" and assignment.kind == "train"
        return Dropout(assignment.round, "b", "gone") if gone else contribution

    absent = drive(make_loop(experiment_of(), PretendEngine(NAMES, change=leave), name="absent"))
    assert digest(poisoned) == digest(absent)


def test_a_dropout_is_recorded_and_too_few_contributions_stop_the_run(make_loop):
    def drop(assignment, contribution):
        late = assignment.client != "a" and assignment.round == 3 and assignment.kind == "train"
        return Dropout(assignment.round, assignment.client, "lost") if late else contribution

    loop = make_loop(experiment_of(rounds={"min_clients": 2}), PretendEngine(NAMES, change=drop))
    with pytest.raises(RunError, match=r"round 3.*at least 2.*round 2 is intact"):
        drive(loop)
    assert [(r["client"], r["round"]) for r in kinds(loop, "dropout")] == [("b", 3), ("c", 3)]
    loop.directory.close()
    healed = make_loop(experiment_of(rounds={"min_clients": 2}))
    assert drive(healed).round == 4


def test_an_update_above_the_bound_is_refused(make_loop):
    def scale(assignment, contribution):
        if assignment.client != "c" or assignment.kind != "train":
            return contribution
        return replace(contribution, adapter=contribution.adapter.map(lambda _, f: Factors(1e4 * f.a, f.b, f.scaling)))

    loop = make_loop(experiment_of("fedit", rounds={"max_update_norm": 50.0}), PretendEngine(NAMES, change=scale))
    drive(loop)
    assert {record["client"] for record in kinds(loop, "refused")} == {"c"}


def test_every_round_is_measured_on_every_client_and_only_once(make_loop):
    experiment = experiment_of()
    loop = make_loop(experiment)
    drive(loop)
    loop.directory.close()
    again = make_loop(experiment)
    drive(again)
    stages = [(r["stage"], r["round"], r["client"]) for r in kinds(again, "evaluation")]
    assert len(stages) == len(set(stages)) == 3 * (1 + 4 + 1)
    assert sorted(pooled_losses(again.directory.journal.records())) == [0, 1, 2, 3, 4]


def test_a_round_that_was_not_measured_when_the_run_was_killed_is_measured_on_resume(make_loop):
    experiment = experiment_of()
    unmeasured = make_loop(experiment, last_round=2, stages=frozenset())
    drive(unmeasured)
    unmeasured.directory.close()
    again = make_loop(experiment)
    drive(again)
    assert sorted(pooled_losses(again.directory.journal.records())) == [2, 3, 4]


def test_patience_ends_a_run_that_does_not_improve(make_loop):
    experiment = experiment_of(training={"rounds": 50, "patience": 2})
    loop = make_loop(experiment, PretendEngine(NAMES, step=1.0))
    state = drive(loop)
    losses = pooled_losses(loop.directory.journal.records())
    best = min(losses, key=losses.get)
    assert state.round == best + 2 < 50
    assert len(kinds(loop, "stopped_early")) == 1


def test_what_is_dispatched_next_is_what_was_committed(make_loop):
    seen = {}

    def watch(assignment, contribution):
        if assignment.kind == "train":
            seen[assignment.round, assignment.client] = assignment.start.delta()
        return contribution

    loop = make_loop(experiment_of("loom"), PretendEngine(NAMES, change=watch))
    drive(loop)
    state, _, _ = loop.directory.load_round(2)
    assert all(distance(seen[3, client], state.delta()) < 1e-5 for client in NAMES)


def test_the_observer_is_told_what_the_journal_is_told(make_loop):
    events = []
    loop = make_loop(experiment_of(), observe=events.append)
    drive(loop)
    told = [event.kind for event in events]
    written = [record["kind"] for record in loop.records()]
    assert told == [kind for kind in written if kind != "run_created"]


def test_patience_does_not_count_rounds_that_were_moved_away(make_loop):
    experiment = experiment_of(training={"rounds": 50, "patience": 2})
    first = make_loop(experiment, PretendEngine(NAMES, step=1.0))
    expected = drive(first)
    first.directory.close()
    shutil.rmtree(first.directory.path / "rounds" / f"{expected.round:04d}")
    again = make_loop(experiment, PretendEngine(NAMES, step=1.0))
    assert digest(drive(again)) == digest(expected)


@pytest.mark.parametrize("unit", ["none", "client"])
def test_no_metric_of_a_client_can_take_the_place_of_what_the_journal_says_itself(make_loop, unit):
    """A metric by such a name would end the server; every name that is written here has to be refused there."""
    experiment = experiment_of("fedit" if unit == "client" else "loom")
    if unit == "client":
        privacy = PrivacyTable(unit="client", noise_multiplier=1.0, delta=1e-5)
        rounds = experiment.rounds.model_copy(update={"weighting": "uniform"})
        experiment = experiment.model_copy(update={"privacy": privacy, "rounds": rounds})
    loop = make_loop(experiment)
    drive(loop)
    sent = {"loss", "seconds", "tokens_per_second", "label_tokens", "rows"}
    written = {"contribution": TAKEN, "evaluation": TAKEN_ALWAYS}
    for kind, taken in written.items():
        found = {name for record in loop.records() if record["kind"] == kind for name in record} - sent
        assert {"bytes_down", "holds" if unit == "none" else "bytes_up"} <= found
        assert found <= taken


@pytest.mark.parametrize(("participation", "clients"), [(1.0, 3), (0.5, 2)])
def test_the_methods_own_server_optimizer_goes_by_the_clients_of_a_round(participation, clients, make_loop):
    loop = make_loop(experiment_of("loom", rounds={"participation": participation}))
    assert server_optimizer(loop) == larger_steps(clients)
