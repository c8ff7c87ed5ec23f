"""Exactness on a real (tiny) model: logits after dispatch are those of W0 + sum p_k s_k B_k A_k."""

from __future__ import annotations

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.registry import method
from fedloom.aggregation.world import Start
from fedloom.engine.local import LocalEngine
from fedloom.engine.sites import load_sites
from fedloom.rounds.assign import training_assignments
from fedloom.rounds.state import RunState
from fedloom.rounds.step import Tally, fold, step
from fedloom.rounds.world import world_of
from fedloom.spec.load import load
from fedloom.testing.federation import tiny_federation
from fedloom.training.lora_layer import load_start
from tests.some import mostly_slow

EXACT = {"flora": "", "loom top": 'directions = "top"', "loom half": 'directions = "half"',
         "loom rotating": 'directions = "rotating"', "loom fresh": 'directions = "fresh"',
         "loom weighted": 'directions = "weighted"'}  # fmt: skip
TOKENS = torch.arange(3, 40).unsqueeze(0)


@pytest.fixture(scope="module")
def federations(tmp_path_factory):
    """ranks -> experiment and sites; unequal alpha comes from a fixed alpha over unequal ranks."""

    def make(ranks):
        folder = tmp_path_factory.mktemp("exact")
        path = tiny_federation(folder, ranks=ranks, method="flora")
        path.write_text(path.read_text().replace("[method]", "[lora]\nalpha = 8.0\n[method]"))
        experiment = load(path)
        return experiment, load_sites(experiment)

    return {ranks: make(ranks) for ranks in [(4, 2, 1), (3,)]}


def with_method(experiment, label):
    name, _, directions = label.partition(" ")
    settings = {"directions": directions} if directions else {}
    return experiment.model_copy(update={"method": experiment.method.model_validate({"name": name, **settings})})


def one_round(experiment, sites, state, participants):
    chosen = method(experiment.method.name)
    world = world_of(experiment, sites.base.modules)
    state = state or RunState(chosen.init(world), {})
    replies = list(LocalEngine(sites).exchange(training_assignments(experiment, chosen, world, state, participants)))
    tally = Tally()
    for reply in replies:
        tally = fold(tally, chosen, world, reply.assignment, reply.contribution)
    trained = [
        (
            Start(reply.contribution.adapter, chosen.dispatch(state.learned, world, reply.contribution.client).trunk),
            reply,
        )
        for reply in replies
    ]
    return step(tally, chosen, world, state), trained, world


@torch.no_grad()
def logits(sites, start):
    load_start(sites.base, start, {})
    return sites.base.model(input_ids=TOKENS).logits


@torch.no_grad()
def dense_logits(sites, trained):
    """The plain model with sum p_k (trunk_k + s_k b_k a_k) added to its weights, in float64 and by hand."""
    total = sum(reply.contribution.examples for _, reply in trained)
    saved = {}
    for module, layer in sites.base.layers.items():
        layer.clear()
        delta = sum(
            reply.contribution.examples / total * part[module].delta().double()
            for sent, reply in trained
            for part in (sent.trunk, sent.trainable)
            if module in part
        )
        saved[module] = layer.base.weight.clone()
        layer.base.weight.copy_((saved[module].double() + delta).float())
    try:
        return sites.base.model(input_ids=TOKENS).logits.clone()
    finally:
        for module, weight in saved.items():
            sites.base.layers[module].base.weight.copy_(weight)


@pytest.mark.parametrize("label", mostly_slow(EXACT, "flora", "loom rotating", "loom weighted"))
def test_every_client_starts_from_the_exact_mean(label, federations):
    experiment, sites = federations[4, 2, 1]
    experiment = with_method(experiment, label)
    state = None
    for participants in (["site-0", "site-1", "site-2"], ["site-0", "site-2"]):
        state, trained, world = one_round(experiment, sites, state, participants)
        expected = dense_logits(sites, trained)
        for client in world.slots:
            start = method(experiment.method.name).dispatch(state.learned, world, client)
            assert torch.allclose(logits(sites, start), expected, atol=2e-5), client


@pytest.mark.parametrize("label", EXACT)
def test_one_client_finds_what_it_sent(label, federations):
    experiment, sites = federations[3,]
    experiment = with_method(experiment, label)
    state = None
    for _ in range(2):
        state, ((sent, _),), world = one_round(experiment, sites, state, ["site-0"])
        before_upload = logits(sites, sent)
        after_dispatch = logits(sites, method(experiment.method.name).dispatch(state.learned, world, "site-0"))
        assert torch.allclose(before_upload, after_dispatch, atol=2e-5)
        assert not torch.allclose(after_dispatch, logits(sites, Start(Adapter())), atol=1e-3)
