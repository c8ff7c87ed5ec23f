"""Every client's portrait, as its site would send it, and what the server makes of them. Nothing is trained."""

from __future__ import annotations

import secrets

from fedloom.data.clients import Sources, labels
from fedloom.data.portrait import portrait_of, with_noise
from fedloom.engine.check import unreadable
from fedloom.errors import ConfigError
from fedloom.evaluation.heterogeneity import Comparison, compared
from fedloom.rounds.portrait import Portrait
from fedloom.rounds.world import active_clients
from fedloom.spec.experiment import Experiment

EPSILON = 1.0  # of one inspection, where single rows are protected and nobody says otherwise
SALT_BYTES = 16


def inspect(experiment: Experiment, *, epsilon: float | None = None) -> Comparison:
    """Read the rows of every client, and compare what may be known of them.

    epsilon: of the noise at each client; None: `EPSILON` where privacy.unit is "example", otherwise no noise. It comes
        on top of what a run promises, and is in no ledger: an inspection belongs to no run.
    Raises: ConfigError with a line for each client whose rows cannot be read; DataError for classes that are too few.
    """
    sources = Sources(experiment)
    _require_readable(experiment, sources)
    classes = labels(experiment, sources) if experiment.model.classifies else ()
    if epsilon is None and experiment.privacy.unit == "example":
        epsilon = EPSILON
    # Drawn anew each time, so that fingerprints of two inspections tell nothing of each other.
    salt = secrets.token_bytes(SALT_BYTES) if epsilon is None else None
    return compared([_portrait(sources, client.name, classes, salt, epsilon) for client in active_clients(experiment)])


def _portrait(
    sources: Sources, client: str, classes: tuple[str, ...], salt: bytes | None, epsilon: float | None
) -> Portrait:
    data = sources.client(client)
    planted = {canary.example for canary in data.canaries}
    own = [row for row in (*data.train, *data.held_out) if row not in planted]
    found = portrait_of(client, own, classes, salt)
    return found if epsilon is None else with_noise(found, epsilon, secrets.randbelow)


def _require_readable(experiment: Experiment, sources: Sources) -> None:
    problems = unreadable(experiment, sources)
    if problems:
        raise ConfigError(problems, where=experiment.name)
