"""fedit, zeropad and rbla: what each makes of the rows that it averages."""

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.trials import Upload, finished
from fedloom.aggregation.world import Slot
from fedloom.errors import AggregationError

AVERAGING = ["fedit", "zeropad", "rbla"]
MEANS_OF_FACTORS = [*AVERAGING, "fedex"]


def folded_mean(sent, module, side):
    """sum of w s_k b_k (or w a_k) over sum of w."""
    having = [upload for upload in sent.values() if module in upload.adapter]
    whole = sum(upload.weight for upload in having)
    total = 0
    for upload in having:
        factors = upload.adapter[module]
        total = total + upload.weight / whole * (factors.a if side == "a" else factors.scaling * factors.b)
    return total


@pytest.mark.parametrize("name", MEANS_OF_FACTORS)
def test_equal_ranks_give_the_weighted_mean_of_each_factor(play, equal_slots, name):
    run = play(name, equal_slots)
    run.round(x=10, y=30, z=5)
    run.round(x=2, z=6)
    for module in ("q", "v"):
        torch.testing.assert_close(run.state.shared[module].a, folded_mean(run.sent, module, "a"))
        torch.testing.assert_close(run.state.shared[module].b, folded_mean(run.sent, module, "b"))


@pytest.mark.parametrize("name", [*MEANS_OF_FACTORS, "hetlora"])
def test_no_client_is_forgotten(play, equal_slots, name):
    """A misspelt accumulator in public code returns p_0 times the first client."""
    run = play(name, equal_slots)
    run.round(x=1, y=1, z=1)
    together = run.state.shared["q"].b
    for client in equal_slots:
        alone = play(name, equal_slots)
        alone.round(**{client: 1})
        assert not torch.allclose(together, alone.state.shared["q"].b)


@pytest.mark.parametrize("name", [*MEANS_OF_FACTORS, "hetlora", "raflora"])
def test_a_module_that_nobody_sent_keeps_its_factors(play, name):
    slots = {"one": {"q": Slot(2, 1.0)}, "other": {"v": Slot(2, 1.0)}}
    run = play(name, slots)
    run.round(one=1, other=1)
    before = run.round(one=1)
    assert torch.equal(run.state.shared["v"].b, before.shared["v"].b)
    assert not torch.equal(run.state.shared["q"].b, before.shared["q"].b)


@pytest.mark.parametrize("name", AVERAGING)
def test_a_module_counts_only_those_who_train_it(play, name):
    slots = {"one": {"q": Slot(2, 1.0)}, "both": {"q": Slot(2, 0.5), "v": Slot(2, 2.0)}}
    run = play(name, slots)
    run.round(one=99, both=1)
    torch.testing.assert_close(run.state.shared["v"].b, 2.0 * run.sent["both"].adapter["v"].b)


def test_fedit_refuses_unequal_ranks_and_says_whose(play):
    with pytest.raises(
        AggregationError, match=r"module 'q'.*big: 4, middle: 2, small: 1.*zeropad, rbla, flora or loom"
    ):
        play("fedit")


def test_zeropad_divides_every_row_by_the_whole_weight(play):
    run = play("zeropad")
    run.round(big=1, middle=2, small=5)
    big, middle, small = (run.sent[client].adapter["q"] for client in ("big", "middle", "small"))
    a = run.state.shared["q"].a
    torch.testing.assert_close(a[3], big.a[3] / 8)
    torch.testing.assert_close(a[1], (big.a[1] + 2 * middle.a[1]) / 8)
    torch.testing.assert_close(a[0], (big.a[0] + 2 * middle.a[0] + 5 * small.a[0]) / 8)


def test_rbla_divides_every_row_by_the_weight_of_its_owners(play):
    run = play("rbla")
    run.round(big=1, middle=2, small=5)
    big, middle = run.sent["big"].adapter["q"], run.sent["middle"].adapter["q"]
    shared = run.state.shared["q"]
    assert torch.equal(shared.a[2:], big.a[2:]), "a row that one client owns comes back unchanged"
    torch.testing.assert_close(shared.b[:, 2:], 2.0 * big.b[:, 2:])
    torch.testing.assert_close(shared.a[1], (big.a[1] + 2 * middle.a[1]) / 3)
    torch.testing.assert_close(shared.b[:, 1], (2.0 * big.b[:, 1] + 2 * 0.5 * middle.b[:, 1]) / 3)


def test_rbla_keeps_the_rows_of_an_absent_client(play):
    run = play("rbla")
    run.round(big=1, middle=2, small=5)
    before = run.round(middle=2, small=5)
    assert torch.equal(run.state.shared["q"].a[2:], before.shared["q"].a[2:])
    assert torch.equal(run.state.shared["q"].b[:, 2:], before.shared["q"].b[:, 2:])
    assert not torch.equal(run.state.shared["q"].a[:2], before.shared["q"].a[:2])
    assert run.start("big").trainable["q"].rank == 4


@pytest.mark.parametrize(
    ("name", "covered"),
    [("zeropad", 0.09), ("rbla", 1.0), ("raflora", 1.0), ("flora", 0.3), ("loom", 0.3), ("fedex", 0.3)],
)
def test_the_arithmetic_of_coverage(play, name, covered):
    """A rank index that 0.3 of the data owns, all with one b and a, is worth c^2, 1 or c of b a."""
    slots = {"owner": {"q": Slot(2, 1.0)}, "other": {"q": Slot(1, 1.0)}}
    run = play(name, slots, {"q": (3, 3)})
    eye = torch.eye(3)
    only_second = Factors(eye[:2], eye[:, :2] * torch.tensor([0.0, 1.0]))
    nothing = Factors(eye[:1], torch.zeros(3, 1))
    sent = [
        Upload("owner", 3.0, run.start("owner"), Adapter({"q": only_second})),
        Upload("other", 7.0, run.start("other"), Adapter({"q": nothing})),
    ]
    delta = finished(run.method, run.state, run.world, sent).delta()["q"].delta()
    torch.testing.assert_close(delta, covered * torch.outer(eye[1], eye[1]))


def below_min_owners(play, lonely, **weights):
    """(run, previous bank, bank): the second round of the unequal world with min_owners 2."""
    run = play("rbla", min_owners=2, lonely=lonely)
    run.round(big=3, middle=2, small=1)
    before = run.round(**weights)
    return run, before.shared["q"], run.state.shared["q"]


def test_rows_with_few_owners_move_a_share_of_the_way(play):
    run, previous, now = below_min_owners(play, "slow", big=3, middle=2, small=1)
    big = run.sent["big"].adapter["q"]
    torch.testing.assert_close(now.a[2:], (previous.a[2:] + big.a[2:]) / 2)
    torch.testing.assert_close(now.b[:, 2:], (previous.b[:, 2:] + 2.0 * big.b[:, 2:]) / 2)
    torch.testing.assert_close(now.a[1], (3 * big.a[1] + 2 * run.sent["middle"].adapter["q"].a[1]) / 5)


def test_products_with_few_owners_shrink_to_their_share(play):
    run, _, now = below_min_owners(play, "shrink", big=3, middle=2, small=1)
    big = run.sent["big"].adapter["q"]
    torch.testing.assert_close(now.b[:, 2:] @ now.a[2:], 0.5 * 2.0 * big.b[:, 2:] @ big.a[2:])


def test_rows_with_few_owners_may_stay_unlearned(play):
    run, previous, now = below_min_owners(play, "keep", big=3, middle=2, small=1)
    big, middle = (run.sent[name].adapter["q"] for name in ("big", "middle"))
    assert big.b[:, 2:].any()
    assert not now.b[:, 2:].any()
    torch.testing.assert_close(now.a[2:], previous.a[2:])
    torch.testing.assert_close(now.a[1], (3 * big.a[1] + 2 * middle.a[1]) / 5)


@pytest.mark.parametrize("lonely", ["slow", "shrink", "keep"])
def test_rows_that_nobody_owns_stay_whatever_min_owners_says(play, lonely):
    _, previous, now = below_min_owners(play, lonely, middle=2, small=5)
    torch.testing.assert_close(now.a[2:], previous.a[2:])
    torch.testing.assert_close(now.b[:, 2:], previous.b[:, 2:])
    assert not torch.equal(now.a[:2], previous.a[:2])
