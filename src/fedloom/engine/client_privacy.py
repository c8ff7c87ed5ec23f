"""The server half of privacy for whole clients: the noise of a round, and the ledger of what was released. Under secure
aggregation clients add the noise, and the server says how much."""

from __future__ import annotations

from torch import Tensor

from fedloom.engine.loop import Loop
from fedloom.engine.promises import client_spending, spent_on_sums
from fedloom.privacy.adaptive_bound import count_noise, next_bound
from fedloom.privacy.ledger import afforded
from fedloom.privacy.noise_share import NoiseShare
from fedloom.report.values import SumRelease
from fedloom.rounds.client_noise import BOUND, ClientNoise, bound_of
from fedloom.rounds.messages import Masking
from fedloom.rounds.state import RunState
from fedloom.rounds.step import Tally
from fedloom.spec.experiment import Experiment


def client_noise(experiment: Experiment, state: RunState) -> ClientNoise | None:
    """The server's noise of the round after `state`; None unless it protects whole clients."""
    privacy = experiment.privacy
    if privacy.unit != "client" or experiment.secure_aggregation.enabled:
        return None
    return ClientNoise(_bound(experiment, state), client_spending(experiment).noise_multiplier, privacy.clip_quantile)


def _bound(experiment: Experiment, state: RunState | None) -> float:
    """Of a client's change in the round after `state`; None: in the first one."""
    extras = {} if state is None else state.learned.extras
    return float(extras.get(BOUND, experiment.privacy.max_change_norm))


def noise_share(experiment: Experiment, clients: int, state: RunState | None = None) -> NoiseShare | None:
    """What clients clip to and add themselves, as the server sees nothing but their sum; None where it adds the noise,
    or nobody does. clients: asked in the round after `state`; None: the first one."""
    privacy = experiment.privacy
    if privacy.unit != "client" or not experiment.secure_aggregation.enabled:
        return None
    multiplier = client_spending(experiment).noise_multiplier
    return NoiseShare(
        bound=_bound(experiment, state),
        noise_multiplier=multiplier,
        colluding=privacy.colluding,
        epsilon=privacy.epsilon,
        delta=privacy.checked_delta,
        accountant=privacy.accountant,
        counting=0.0 if privacy.clip_quantile is None else count_noise(clients, multiplier),
    )


def bound_after(experiment: Experiment, masking: Masking | None, tally: Tally) -> dict[str, Tensor]:
    """For the state: the bound that the count of a secure sum leads to; nothing where there is none."""
    noise, quantile = None if masking is None else masking.noise, experiment.privacy.clip_quantile
    if noise is None or quantile is None or not tally.clients:
        return {}
    return bound_of(next_bound(noise.bound, quantile, tally.within, len(tally.clients)))


def spend(loop: Loop, round: int, max_change_norm: float) -> None:
    """Write the release of a round before it is made: what was spent stays, also when a crash undoes the round.

    Raises: RunError if the budget does not allow it.
    """
    privacy, each = loop.experiment.privacy, client_spending(loop.experiment)
    earlier = spent_on_sums(loop.directory.journal.records())
    bound = privacy.checked_delta, privacy.accountant
    where, whose = f"round {round}", "privacy.epsilon"
    epsilon = afforded(earlier, each, privacy.epsilon, *bound, where=where, whose=whose)
    loop.journal(
        SumRelease.KIND,
        round=round,
        noise_multiplier=each.noise_multiplier,
        max_change_norm=max_change_norm,
        epsilon=epsilon,
        delta=privacy.checked_delta,
    )


def spend_opened(loop: Loop, round: int, masking: Masking) -> None:
    """The same for a secure sum, before anybody reveals a share of it; nothing where it is exact."""
    if masking.noise is not None:
        spend(loop, round, masking.noise.bound)
