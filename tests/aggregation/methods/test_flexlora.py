"""flexlora: the exact mean at the server, its strongest directions at the clients."""

import pytest
import torch


@pytest.fixture(params=["b", "sqrt"])
def run(play, request):
    played = play("flexlora", split=request.param)
    played.round(big=3, middle=2, small=1)
    return played


def test_the_server_keeps_the_whole_spectrum(run):
    having = [(upload.weight, upload.adapter["q"].delta()) for upload in run.sent.values()]
    wanted = sum(weight * delta for weight, delta in having) / 6
    assert run.state.shared["q"].rank == 4 + 2 + 1
    torch.testing.assert_close(run.state.shared["q"].delta(), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("client", ["big", "middle", "small"])
def test_a_client_gets_the_nearest_delta_of_its_rank(run, client):
    start = run.start(client)
    rank = run.world.slots[client]["q"].rank
    u, s, v = torch.linalg.svd(run.state.shared["q"].delta(), full_matrices=False)
    nearest = u[:, :rank] * s[:rank] @ v[:rank]
    torch.testing.assert_close(start.trainable["q"].delta(), nearest, atol=1e-4, rtol=1e-4)
    assert start.trainable["q"].scaling == run.world.slots[client]["q"].scaling
    assert start.trunk.keys() == run.state.shared.keys() - run.world.slots[client].keys()  # what it does not train


def test_the_split_says_which_factor_carries_the_singular_values(run):
    shared = run.state.shared["q"]
    strengths = torch.linalg.svdvals(shared.delta())[: shared.rank]
    on_a = strengths.sqrt() if run.world.settings.split == "sqrt" else torch.ones(shared.rank)
    torch.testing.assert_close(shared.a.norm(dim=1), on_a, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shared.b.norm(dim=0), strengths / on_a, atol=1e-4, rtol=1e-4)


def test_a_spectrum_shorter_than_the_rank_is_filled_with_new_rows(run):
    run.round(small=1)
    start = run.start("big").trainable["q"]
    assert run.state.shared["q"].rank == 1
    assert start.b[:, 0].any()
    assert not start.b[:, 1:].any()
    assert (start.a.norm(dim=1) > 0).all()
    run.round(small=1)
    assert not torch.equal(start.a[1:], run.start("big").trainable["q"].a[1:])


def test_negligible_directions_are_dropped(play):
    run = play("flexlora", tolerance=0.9)
    run.round(big=3, middle=2, small=1)
    assert run.state.shared["q"].rank < 7


def test_a_mean_of_zero_leaves_the_next_start_trainable(play):
    run = play("flexlora", split="sqrt")
    run.size = 0.0
    run.round(big=1, middle=1)
    start = run.start("big").trainable["q"]
    assert "q" not in run.state.shared
    assert (start.a.norm(dim=1) > 0).all(), "a and b both zero would never learn"
