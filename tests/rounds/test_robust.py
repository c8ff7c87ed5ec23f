"""What a robust rule does to the sum of a round, for every method that it goes with."""

from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import norm, subtract, truncate
from fedloom.adapters.factors import Factors
from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.robust.judge import judged
from fedloom.aggregation.world import Slot, World
from fedloom.rounds.assign import training_assignment
from fedloom.rounds.messages import Contribution
from fedloom.rounds.robust import change, evidence_of, folded, trimmed
from fedloom.rounds.state import RunState
from fedloom.rounds.step import Tally, fold, step
from fedloom.testing.attacks import scaled
from fedloom.testing.engine import pretend_experiment

MODULES = {"q": (12, 10), "v": (8, 10)}
FITTING = [name for name, method in METHODS.items() if not method.personal]
NAMES = ("a", "b", "c", "d", "e")


def world_of(method):
    ranks = (1, 2, 3, 2, 3) if Law.UNEQUAL_RANKS in method.laws else (2,) * 5
    slots = {name: {module: Slot(rank, 2.0) for module in MODULES} for name, rank in zip(NAMES, ranks, strict=True)}
    return World(MODULES, slots, method.settings(), seed=3)


def answers_of(method, world, state, attack=None, by="e"):
    """Honest clients move their factors by noise; the last one attacks."""
    experiment, found = pretend_experiment(method.name), []
    for name in NAMES:
        asked = training_assignment(
            experiment.model_copy(update={"clients": _tables(experiment)}), method, world, state, name
        )
        draws = torch.Generator().manual_seed(asked.seed % 2**31)

        def moved(module, old, asked=asked, draws=draws):
            sides = asked.trains[module]
            a = old.a + 0.1 * torch.randn(old.a.shape, generator=draws) if "a" in sides else old.a
            b = old.b + 0.1 * torch.randn(old.b.shape, generator=draws) if "b" in sides else old.b
            return Factors(a, b, old.scaling)

        head = {"bias": asked.head["bias"] + torch.randn(3, generator=draws)}
        sent = Contribution(asked.round, name, 10, {}, asked.start.trainable.map(moved), head)
        found.append((asked, attack(asked, sent) if attack and name == by else sent))
    return found


def _tables(experiment):
    return tuple(experiment.clients[0].model_copy(update={"name": name}) for name in NAMES)


def begun(method, world, rounds=2):
    state = RunState(method.init(world), {"bias": torch.zeros(3)})
    for _ in range(rounds):
        tally = Tally()
        for asked, sent in answers_of(method, world, state):
            tally = fold(tally, method, world, asked, sent)
        state = replace(step(tally, method, world, state), change=None)
    return state


def moved_by(method, world, state, tally):
    after = step(tally, method, world, state)
    head = float((after.head["bias"] - state.head["bias"]).norm())
    return norm(subtract(after.learned.delta(), state.learned.delta())), head


def bounded(method, world, answers, rule="none", ratio=2.0, bad=1):
    judgement = judged(evidence_of(method, world, answers, "examples"), rule, ratio, bad)
    return folded(method, world, answers, judgement, "examples"), judgement


@pytest.mark.parametrize("name", FITTING)
def test_a_client_that_shouts_moves_the_model_no_further_than_it_may(name):
    method = METHODS[name]
    world = world_of(method)
    state = begun(method, world)
    plain, _ = bounded(method, world, answers_of(method, world, state))
    loud = answers_of(method, world, state, scaled(1e4))
    free = Tally()
    for asked, sent in loud:
        free = fold(free, method, world, asked, sent)
    tally, judgement = bounded(method, world, loud)
    honest, attacked, unbounded = (moved_by(method, world, state, one) for one in (plain, tally, free))
    assert judgement.shares["e"] < 0.01
    assert min(share for name, share in judgement.shares.items() if name != "e") > 0.3
    assert attacked[0] < 4 * honest[0] + 1e-6
    assert attacked[1] < 4 * honest[1]
    assert unbounded[0] > 20 * honest[0]
    assert unbounded[1] > 20 * honest[1]


@pytest.mark.parametrize("name", [name for name in FITTING if Law.EXACT_MEAN in METHODS[name].laws])
def test_a_share_is_exactly_that_share_of_the_change_where_the_mean_of_deltas_is_exact(name):
    """Oracle: the deltas of all, written out."""
    method = METHODS[name]
    world = world_of(method)
    state = begun(method, world)
    answers = answers_of(method, world, state, scaled(30.0))
    tally, judgement = bounded(method, world, answers, "geometric-median")
    after = step(tally, method, world, state)
    total = sum(judgement.factors.values())
    for module in MODULES:
        expected = torch.zeros(MODULES[module], dtype=torch.float64)
        for asked, sent in answers:
            whole = [sent.adapter[module], asked.start.trainable[module]]
            new, old = (f.scaling * f.b.double() @ f.a.double() for f in whole)
            weight, share = judgement.factors[asked.client] / total, judgement.shares[asked.client]
            expected += weight * (share * (new - old) + (0 if _goes_on(name) else old))
        delta, before = after.learned.delta()[module], state.learned.delta()
        dense = delta.scaling * delta.b.double() @ delta.a.double()
        if _goes_on(name) and module in before:
            dense = dense - before[module].scaling * before[module].b.double() @ before[module].a.double()
        assert torch.allclose(dense, expected, atol=1e-4 * float(dense.abs().max()) + 1e-6)
    assert min(judgement.shares.values()) < 0.2


def _goes_on(name):
    """Whether the next delta is the one before and the mean of changes, or the mean of what was trained."""
    return name in ("loom", "flora", "fedex", "fedsvd", "ffa", "rolora")


def test_small_deltas_of_large_factors_are_seen_where_factors_are_averaged():
    """a 1e4 times larger, b 1e4 times smaller: the delta is an honest one, the mean of factors would not be."""
    method = METHODS["fedit"]
    world = world_of(method)
    state = begun(method, world)

    def refactored(asked, sent):
        return replace(sent, adapter=sent.adapter.map(lambda _, f: Factors(f.a * 1e4, f.b / 1e4, f.scaling)))

    honest, _ = bounded(method, world, answers_of(method, world, state))
    tally, judgement = bounded(method, world, answers_of(method, world, state, refactored))
    assert judgement.shares["e"] < 0.01
    assert moved_by(method, world, state, tally)[0] < 4 * moved_by(method, world, state, honest)[0]


def test_a_head_alone_can_be_what_attacks():
    method = METHODS["loom"]
    world = world_of(method)
    state = begun(method, world)
    answers = answers_of(method, world, state, lambda _, sent: replace(sent, head={"bias": sent.head["bias"] * 1e3}))
    tally, judgement = bounded(method, world, answers)
    assert judgement.shares["e"] < 0.05
    assert moved_by(method, world, state, tally)[1] < 3
    assert bounded(method, world, answers, "krum")[1].factors["e"] == 0


def test_the_change_is_that_of_the_deltas_whatever_the_ranks():
    method = METHODS["hetlora"]
    world = world_of(method)
    state = begun(method, world)
    asked, sent = answers_of(method, world, state)[2]
    pruned = replace(sent, adapter=sent.adapter.map(lambda _, f: truncate(f, 2)))
    for one in (sent, pruned):
        expected = norm(subtract(one.adapter, asked.start.trainable))
        assert norm(change(asked, one)) == pytest.approx(expected, rel=1e-5)


def test_dropped_clients_are_not_in_the_sum_and_pruned_ranks_are_known_after_clipping():
    method = METHODS["hetlora"]
    world = world_of(method)
    state = begun(method, world)
    answers = answers_of(method, world, state, scaled(100.0), by="a")
    asked, sent = answers[2]
    pruned = sent.adapter.map(lambda _, f: truncate(Factors(f.a, 50 * f.b, f.scaling), 2))
    answers[2] = (asked, replace(sent, adapter=pruned))
    tally, judgement = bounded(method, world, answers)
    assert judgement.shares["c"] < 1
    assert step(tally, method, world, state).learned.ranks["c"] == {"q": 2, "v": 2}
    tally, judgement = bounded(method, world, answers, "krum")
    assert tally.clients == tuple(name for name in NAMES if judgement.factors[name] > 0)
    assert len(tally.clients) == 1


@pytest.mark.parametrize("name", ["fedit", "ffa", "rolora"])
def test_the_trimmed_mean_of_factors_reaches_the_model(name):
    method = METHODS[name]
    slots = {client: {module: Slot(2, 2.0) for module in MODULES} for client in NAMES}
    world = World(MODULES, slots, method.settings(), seed=3)
    state = begun(method, world)
    answers = trimmed(answers_of(method, world, state, scaled(1e5)), 1)
    tally = Tally()
    for asked, sent in answers:
        tally = fold(tally, method, world, asked, sent)
    plain = Tally()
    for asked, sent in answers_of(method, world, state):
        plain = fold(plain, method, world, asked, sent)
    assert moved_by(method, world, state, tally)[0] < 4 * moved_by(method, world, state, plain)[0]
    assert tally.clients == NAMES
    assert isinstance(answers[0][1].adapter, Adapter)
