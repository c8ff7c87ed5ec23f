"""The server half of privacy for whole clients: the noise of a round, and the ledger of what was released."""

from __future__ import annotations

from fedloom.engine.loop import Loop
from fedloom.engine.promises import client_spending
from fedloom.privacy.accounting import Spending
from fedloom.privacy.ledger import afforded
from fedloom.report.values import SumRelease
from fedloom.rounds.client_noise import BOUND, ClientNoise
from fedloom.rounds.state import RunState
from fedloom.spec.experiment import Experiment


def client_noise(experiment: Experiment, state: RunState) -> ClientNoise | None:
    """The noise of the round after `state`; None unless whole clients are protected."""
    privacy = experiment.privacy
    if privacy.unit != "client":
        return None
    bound = state.learned.extras.get(BOUND, privacy.max_change_norm)
    return ClientNoise(float(bound), client_spending(experiment).noise_multiplier, privacy.clip_quantile)


def spend(loop: Loop, round: int, noise: ClientNoise) -> None:
    """Write the release of a round before it is made: what was spent stays, also when a crash undoes the round.

    Raises: RunError if the budget does not allow it.
    """
    privacy, each = loop.experiment.privacy, client_spending(loop.experiment)
    # All records, those of rounds that were rolled back too.
    earlier = [
        Spending(record["noise_multiplier"], each.sampling_rate, each.steps)
        for record in loop.directory.journal.records()
        if record["kind"] == SumRelease.KIND
    ]
    bound = privacy.checked_delta, privacy.accountant
    where, whose = f"round {round}", "privacy.epsilon"
    epsilon = afforded(earlier, each, privacy.epsilon, *bound, where=where, whose=whose)
    loop.journal(
        SumRelease.KIND,
        round=round,
        noise_multiplier=each.noise_multiplier,
        max_change_norm=noise.bound,
        epsilon=epsilon,
        delta=privacy.checked_delta,
    )
