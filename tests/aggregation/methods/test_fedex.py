"""fedex: the bank is the mean of the factors, the trunk is what their product misses."""

import torch


def residual(run):
    """mean of the products less the product of the means, in float64, for one round of x, y, z."""
    whole = sum(upload.weight for upload in run.sent.values())
    factors = [(upload.weight / whole, upload.adapter["q"]) for upload in run.sent.values()]
    products = sum(share * f.scaling * f.b.double() @ f.a.double() for share, f in factors)
    a = sum(share * f.a.double() for share, f in factors)
    return products - sum(share * f.scaling * f.b.double() for share, f in factors) @ a


def test_the_trunk_collects_the_residuals_of_all_rounds(play, equal_slots):
    run, missed = play("fedex", equal_slots), 0
    for weights in ({"x": 1, "y": 5, "z": 2}, {"x": 3, "z": 1}, {"x": 1, "y": 1, "z": 1}):
        run.round(**weights)
        missed = missed + residual(run)
        torch.testing.assert_close(run.state.trunk["q"].delta().double(), missed, atol=1e-5, rtol=1e-4)


def test_the_bank_is_that_of_fedit(play, equal_slots):
    """The residual never enters what is trained."""
    run, other = play("fedex", equal_slots), play("fedit", equal_slots)
    for _ in range(2):
        run.round(x=1, y=5, z=2)
        other.round(x=1, y=5, z=2)
    torch.testing.assert_close(run.state.shared["q"].a, other.state.shared["q"].a)
    torch.testing.assert_close(run.state.shared["q"].b, other.state.shared["q"].b)


def test_a_small_client_has_the_upper_rows_in_its_trunk_and_nobody_elses_model_changes(play):
    run = play("fedex")
    run.round(big=3, middle=2, small=1)
    wanted = run.state.delta()["q"].delta()
    for client, slots in run.world.slots.items():
        start = run.start(client)
        assert start.trainable["q"].rank == slots["q"].rank
        torch.testing.assert_close(start.delta()["q"].delta(), wanted)


def test_rows_that_nobody_present_owns_are_kept_in_the_bank(play):
    run = play("fedex")
    run.round(big=3, middle=2, small=1)
    before = run.round(small=1)
    assert torch.equal(run.state.shared["q"].b[:, 1:], before.shared["q"].b[:, 1:])
    assert not torch.equal(run.state.shared["q"].b[:, 0], before.shared["q"].b[:, 0])
