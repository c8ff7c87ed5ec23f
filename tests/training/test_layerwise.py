"""One step size for a whole tensor: by hand, and what it does to rows of classes that a client does not have."""

import pytest
import torch

from fedloom.data.batches import Batch
from fedloom.privacy.entropy import Entropy
from fedloom.privacy.mechanism import Mechanism
from fedloom.training.layerwise import LAYERWISE, adamw
from fedloom.training.local import load_assignment, train
from fedloom.training.private import train_privately

RATE = 0.1


def parameter(*shape, seed=0):
    return torch.nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def optimizer_of(factor, head, layerwise=True):
    return adamw(
        [
            {"params": [factor], "lr": RATE, "weight_decay": 0.0},
            {"params": [head], "lr": RATE, "weight_decay": 0.0, LAYERWISE: layerwise},
        ]
    )


def steps(optimizer, *series):
    """series: of each parameter its gradients, step by step; None for no gradient."""
    for gradients in zip(*(each for _, each in series), strict=True):
        for (parameter, _), gradient in zip(series, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        optimizer.step()


def gradients(count, *shape):
    return [
        torch.randn(*shape, generator=torch.Generator().manual_seed(100 + each)) * 10**each for each in range(count)
    ]


def test_three_steps_by_hand():
    head, factor, found = parameter(3, 4), parameter(2, 2), gradients(3, 3, 4)
    expected, moment = head.detach().double(), 0.0
    for number, gradient in enumerate(found, start=1):
        moment = 0.999 * moment + 0.001 * float(gradient.double().square().mean())
        expected -= RATE * gradient.double() / ((moment / (1 - 0.999**number)) ** 0.5 + 1e-8)
    steps(optimizer_of(factor, head), (head, found), (factor, gradients(3, 2, 2)))
    torch.testing.assert_close(head.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_a_step_is_as_long_as_the_first_of_adamw():
    plain, ours, given = parameter(5, 7), parameter(5, 7), gradients(1, 5, 7)
    lengths = []
    for head, layerwise in ((plain, False), (ours, True)):
        before = head.detach().clone()
        steps(optimizer_of(parameter(1, 1), head, layerwise), (head, given))
        lengths.append(float((head - before).norm()))
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-4)


def test_the_other_groups_are_adamw_s_own():
    ours, torchs, given = parameter(4, 4), parameter(4, 4), gradients(4, 4, 4)
    steps(optimizer_of(ours, head := parameter(2, 2)), (ours, given), (head, gradients(4, 2, 2)))
    steps(torch.optim.AdamW([torchs], lr=RATE, weight_decay=0.0, fused=True), (torchs, given))
    assert torch.equal(ours, torchs)


def test_without_a_gradient_a_tensor_stays_and_a_gradient_stays_where_it_was():
    head, factor = parameter(2, 2), parameter(2, 2)
    before, optimizer = head.detach().clone(), optimizer_of(factor, head)
    steps(optimizer, (head, [None]), (factor, gradients(1, 2, 2)))
    assert torch.equal(head, before)
    given = gradients(1, 2, 2)
    steps(optimizer, (head, given))
    assert torch.equal(head.grad, given[0])
    steps(optimizer, (head, [torch.zeros(2, 2)]))
    assert bool(torch.isfinite(head).all())


@pytest.mark.parametrize(("optimizer", "least", "most"), [("adamw", 0.5, 2.0), ("layerwise", 0.0, 0.25)])
def test_a_row_of_an_absent_class_moves_as_far_as_the_others_by_adamw_alone(optimizer, least, most, load, kit):
    """A client with rows of two classes: what it learns of the third is that its rows are not of it."""
    base = load("bert")
    with torch.no_grad():
        base.model.get_parameter("classifier.bias").copy_(torch.tensor([0.0, 0.0, -3.0]))
    batch = kit.random_batch(base)
    present = Batch(batch.input_ids, torch.arange(len(batch.labels)) % 2)
    work = kit.assignment(base, steps=2, head_optimizer=optimizer, learning_rate=1e-6)
    moved = train(base, work, iter([present] * 2), lambda _: None).head["classifier.weight"]
    first, second, absent = (moved - work.head["classifier.weight"]).norm(dim=1)
    assert least < float(absent / (first + second) * 2) < most


def test_private_training_takes_it_as_well(load, kit):
    """Of equal clipped gradients one step differs as the two rules do: a row's share of the step is its gradient's."""
    base, heads = load("bert"), {}
    for optimizer in ("adamw", "layerwise"):
        work = kit.assignment(base, steps=1, head_optimizer=optimizer)
        load_assignment(base, work)
        how = Mechanism(40, 4, 1, 1e-9, 0.5, 1e-3, "rdp", None)
        entropy = Entropy(lambda count: b"\xff" * count)
        result = train_privately(base, work, iter([[kit.random_batch(base)]]), how, entropy, lambda _: None)
        heads[optimizer] = result.head["classifier.weight"] - work.head["classifier.weight"]
    assert float(heads["adamw"].abs().std()) < 1e-4, "every weight moves by the rate"
    assert float(heads["layerwise"].abs().std()) > 1e-3
    assert float(heads["layerwise"].norm()) == pytest.approx(float(heads["adamw"].norm()), rel=1e-3)
