"""fedloom privacy: the ledger of a run, what each client spent and what was released."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fedloom.cli.console import Run, console
from fedloom.privacy.accounting import Spending

if TYPE_CHECKING:
    from fedloom.privacy.mechanism import Mechanism
    from fedloom.report.values import Release

NAME = "privacy"


def command(run: Run) -> None:
    """Print the privacy ledger: epsilon of each client and round, what was released, at which delta, by which bound."""
    from fedloom.report.spending import releases
    from fedloom.store.run_directory import RunDirectory

    directory = RunDirectory.open(run)
    experiment = directory.experiment()
    if experiment.privacy.unit == "none":
        console.print(f"{run}: no privacy promise ([privacy] unit is none): contributions were sent as they are")
        return
    if experiment.privacy.unit == "client":
        console.print(_promise(experiment.privacy.epsilon, experiment.privacy.accountant, "client as a whole"))
        console.print(_sums(directory.journal.records()))
        return
    released = releases(directory.journal.records())
    console.print(_promise(experiment.privacy.epsilon, experiment.privacy.accountant, experiment.privacy.unit))
    console.print(_clients(released))
    console.print(_rounds(released))
    for client in experiment.clients:
        _compare(directory.clients, client.name, experiment.privacy.accountant, released)


def noise_table(mechanisms: Mapping[str, Mechanism], rounds: int) -> Table:
    """What a run will spend, before it runs."""
    table = Table(title=f"Privacy: DP-SGD at every client, {rounds} rounds")
    for name in ("client", "rows", "sampling rate", "noise multiplier", "epsilon", "delta"):
        table.add_column(name, justify="left" if name == "client" else "right")
    for client, mechanism in mechanisms.items():
        spends = mechanism.epsilon_after(rounds)
        numbers = f"{mechanism.sampling_rate:.4f}", f"{mechanism.noise_multiplier:g}", f"{spends:.3f}"
        table.add_row(client, str(mechanism.rows), *numbers, f"{mechanism.delta:g}")
    return table


def _sums(records: Iterable[Mapping[str, Any]]) -> Table:
    """What the server released under its own noise; rounds that were rolled back count."""
    from fedloom.engine.client_privacy import RELEASE

    table = Table(title="Sums released under the server's noise")
    fields = ("round", "noise_multiplier", "max_change_norm", "epsilon", "delta")
    for name in fields:
        table.add_column(name.replace("_", " "), justify="right")
    for record in records:
        if record["kind"] == RELEASE:
            table.add_row(*(f"{record[name]:.4g}" for name in fields))
    return table


def _promise(epsilon: float | None, accountant: str, unit: str) -> str:
    budget = "no budget, as noise_multiplier is given" if epsilon is None else f"a budget of epsilon {epsilon:g}"
    return f"Promise: for each {unit}, {budget} over the whole run; bound: {accountant}"


def _clients(released: Iterable[Release]) -> Table:
    from fedloom.report.spending import last_of

    counts: dict[str, int] = {}
    for one in released:
        counts[one.client] = counts.get(one.client, 0) + 1
    table = Table(title="Spent so far")
    for name in ("client", "releases", "sampling rate", "noise multiplier", "epsilon", "delta"):
        table.add_column(name, justify="left" if name == "client" else "right")
    for client, one in last_of(released).items():
        numbers = f"{one.sampling_rate:.4f}", f"{one.noise_multiplier:g}", f"{one.epsilon:.3f}", f"{one.delta:g}"
        table.add_row(client, str(counts[client]), *numbers)
    return table


def _rounds(released: Iterable[Release]) -> Table:
    from fedloom.report.spending import epsilon_by_round

    by_round = epsilon_by_round(released)
    clients = list(dict.fromkeys(client for found in by_round.values() for client in found))
    table = Table(title="Epsilon after each round (released: the factors that were trained, and the head)")
    table.add_column("round", justify="right")
    for client in clients:
        table.add_column(client, justify="right")
    for round, found in by_round.items():
        table.add_row(str(round), *(f"{found[client]:.3f}" if client in found else "" for client in clients))
    return table


def _compare(clients, client: str, accountant, released: Iterable[Release]) -> None:
    """Where the client's own ledger is at hand, it is verified and counted again."""
    from fedloom.privacy.accounting import epsilon_of
    from fedloom.store.ledger import Ledger

    ledger = Ledger(clients / client)
    entries = ledger.entries()
    if entries:
        spent: list[Spending] = [entry.spending for entry in entries]
        epsilon = epsilon_of(spent, max(entry.delta for entry in entries), accountant)
        console.print(f"{client}: ledger verified, {len(entries)} releases, epsilon {epsilon:.3f} counted again")
    elif any(one.client == client for one in released):
        console.print(f"{client}: its ledger is at the client ({ledger.path.name}), not here")
