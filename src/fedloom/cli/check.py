"""fedloom check: report everything that is wrong with a configuration, before anything runs."""

from __future__ import annotations

from fedloom.cli.console import Config, console
from fedloom.spec.disclosure import disclosures
from fedloom.spec.load import load

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
    console.print(
        f"{config} can run: {experiment.method.name} on {facts.base} ({facts.dtype}), {len(facts.modules)} modules "
        f"({facts.targets_rule}), {len(facts.rows)} clients, {experiment.training.rounds} rounds"
    )
