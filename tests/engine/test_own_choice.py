"""Clients that choose how much they borrow: through the whole loop without a model, and with one against an oracle."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
import torch
from rich.console import Console

import fedloom
from fedloom.adapters.algebra import distance, norm
from fedloom.aggregation.world import Choosing
from fedloom.data.batches import training_batches
from fedloom.engine.choosing import choose
from fedloom.engine.drive import drive
from fedloom.engine.explaining import explain
from fedloom.engine.finished import load_finished
from fedloom.engine.per_client import borrowed
from fedloom.engine.sites import load_sites
from fedloom.engine.whole_run import digest_of
from fedloom.errors import RunError
from fedloom.privacy.mechanism import PrivacyPromise
from fedloom.report.explain import explain_page
from fedloom.report.explain_table import shares_table
from fedloom.rng import child
from fedloom.rounds import choosing
from fedloom.spec.load import load
from fedloom.store.client_store import ClientStore
from fedloom.testing.engine import NAMES, PretendEngine
from fedloom.testing.federation import tiny_federation
from fedloom.training.lora_layer import clear
from fedloom.training.losses import batch_loss
from tests.engine.test_own_adapters import absent, experiment_of, models

CHOSEN = '[method]\nname = "fedalt"\nborrow = "chosen"\n'


class Watched(PretendEngine):
    """What clients begin from, and what arrives of them."""

    def watching(self):
        starts, received = {}, []

        def change(assignment, contribution):
            if assignment.kind == "train":
                starts[assignment.client, assignment.round] = assignment
            received.append(contribution)
            return self.change(assignment, contribution)

        return replace(self, change=change), starts, received


def kept(loop, client, round):
    return ClientStore(loop.directory.clients / client).load(round)


@pytest.mark.parametrize(("secure", "mixer"), [(False, "learned"), (True, "sum"), (False, "static")])
def test_each_client_borrows_what_had_the_least_losses_so_far(secure, mixer, make_loop):
    engine, starts, received = Watched(NAMES).watching()
    loop = make_loop(experiment_of(secure, borrow="chosen", borrow_decay=0.25, mixer=mixer), engine)
    own = models(loop, drive(loop))
    for client in NAMES:
        assert starts[client, 1].start.borrows is None, "there is nothing to borrow yet"
        assert not any(name.startswith("borrow") for name in kept(loop, client, 1))
        sums = [0.0] * len(choosing.GRID)
        for round in (2, 3, 4):
            assert starts[client, round].start.borrows is not None
            found = kept(loop, client, round)["borrow|losses"].tolist()
            added = [new - 0.25 * old for new, old in zip(found, sums, strict=True)]
            assert all(0 < loss < 10 for loss in added)
            assert float(kept(loop, client, round)["borrow|counts"]) == choosing.GRID[found.index(min(found))]
            sums = found
        assert own[client].borrows == float(kept(loop, client, 4)["borrow|counts"])
    assert all("borrow" not in name for one in received for name in (*one.metrics, *one.head))
    assert "borrow|" not in (loop.directory.path / "journal.jsonl").read_text()


def test_a_secure_run_chooses_as_an_open_one(make_loop):
    ends = []
    for secure in (False, True):
        loop = make_loop(experiment_of(secure, borrow="chosen"), name=f"secure-{secure}")
        ends.append(models(loop, drive(loop)))
    for client, start in ends[0].items():
        assert ends[1][client].borrows == start.borrows
        assert distance(start.trainable, ends[1][client].trainable) <= 1e-4 * norm(start.trainable)


def test_a_client_that_comes_late_begins_from_nothing_beside_the_rest(make_loop):
    for secure in (False, True):
        engine, starts, _ = replace(Watched(NAMES), change=absent({"c"}, 1)).watching()
        loop = make_loop(experiment_of(secure, borrow="chosen"), engine, name=f"late-{secure}")
        drive(loop)
        late = starts["c", 2].start
        assert norm(late.trainable) == 0
        assert late.borrows is not None


def test_a_resumed_run_chooses_the_same(make_loop):
    experiment = experiment_of(borrow="chosen")
    whole = make_loop(experiment, name="whole")
    state = drive(whole)
    half = make_loop(experiment, name="half", last_round=2)
    drive(half)
    del half
    again = make_loop(experiment, name="half")
    other = drive(again)
    assert digest_of(other, models(again, other)) == digest_of(state, models(whole, state))
    one, two = kept(again, "a", 4), kept(whole, "a", 4)
    assert torch.equal(one["borrow|losses"], two["borrow|losses"])


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    config = tiny_federation(tmp_path_factory.mktemp("choosing"), method="fedalt", rounds=2)
    text = config.read_text().replace('[method]\nname = "fedalt"\n', CHOSEN)
    config.write_text(text.replace("generate_rows = 1", "generate_rows = 0"))
    return config


@pytest.fixture(scope="module")
def result(federation):
    return fedloom.run(load(federation), root=federation.parent / "runs")


def dense_loss(base, own, rest, counts, batches):
    """The sum of the losses with the whole model written into the weights of its layers."""
    clear(base)
    saved = {name: base.layers[name].base.weight.detach().clone() for name in own}
    with torch.no_grad():
        for name, factors in own.items():
            base.layers[name].base.weight += factors.delta() + counts * rest[name].delta()
        found = sum(float(batch_loss(base, batch)[0]) for batch in batches)
        for name, weight in saved.items():
            base.layers[name].base.weight.copy_(weight)
    return found


def test_what_is_chosen_is_what_has_the_least_loss_of_all_in_dense_weights(federation, result):
    """In round 2 mixers are zero, and the whole model is one matrix a layer."""
    experiment = load(federation)
    before, sites = load_finished(result.directory, round=1), load_sites(experiment)
    base, steps = sites.base, experiment.training
    for client in sites.by_client:
        start = before.own(client)
        seed = child(experiment.seed, "client", client, 2)
        rows = sites.site(client).train
        batches = list(training_batches(rows, steps.batch_size, steps.local_steps, seed, base.pad_id, base.task))
        assert sum(len(batch.labels) for batch in batches) <= 16, "so all of them are measured"
        losses = [dense_loss(base, start.trainable, start.rest, counts, batches) for counts in choosing.GRID]
        found = ClientStore(result.directory / "clients" / client).load(2)
        assert found["borrow|losses"].tolist() == pytest.approx(losses, rel=1e-5)
        assert max(losses) - min(losses) > 1e-3, "the amounts differ"
        assert float(found["borrow|counts"]) == choosing.GRID[losses.index(min(losses))]
        assert result.models[client].borrows == float(found["borrow|counts"])


def test_the_user_sees_what_each_client_chose(result):
    chosen = borrowed(result.directory)
    assert chosen == {client: start.borrows for client, start in result.models.items()}
    client = max(chosen, key=chosen.__getitem__)
    found = explain(result.directory, client, "What is batch 0 made of?")
    assert found.borrows == chosen[client] > 0
    said = f"{client} chose, by its own rows, to borrow {100 * chosen[client]:g}% of the rest of the world"
    console = Console(width=200, color_system=None, file=StringIO())
    console.print(shares_table(found, 200))
    assert said in console.file.getvalue()
    assert said in explain_page(found)


def test_a_client_that_borrows_nothing_learns_what_it_would_alone(federation, monkeypatch):
    monkeypatch.setattr(choosing, "GRID", (0.0,))
    together = load(federation)
    alone = together.model_copy(update={"clients": together.clients[:1]})
    name = alone.clients[0].name
    found = [
        fedloom.run(experiment, root=federation.parent / f"of-{len(experiment.clients)}").models[name]
        for experiment in (together, alone)
    ]
    assert found[0].borrows == 0.0
    assert found[0].trainable.digest() == found[1].trainable.digest()
    assert found[0].delta().digest() == found[1].delta().digest()
    with pytest.raises(RunError, match=f"{name} borrows 0% of the rest of the world"):
        explain(federation.parent / "of-3" / "tiny", name, "What is batch 0 made of?")


def test_rows_are_not_chosen_by_where_noise_is_promised(make_loop):
    engine, starts, _ = Watched(NAMES).watching()
    drive(make_loop(experiment_of(borrow="chosen"), engine))
    asked = starts["a", 2]
    promise = PrivacyPromise("example", 8.0, 1e-5, 1.0, None, "rdp", 4)
    private = replace(asked, work=replace(asked.work, privacy=promise))
    with pytest.raises(RunError, match="no noise covers that"):
        choose(None, private, [])
    fixed = replace(private, start=replace(private.start, choosing=None))
    assert choose(None, fixed, []) is fixed
    assert asked.start.choosing == Choosing(16, 0.5)
