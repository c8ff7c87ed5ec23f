"""loom: the start and the trunk divide the global delta, and compression says what it costs."""

from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.directions import RULES
from fedloom.aggregation.methods.loom import COMPRESSION_ERROR, COVERING, TRUNK_ERROR, WEIGHTED
from fedloom.aggregation.world import Slot
from fedloom.errors import AggregationError


@pytest.fixture(params=[*sorted(RULES), WEIGHTED, COVERING])
def run(play, request):
    played = play("loom", directions=request.param)
    played.round(big=3, middle=2, small=1)
    return played


def test_the_state_is_a_spectrum(run):
    shared = run.state.shared["q"]
    torch.testing.assert_close(shared.a @ shared.a.T, torch.eye(shared.rank), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        shared.b.norm(dim=0), torch.linalg.svdvals(shared.delta())[: shared.rank], atol=1e-5, rtol=1e-4
    )


def test_start_and_trunk_have_every_direction_once(run):
    shared = run.state.shared["q"]
    for client, slots in run.world.slots.items():
        start = run.start(client)
        trained = start.trainable["q"]
        assert (trained.rank, trained.scaling) == (slots["q"].rank, slots["q"].scaling)
        torch.testing.assert_close(trained.a @ trained.a.T, torch.eye(trained.rank), atol=1e-5, rtol=0)
        learned = trained.b.any(dim=0)
        rows = [*trained.a[learned], *(start.trunk["q"].a if "q" in start.trunk else [])]
        assert sorted(row.tolist() for row in rows) == sorted(row.tolist() for row in shared.a)


@pytest.mark.parametrize(("rule", "learned"), [("top", [0, 1, 2, 3]), ("fresh", [])])
def test_rules_without_chance_train_what_they_say(play, rule, learned):
    run = play("loom", directions=rule)
    run.round(big=3, middle=2, small=1)
    start = run.start("big").trainable["q"]
    assert start.b.any(dim=0).sum() == len(learned)
    assert torch.equal(start.a[: len(learned)], run.state.shared["q"].a[learned])


def test_half_always_trains_the_strongest(play):
    run = play("loom", directions="half")
    for _ in range(5):
        run.round(big=3, middle=2, small=1)
        assert torch.equal(run.start("big").trainable["q"].a[:2], run.state.shared["q"].a[:2])


def test_draws_differ_by_round_and_client_and_come_from_the_seed(play, equal_slots):
    run, twin, other = (play("loom", equal_slots, seed=seed) for seed in (1, 1, 2))
    starts = []
    for _ in range(2):
        starts += [run.start(client).trainable["q"].a for client in equal_slots]
        assert run.start("x").trainable.digest() == twin.start("x").trainable.digest()
        assert run.start("x").trainable.digest() != other.start("x").trainable.digest()
        for each in (run, twin, other):
            each.round(x=1, y=1, z=1)
    assert len({tuple(start.flatten().tolist()) for start in starts}) >= 5  # of 6 known ones, two may draw the same


def test_new_directions_are_apart_from_all_that_is_known_while_there_is_room(play):
    run = play("loom", directions="fresh")
    run.round(small=1)
    start, trunk = run.start("big").trainable["q"], run.state.shared["q"]
    assert float((start.a @ trunk.a.T).abs().max()) < 1e-5
    assert not start.b.any()


def test_a_client_without_a_module_has_it_in_its_trunk(run):
    assert torch.equal(run.start("small").trunk["v"].b, run.state.shared["v"].b)


def test_the_lift_tells_which_directions_were_trained_and_not_the_empty_ones(play):
    run = play("loom")
    run.round(middle=2, small=1)
    facts, known = run.facts("big"), run.state.shared["q"].a
    trained = facts.start.trainable["q"]
    learned = (trained.a @ known.T).abs() > 0.5
    assert 0 < int(learned.sum()) < trained.rank
    lifted = run.method.lift(facts.start.trainable, 2.0, facts)
    torch.testing.assert_close(known.double() @ lifted.sums["q|trained"], 2.0 * learned.any(dim=0).double())


def test_the_sum_is_as_wide_as_what_clients_sent(play):
    run = play("loom", modules={"q": (40, 50), "v": (40, 50)})
    for _ in range(3):
        run.round(big=3, middle=2, small=1)
    facts = run.facts("big")
    assert run.method.lift(facts.start.trainable, 2.0, facts).stack.ranks == facts.start.trainable.ranks


def test_nothing_new_does_not_make_the_spectrum_longer(run):
    run.size = 0.0
    before = run.round(big=1, middle=1, small=1)
    for _ in range(5):
        run.round(big=1, middle=1, small=1)
    assert run.state.shared.ranks == before.shared.ranks


def test_without_a_budget_nothing_is_lost(run):
    assert float(run.state.extras[COMPRESSION_ERROR]) == 0.0


def test_a_budget_keeps_the_nearest_delta_and_reports_the_error(play):
    exact, budgeted = play("loom"), play("loom", rank_budget=2)
    for each in (exact, budgeted):
        each.round(big=3, middle=2, small=1)
    assert set(budgeted.state.shared.ranks.values()) == {2}
    wanted = {module: factors.delta() for module, factors in exact.state.shared.items()}
    lost = sum(float((wanted[module] - budgeted.state.shared[module].delta()).square().sum()) for module in wanted)
    whole = sum(float(delta.square().sum()) for delta in wanted.values())
    assert float(budgeted.state.extras[COMPRESSION_ERROR]) == pytest.approx((lost / whole) ** 0.5, rel=1e-3)
    nearest = torch.linalg.svdvals(wanted["q"])[2:].norm()
    assert float((wanted["q"] - budgeted.state.shared["q"].delta()).norm()) == pytest.approx(float(nearest), rel=1e-3)


@pytest.mark.parametrize("energy", [0.3, 0.9, 0.999])
def test_energy_keeps_the_fewest_directions_that_reach_it(play, energy):
    exact, less = play("loom"), play("loom", energy=energy)
    for each in (exact, less):
        each.round(big=3, middle=2, small=1)
    squares = exact.state.shared["q"].b.square().sum(dim=0)
    reached = squares.cumsum(0) / squares.sum()
    kept = less.state.shared["q"].rank
    assert reached[kept - 1] >= energy
    assert kept == 1 or reached[kept - 2] < energy


def test_a_compressed_run_goes_on_from_what_was_kept(play):
    run = play("loom", rank_budget=3, energy=0.95)
    for _ in range(3):
        run.round(big=3, middle=2, small=1)
        for client in run.world.slots:
            torch.testing.assert_close(
                run.start(client).delta()["q"].delta(), run.state.shared["q"].delta(), atol=1e-5, rtol=1e-4
            )


def test_a_module_that_was_not_sent_out_is_refused_by_name(run):
    facts = run.facts("small")
    with pytest.raises(AggregationError, match=r"client 'small', module 'v'.*\['q'\]"):
        run.method.lift(Adapter({"v": run.state.shared["v"]}), 1.0, facts)


@pytest.mark.parametrize("directions", ["half", "rotating"])
@pytest.mark.parametrize("pool", [1e10, 1e308])
def test_a_pool_beyond_the_layer_is_the_whole_layer(play, directions, pool):
    beyond, whole = (play("loom", directions=directions, pool=size) for size in (pool, 100.0))
    for each in (beyond, whole):
        each.round(big=3, middle=2, small=1)
    for client in whole.world.slots:
        assert beyond.start(client).trainable.digest() == whole.start(client).trainable.digest()


@pytest.mark.parametrize("budget", [{"trunk_rank": 1.0}, {"trunk_energy": 0.5}, {"trunk_rank": 0.0}])
def test_a_trunk_that_was_cut_says_what_the_worst_client_lacks(play, budget):
    run = play("loom", **budget)
    for _ in range(2):
        run.round(big=3, middle=2, small=1)
    lacking = []
    for client, slots in run.world.slots.items():
        delta = run.start(client).delta()
        for module, factors in run.state.shared.items():
            have = delta[module].delta() if module in delta else torch.zeros(factors.shape)
            lacking.append(float((factors.delta() - have).norm() / factors.delta().norm()))
            cut = module in slots and module in run.start(client).trunk and "trunk_rank" in budget
            assert not cut or run.start(client).trunk[module].rank <= budget["trunk_rank"] * slots[module].rank
    assert max(lacking) > 0.1
    assert float(run.state.extras[TRUNK_ERROR]) == pytest.approx(max(lacking), rel=1e-4)


def test_a_cut_trunk_costs_the_client_and_not_the_server(play):
    """What is added is the change from the start that was sent, whatever that start lacked."""
    run = play("loom", trunk_rank=0.0)
    run.round(big=3, middle=2, small=1)
    before = run.round(big=3, small=1)
    change = sum(
        upload.weight / 4 * (upload.adapter["q"].delta() - upload.start.trainable["q"].delta())
        for upload in run.sent.values()
    )
    torch.testing.assert_close(run.state.shared["q"].delta(), before.shared["q"].delta() + change, atol=1e-5, rtol=1e-4)


def test_covering_trains_every_direction_once(play):
    run = play(
        "loom", {client: {"q": Slot(rank, 1.0)} for client, rank in (("x", 3), ("y", 2), ("z", 1))}, directions=COVERING
    )
    run.round(x=1, y=1, z=1)
    known = run.state.shared["q"]
    trained = [row for client in "xyz" for row in run.start(client).trainable["q"].a]
    of_known = [row for row in trained if float((known.a @ row).abs().max()) > 0.999]
    assert known.rank == 6 == len(of_known)
    assert len({tuple(row.tolist()) for row in of_known}) == 6
    twice = {client: run.start(client).trainable["q"].a.clone() for client in "xyz"}
    run.size = 0.0
    run.round(x=1)
    assert not torch.equal(run.start("x").trainable["q"].a, twice["x"])


def test_weighted_trains_strong_directions_more_often_and_leaves_no_place_empty(play):
    run = play("loom", power=1.0)
    for _ in range(3):
        run.round(big=3, middle=2, small=1)
    known, counts = run.state.shared["q"], torch.zeros(run.state.shared["q"].rank)
    for seed in range(300):
        run.world = replace(run.world, seed=seed)
        trained = run.start("middle").trainable["q"]
        assert trained.b.any(dim=0).all()
        counts += (trained.a @ known.a.T > 0.999).sum(dim=0)
    assert int(counts.sum()) == 300 * 2
    assert counts[0] > 2 * counts[-1]
    run.world = replace(run.world, settings=replace(run.world.settings, power=1e3))
    assert torch.equal(run.start("middle").trainable["q"].a, known.a[:2])
