"""What [privacy] means for the clients of a federation: whether it can be held, and with how much noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedloom.engine.base import ClientRows
from fedloom.errors import ConfigError, RunError
from fedloom.privacy.accounting import Spending, noise_for, require_delta
from fedloom.privacy.ledger import afforded
from fedloom.privacy.mechanism import Mechanism, mechanism_of, require_holdable
from fedloom.report.values import SumRelease
from fedloom.rounds.assign import local_work
from fedloom.spec.experiment import Experiment


def require_promise(experiment: Experiment, rows: Mapping[str, ClientRows]) -> None:
    """Before anything is sent. Raises: ConfigError with one line for each client that cannot hold it; RunError if the
    server cannot hold it for whole clients.

    rows: client -> its rows; a client that has not come yet has none, and is checked where it trains.
    """
    if experiment.privacy.unit == "client":
        require_delta(experiment.privacy.checked_delta, len(experiment.active), where="[privacy]", of="clients")
        client_spending(experiment)
    work = local_work(experiment, 1)
    if work.privacy is None:
        return
    problems = []
    for client, registered in rows.items():
        try:
            if registered.train:
                require_holdable(work.privacy, rows=registered.train, batch=work.rows_per_step, client=client)
        except RunError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems, where="[privacy]")


def require_noise(experiment: Experiment, rows: Mapping[str, ClientRows]) -> None:
    """Whether any noise is enough, asked for the client with the fewest rows, which needs the most.

    Raises: RunError, also without dp-accounting; a server whose clients are elsewhere needs none, and does not ask.
    """
    counts = {client: registered for client, registered in rows.items() if registered.train}
    fewest = min(counts, key=lambda client: counts[client].train, default=None)
    if fewest is not None:
        mechanisms(experiment, {fewest: counts[fewest]})


def require_budget(
    experiment: Experiment,
    rows: Mapping[str, ClientRows],
    ledgers: Mapping[str, Sequence[Spending]],
    sums: Sequence[Spending],
    rounds: int,
) -> None:
    """Whether the budget allows the rounds to come, beside what was spent before; asked before anything is begun.

    ledgers: client -> what is in it.  sums: as of `spent_on_sums`.
    Raises: ConfigError with one line for each client, and how many rounds are left; RunError as of `mechanisms`.
    """
    of_round = {client: mechanism.round for client, mechanism in mechanisms(experiment, rows).items()}
    asked = [(f"client {client!r}", ledgers.get(client, ()), each) for client, each in of_round.items()]
    if experiment.privacy.unit == "client":
        each = client_spending(experiment)
        # Under secure aggregation the clients have ledgers, too, which may hold rounds that were repeated.
        kept = [(f"client {client!r}", spent, each) for client, spent in ledgers.items() if spent]
        asked = [("the server", sums, each), *kept]
    problems = []
    for where, spent, each in asked:
        bound = experiment.privacy.epsilon, experiment.privacy.checked_delta, experiment.privacy.accountant
        try:
            afforded(spent, each, *bound, where=where, whose="privacy.epsilon of the run", rounds=rounds)
        except RunError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems, where="[privacy] (--epsilon is the budget of both runs together)")


def client_spending(experiment: Experiment) -> Spending:
    """What a round spends where whole clients are protected: one look at every client. That only some are drawn is not
    counted in its favour.

    Raises: RunError if no noise is enough, or without dp-accounting.
    """
    privacy = experiment.privacy
    noise = privacy.noise_multiplier
    if noise is None:
        assert privacy.epsilon is not None, "a rule asks for one of the two"
        noise = noise_for(privacy.epsilon, privacy.checked_delta, 1.0, experiment.training.rounds, privacy.accountant)
    return Spending(noise, 1.0, 1)


def spent_on_sums(records: Iterable[Mapping[str, Any]]) -> list[Spending]:
    """What was released of whole clients, by a journal; of rounds that were rolled back, too."""
    return [Spending(one["noise_multiplier"], 1.0, 1) for one in records if one["kind"] == SumRelease.KIND]


def mechanisms(experiment: Experiment, rows: Mapping[str, ClientRows]) -> dict[str, Mechanism]:
    """client -> its noise; empty for a run without. Raises: RunError as of `mechanism_of`."""
    work = local_work(experiment, 1)
    if work.privacy is None:
        return {}
    return {
        client: mechanism_of(
            work.privacy, rows=registered.train, batch=work.rows_per_step, steps=work.steps, client=client
        )
        for client, registered in rows.items()
    }
