"""fedloom privacy: the ledger of a run, what each client spent and what was released."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from fedloom.cli.console import Run, console
from fedloom.privacy.accounting import Accountant, epsilon_of
from fedloom.privacy.ledger import spent

if TYPE_CHECKING:
    from fedloom.privacy.mechanism import Mechanism
    from fedloom.report.values import Release

NAME = "privacy"
BY_ROUND = "Epsilon after each round (released: the factors that were trained{more})"


def command(run: Run) -> None:
    """Print the privacy ledger: epsilon of each client and round, what was released, at which delta, by which bound."""
    from fedloom.report import spending
    from fedloom.store.run_directory import RunDirectory

    directory = RunDirectory.open(run)
    experiment, records = directory.experiment(), directory.journal.records()
    privacy = experiment.privacy
    if privacy.unit == "none":
        console.print(f"{run}: no privacy promise ([privacy] unit is none): contributions were sent as they are")
        return
    budget = (
        "no budget, as noise_multiplier is given"
        if privacy.epsilon is None
        else f"a budget of epsilon {privacy.epsilon:g}"
    )
    console.print(f"Promise: for each {privacy.unit}, {budget} over the whole run; bound: {privacy.accountant}")
    if privacy.unit == "client":
        rows = spending.sum_rows(spending.sums_of(records))
        secure = experiment.secure_aggregation.enabled
        whose = "noise that the clients added" if secure else "the server's noise"
        console.print(_table(f"Sums released under {whose}", spending.SUM_HEADS, rows))
        if not secure:
            return
    released = spending.releases(records)
    console.print(_table("Spent so far", spending.CLIENT_HEADS, spending.client_rows(released)))
    if privacy.unit == "example":
        title = BY_ROUND.format(more=", and the head" if experiment.model.classifies else "")
        console.print(_rounds(title, spending.epsilon_by_round(released)))
    for client in experiment.clients:
        _verify(directory.clients / client.name, client.name, privacy.accountant, released)


def noise_table(mechanisms: Mapping[str, Mechanism], rounds: int) -> Table:
    """What a run will spend, before it runs."""
    rows = [
        [
            client,
            str(one.rows),
            f"{one.sampling_rate:.4f}",
            f"{one.noise_multiplier:g}",
            f"{one.epsilon_after(rounds):.3f}",
            f"{one.delta:g}",
        ]
        for client, one in mechanisms.items()
    ]
    heads = ("client", "rows", "sampling rate", "noise multiplier", "epsilon", "delta")
    return _table(f"Privacy: DP-SGD at every client, {rounds} rounds", heads, rows)


def _rounds(title: str, by_round: Mapping[int, Mapping[str, float]]) -> Table:
    clients = list(dict.fromkeys(client for found in by_round.values() for client in found))
    rows = [
        [str(round), *(f"{found[client]:.3f}" if client in found else "" for client in clients)]
        for round, found in by_round.items()
    ]
    return _table(title, ("round", *clients), rows)


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Names on the left, numbers on the right."""
    table = Table(title=title)
    for head in heads:
        table.add_column(head, justify="left" if head == "client" else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _verify(directory: Path, client: str, accountant: Accountant, released: Iterable[Release]) -> None:
    """Where the client's own ledger is at hand, it is verified and counted again."""
    from fedloom.store.ledger import Ledger

    ledger = Ledger(directory)
    entries = ledger.entries()
    if entries:
        epsilon = epsilon_of(spent(entries), max(entry.delta for entry in entries), accountant)
        console.print(f"{client}: ledger verified, {len(entries)} releases, epsilon {epsilon:.3f} counted again")
    elif any(one.client == client for one in released):
        console.print(f"{client}: its ledger is at the client ({ledger.path.name}), not here")
