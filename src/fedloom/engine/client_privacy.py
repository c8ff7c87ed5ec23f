"""The server half of privacy for whole clients: how much noise, whether the budget allows the round, and the ledger."""

from __future__ import annotations

from fedloom.engine.loop import Loop
from fedloom.errors import RunError
from fedloom.privacy.accounting import Spending, epsilon_of, noise_for, rounds_left
from fedloom.rounds.client_noise import ClientNoise
from fedloom.spec.experiment import Experiment

RELEASE = "client_release"


def spending_of(experiment: Experiment) -> Spending:
    """What a round spends: one look at every client. That clients are drawn is not counted in its favour.

    Raises: RunError if no noise is enough, or without dp-accounting.
    """
    privacy = experiment.privacy
    noise = privacy.noise_multiplier
    if noise is None:
        assert privacy.epsilon is not None, "a rule asks for one of the two"
        noise = noise_for(privacy.epsilon, privacy.checked_delta, 1.0, experiment.training.rounds, privacy.accountant)
    return Spending(noise, 1.0, 1)


def client_noise(experiment: Experiment) -> ClientNoise | None:
    """The noise of a round; None unless whole clients are protected."""
    if experiment.privacy.unit != "client":
        return None
    return ClientNoise(experiment.privacy.max_change_norm, spending_of(experiment).noise_multiplier)


def spend(loop: Loop, round: int) -> None:
    """Write the release of a round before it is made: what was spent stays, also when a crash undoes the round.

    Raises: RunError if the budget does not allow it.
    """
    privacy, each = loop.experiment.privacy, spending_of(loop.experiment)
    # All records, those of rounds that were rolled back too.
    earlier = [
        Spending(record["noise_multiplier"], 1.0, 1)
        for record in loop.directory.journal.records()
        if record["kind"] == RELEASE
    ]
    epsilon = epsilon_of([*earlier, each], privacy.checked_delta, privacy.accountant)
    if privacy.epsilon is not None and epsilon > privacy.epsilon:
        left = rounds_left(earlier, each, privacy.epsilon, privacy.checked_delta, privacy.accountant)
        raise RunError(
            "the privacy budget does not allow this round",
            where=f"round {round}",
            expected=f"epsilon of at most {privacy.epsilon:g} (privacy.epsilon)",
            found=f"{len(earlier)} rounds released, {epsilon:.3f} with this one; {left} rounds are left",
            do="End the run here, or start one with more noise and fewer rounds; what was spent stays spent",
        )
    loop.journal(
        RELEASE,
        round=round,
        noise_multiplier=each.noise_multiplier,
        max_change_norm=privacy.max_change_norm,
        epsilon=epsilon,
        delta=privacy.checked_delta,
    )
