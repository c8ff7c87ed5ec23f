"""hetlora: weights by norm, padding, and ranks that clients have pruned."""

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import norm, truncate
from fedloom.aggregation.laws import audit
from fedloom.aggregation.local_rules import Penalty
from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.trials import Upload, finished

HETLORA = METHODS["hetlora"]


def padded_mean(run, weights):
    whole = sum(weights.values())
    a, b = torch.zeros(4, 8), torch.zeros(9, 4)
    for client, weight in weights.items():
        factors = run.sent[client].adapter["q"]
        a[: factors.rank] += weight / whole * factors.a
        b[:, : factors.rank] += weight / whole * factors.scaling * factors.b
    return a, b


@pytest.mark.parametrize(
    ("chosen", "weigh"),
    [
        ("norm", lambda size, _: size),
        ("norm x weight", lambda size, examples: size * examples),
        ("weight", lambda _, examples: examples),
    ],
)
def test_the_mean_is_padded_and_weighted(play, chosen, weigh):
    run = play("hetlora", weights=chosen)
    examples = {"big": 3, "middle": 2, "small": 9}
    run.round(**examples)
    sizes = {client: norm(upload.adapter) for client, upload in run.sent.items()}
    a, b = padded_mean(run, {client: weigh(sizes[client], examples[client]) for client in examples})
    torch.testing.assert_close(run.state.shared["q"].a, a)
    torch.testing.assert_close(run.state.shared["q"].b, b)


@pytest.mark.parametrize("weights", ["weight", "norm x weight"])
def test_with_examples_in_the_weights_a_client_can_be_split(weights):
    assert audit(HETLORA, HETLORA.settings(weights=weights), trials=10)[Law.SPLIT] < 1e-5


def test_a_round_in_which_nobody_learned_is_a_mean_too(play):
    run = play("hetlora")
    run.size = 0.0
    before = run.round(big=1, middle=1)
    torch.testing.assert_close(run.state.shared["q"].a[:2], before.shared["q"].a[:2])


def with_smaller(run, client, rank):
    """One more round in which a client has pruned module q."""
    sent = []
    for name in run.world.slots:
        start = run.start(name)
        adapter = start.trainable
        if name == client:
            adapter = Adapter({**adapter, "q": truncate(adapter["q"], rank)})
        sent.append(Upload(name, 1.0, start, adapter))
    run.state = finished(run.method, run.state, run.world, sent)


def test_a_pruned_rank_stays_for_all_later_rounds_and_the_plan_is_untouched(play):
    run = play("hetlora")
    run.round(big=1, middle=1, small=1)
    with_smaller(run, "big", 3)
    assert run.state.ranks == {"big": {"q": 3}}
    assert run.start("big").trainable.ranks == {"q": 3, "v": 3}
    assert run.start("big").trainable["q"].scaling == run.world.slots["big"]["q"].scaling
    run.round(middle=1)
    run.round(big=1, small=1)
    assert run.start("big").trainable.ranks == {"q": 3, "v": 3}
    with_smaller(run, "big", 2)
    assert run.state.ranks == {"big": {"q": 2}}
    assert run.world.slots["big"]["q"].rank == 4
    assert run.start("middle").trainable["q"].rank == 2


def test_the_settings_are_the_rules_of_training():
    rules = HETLORA.rules(HETLORA.settings(decay=0.5, tail=0.2))
    assert (rules.penalties, rules.prune) == ((Penalty("tail", 0.2, 0.5),), 0.5)
    none = HETLORA.rules(HETLORA.settings(tail=0.0, prune=False))
    assert (none.penalties, none.prune) == ((), None)
    assert all(not METHODS[name].rules(METHODS[name].settings()).penalties for name in METHODS if name != "hetlora")
