"""fedloom check: report everything that is wrong with a configuration, before anything runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedloom.cli.console import Config, console
from fedloom.spec.disclosure import disclosures
from fedloom.spec.late_words import late_words
from fedloom.spec.load import load

if TYPE_CHECKING:
    from fedloom.engine.base import Federation
    from fedloom.spec.experiment import Experiment, PrivacyTable

NAME = "check"


def command(config: Config) -> None:
    """Report all errors of a configuration at once: keys, values, rules, every client's rows, base and targets."""
    from fedloom.engine.check import check_sites

    experiment = load(config)
    with console.status("reading rows and base"):
        facts = check_sites(experiment, where=config)
    for name, rows in facts.rows.items():
        client = experiment.client(name)
        dropped = f", {rows.dropped} dropped" if rows.dropped else ""
        console.print(f"  {name}: rank {client.rank}, {rows.train} rows to train, {rows.held_out} held out{dropped}")
    for line in disclosures(experiment):
        console.print(f"  {line}")
    if experiment.rounds.late == "next":
        console.print(f"  {late_words(experiment.rounds)}")
    _say_noise(experiment, facts)
    console.print(
        f"{config} can run: {experiment.method.name} on {facts.base} ({facts.dtype}), {len(facts.modules)} modules "
        f"({facts.targets_rule}), {len(facts.rows)} clients, {experiment.training.rounds} rounds"
    )


def _say_noise(experiment: Experiment, facts: Federation) -> None:
    """How much noise every client adds, and what it will have spent at the end."""
    from fedloom.cli.privacy import noise_table
    from fedloom.engine.promises import mechanisms, require_promise

    require_promise(experiment, facts.rows)
    if experiment.privacy.unit == "client":
        console.print(_client_noise(experiment))
    found = mechanisms(experiment, facts.rows)
    if found:
        console.print(noise_table(found, experiment.training.rounds))


def _client_noise(experiment: Experiment) -> str:
    from fedloom.engine.promises import client_spending
    from fedloom.privacy.accounting import epsilon_of

    each, privacy, rounds = client_spending(experiment), experiment.privacy, experiment.training.rounds
    epsilon = epsilon_of([each.times(rounds)], privacy.checked_delta, privacy.accountant)
    return (
        f"  privacy of each client as a whole: noise multiplier {each.noise_multiplier:g} on sums of changes of norm "
        f"{_bound(privacy)}, added by {_by_whom(experiment)}; {rounds} rounds spend epsilon {epsilon:.3f} at delta "
        f"{privacy.checked_delta:g}"
    )


def _by_whom(experiment: Experiment) -> str:
    """Who adds the noise, and how much each; of a round to which all come that are drawn."""
    from fedloom.engine.client_privacy import noise_share
    from fedloom.spec.secure_rules import drawn

    clients = drawn(experiment)
    share = noise_share(experiment, clients)
    if share is None:
        return "the server"
    threshold = max(experiment.secure_aggregation.threshold_of(clients), experiment.rounds.min_clients)
    honest, deviation = share.honest(threshold, clients), share.deviation(threshold, clients)
    more = f"with all {clients} the noise is {math.sqrt(clients / honest):.2f} times what is promised"
    return f"the clients, each with deviation {deviation:.3g} in every number, so that any {honest} are enough ({more})"


def _bound(privacy: PrivacyTable) -> str:
    if privacy.clip_quantile is None:
        return f"{privacy.max_change_norm:g}"
    return f"{privacy.max_change_norm:g} at first (then what {100 * privacy.clip_quantile:g}% of the clients keep)"
