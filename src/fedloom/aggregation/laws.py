"""The laws of a method, as checks: a method of your own can be held to what it declares.

Every check plays a trial's rounds and compares what the last one made with what the law says, both as dense float64
deltas: slow and obvious, the oracle. Errors are Frobenius norms relative to the largest model that took part.

Where clients keep a part of what they train there is no global model, and its delta would hold every law by being zero:
the list of the clients' models is judged in its place, each made of what is dispatched next and what its client keeps.
Then "one client" and "equal clients" speak of the models of those who took part, the mean is that of their models, and
"changes nothing" holds for everybody, absent ones too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.trials import (
    Standing,
    Trial,
    Upload,
    after_round,
    prepared,
    sample_trial,
    standing_before_last,
    uploads,
)
from fedloom.aggregation.weighting import shares
from fedloom.aggregation.world import GlobalState, World
from fedloom.errors import AggregationError
from fedloom.rng import generator

TOLERANCE = 2e-5  # of float32 algebra over a few rounds
CLEARLY = 1e-2  # a law that does not hold is broken by at least this much somewhere

Dense = Mapping[str, Tensor]


def dense(adapter: Adapter) -> dict[str, Tensor]:
    """module -> delta in float64: an oracle's view, never used to aggregate."""
    return {module: factors.scaling * (factors.b.double() @ factors.a.double()) for module, factors in adapter.items()}


def mean_of_models(before: GlobalState, sent: list[Upload]) -> dict[str, Tensor]:
    """sum_k p_k (trunk_k + new_k), module by module over those who sent it; what nobody sent stays as it was."""
    mean = dense(before.delta())
    models = {upload.client: dense(upload.model) for upload in sent}
    for module in {module for upload in sent for module in upload.adapter}:
        part = shares({upload.client: upload.weight for upload in sent if module in upload.adapter})
        mean[module] = sum((share * models[client][module] for client, share in part.items()), torch.zeros(()))
    return mean


def relative_error(got: Dense, wanted: Dense, models: Iterable[Dense]) -> float:
    """Norm of got - wanted over the largest norm of these two and the models; absent modules are zero."""
    difference = {module: got.get(module, 0) - wanted.get(module, 0) for module in got.keys() | wanted.keys()}
    largest = max(_norm(delta) for delta in (got, wanted, *models))
    return _norm(difference) / largest if largest > 0 else 0.0


def _norm(delta: Mapping[str, Any]) -> float:
    return math.sqrt(math.fsum(float((part**2).sum()) for part in delta.values()))


def models(method: Method, standing: Standing, world: World, clients: Iterable[str]) -> dict[str, Tensor]:
    """What a round is judged by: the global model, or where clients keep something the models of these clients."""
    if not method.personal:
        return dense(standing.state.delta())
    each = {client: dense(standing.start(method, world, client).delta()) for client in clients}
    return {f"{client}|{module}": delta for client, deltas in each.items() for module, delta in deltas.items()}


def _models_of(method: Method, sent: list[Upload]) -> dict[str, Tensor]:
    """The clients' models as they were trained, under the names that `models` gives; of one of equals: its model."""
    if not method.personal:
        return dense(sent[0].model)
    return {f"{one.client}|{module}": delta for one in sent for module, delta in dense(one.model).items()}


def _mean(method: Method, standing: Standing, world: World, sent: list[Upload]) -> dict[str, Tensor]:
    """The global model, or where clients keep something the weighted mean of the participants' models."""
    if not method.personal:
        return dense(standing.state.delta())
    next_starts = {upload.client: standing.start(method, world, upload.client) for upload in sent}
    models_now = [
        replace(one, start=next_starts[one.client], adapter=next_starts[one.client].trainable) for one in sent
    ]
    return mean_of_models(standing.state, models_now)


def _compare(got: Dense, wanted: Dense, sent: list[Upload]) -> float:
    return relative_error(got, wanted, [dense(upload.model) for upload in sent])


def _played(method: Method, trial: Trial) -> tuple[Standing, list[Upload], Standing]:
    """What there was before the judged round, what the clients trained in it, and what there is after it."""
    before = standing_before_last(method, trial)
    sent = uploads(method, before, trial, trial.last)
    return before, sent, after_round(method, before, trial.world, sent)


def _same_after(method: Method, trial: Trial, change: Callable[[list[Upload]], list[Upload]]) -> float:
    """The models after the round against those after it with other uploads."""
    before, sent, after = _played(method, trial)
    other = after_round(method, before, trial.world, change(sent))
    got, wanted = (models(method, standing, trial.world, trial.world.slots) for standing in (other, after))
    return _compare(got, wanted, sent)


def _order(method: Method, trial: Trial) -> float:
    return _same_after(method, trial, lambda sent: sent[::-1])


def _weight_scale(method: Method, trial: Trial) -> float:
    return _same_after(method, trial, lambda sent: [replace(upload, weight=7.3 * upload.weight) for upload in sent])


def _identity(method: Method, trial: Trial) -> float:
    """One client alone in the world: the model is its model, and the next round begins from it."""
    client = min(trial.last)
    alone = trial.among({client: trial.world.slots[client]})
    _, sent, after = _played(method, alone)
    resumed = dense(after.start(method, alone.world, client).delta())
    made = _compare(models(method, after, alone.world, [client]), _models_of(method, sent), sent)
    return max(made, _compare(resumed, dense(sent[0].model), sent))


def _equal_clients(method: Method, trial: Trial) -> float:
    one = min(trial.last)
    equal = trial.among(dict.fromkeys(trial.world.slots, trial.world.slots[one]))
    before = standing_before_last(method, equal)
    sent = uploads(method, before, equal, equal.last)
    same = [replace(upload, start=sent[0].start, adapter=sent[0].adapter) for upload in sent]
    after = after_round(method, before, equal.world, same)
    return _compare(models(method, after, equal.world, equal.last), _models_of(method, same), sent)


def _unequal_ranks(method: Method, trial: Trial) -> float:
    """0 if the rounds are played with the ranks as they are, infinity if those are ignored."""
    _, sent, _ = _played(method, trial)
    slots = trial.world.slots
    kept = all(
        upload.adapter.ranks == {module: slot.rank for module, slot in slots[upload.client].items()} for upload in sent
    )
    return 0.0 if kept else math.inf


def _exact_mean(method: Method, trial: Trial) -> float:
    before, sent, after = _played(method, trial)
    return _compare(_mean(method, after, trial.world, sent), mean_of_models(before.state, sent), sent)


def _exact_shared_a(method: Method, trial: Trial) -> float:
    before = standing_before_last(method, trial)
    drawn = uploads(method, before, trial, trial.last)
    sent = [_with_common_a(method, before.state, trial, upload) for upload in drawn]
    after = after_round(method, before, trial.world, sent)
    return _compare(_mean(method, after, trial.world, sent), mean_of_models(before.state, sent), sent)


def _with_common_a(method: Method, before: GlobalState, trial: Trial, upload: Upload) -> Upload:
    """The upload with the leading rows of one random a, where clients train a."""

    def common(module: str, factors: Factors) -> Factors:
        if not method.trains(module, "a", before.rounds + 1):
            return factors
        shape = trial.world.max_rank(module), factors.shape[1]
        rows = torch.randn(shape, generator=generator(trial.world.seed, "common a", module))
        return Factors(rows[: factors.rank], factors.b, factors.scaling)

    return replace(upload, adapter=upload.adapter.map(common))


def _split(method: Method, trial: Trial) -> float:
    before, sent, after = _played(method, trial)
    half = replace(sent[0], weight=sent[0].weight / 2)
    twin = replace(half, client=f"{half.client}, the other half")
    world = replace(trial.world, slots={**trial.world.slots, twin.client: trial.world.slots[half.client]})
    halved = after_round(method, before, world, [half, twin, *sent[1:]])
    got, wanted = (models(method, standing, world, trial.world.slots) for standing in (halved, after))
    return _compare(got, wanted, sent)


def _zero_update(method: Method, trial: Trial) -> float:
    before = standing_before_last(method, trial)
    sent = uploads(method, before, trial, trial.last)
    idle = [replace(upload, adapter=upload.start.trainable) for upload in sent]
    after = after_round(method, before, trial.world, idle)
    got, wanted = (models(method, standing, trial.world, trial.world.slots) for standing in (after, before))
    return _compare(got, wanted, idle)


_CHECKS: dict[Law, Callable[[Method, Trial], float]] = {
    Law.ORDER: _order,
    Law.WEIGHT_SCALE: _weight_scale,
    Law.IDENTITY: _identity,
    Law.EQUAL_CLIENTS: _equal_clients,
    Law.UNEQUAL_RANKS: _unequal_ranks,
    Law.EXACT_MEAN: _exact_mean,
    Law.EXACT_SHARED_A: _exact_shared_a,
    Law.SPLIT: _split,
    Law.ZERO_UPDATE: _zero_update,
}


def error(method: Method, law: Law, trial: Trial, settings: Any = None) -> float:
    """How far the method is from the law in this trial: 0 is exact, 1 is as wrong as the models are large.

    Infinity means that the method refuses this world, although its ranks are equal or it takes unequal ones.
    """
    ready = prepared(method, trial, settings)
    if law is Law.UNEQUAL_RANKS:
        ready = replace(ready, world=replace(ready.world, slots=trial.world.slots))
    try:
        return _CHECKS[law](method, ready)
    except AggregationError:
        return math.inf


def check(method: Method, law: Law, trial: Trial, settings: Any = None, *, tolerance: float = TOLERANCE) -> None:
    """Hold a method to one law in one trial. Raises: AggregationError with the size of the error."""
    found = error(method, law, trial, settings)
    if not found <= tolerance:
        raise AggregationError(
            f"the law {law.value!r} does not hold",
            where=f"method {method.name}, world with seed {trial.world.seed}",
            expected=f"a relative error of at most {tolerance:g}",
            found=f"{found:.3g}",
        )


def audit(method: Method, settings: Any = None, *, trials: int = 40) -> dict[Law, float]:
    """law -> the largest error found over that many random worlds."""
    worlds = [sample_trial(seed) for seed in range(trials)]
    return {law: max(error(method, law, trial, settings) for trial in worlds) for law in Law}


def verify(method: Method, settings: Any = None, *, trials: int = 40) -> None:
    """Hold a method to its declaration both ways: what it declares holds everywhere, what it does not fails somewhere.

    Raises: AggregationError that lists every law on the wrong side.
    """
    found = audit(method, settings, trials=trials)
    broken = [law for law in Law if law in method.laws and not found[law] <= TOLERANCE]
    hidden = [law for law in Law if law not in method.laws and found[law] < CLEARLY]
    lines = [f"declared, but broken by {found[law]:.3g}: {law.value}" for law in broken]
    lines += [f"not declared, but never broken by more than {found[law]:.3g}: {law.value}" for law in hidden]
    if lines:
        raise AggregationError("; ".join(lines), where=f"the laws of method {method.name}")
