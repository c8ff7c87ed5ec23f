"""fedloom plan: what every client should train, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from fedloom.cli.console import Config, console
from fedloom.report.plan import HEADS, LAYER_HEADS, STRAGGLER, client_rows, layer_rows, sentences
from fedloom.spec.load import load

if TYPE_CHECKING:
    from fedloom.planning.plan import Plan

NAME = "plan"


def command(
    config: Config,
    probes: Annotated[
        Path | None, typer.Option(help="Folder with the files of `fedloom probe`; left out: [planning] probes")
    ] = None,
    importance: Annotated[
        Path | None, typer.Option(help="A run with training.importance = true, whose measured layers count as they did")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the configuration that follows the plan to this file")] = None,
    chart: Annotated[Path | None, typer.Option(help="Write the plan with its charts to this HTML file")] = None,
    client: Annotated[str | None, typer.Option(help="Also print this client's rank in every layer")] = None,
) -> None:
    """Choose layers, ranks, batch and bits for every client whose rank is "auto"; print what that costs and gains."""
    from fedloom.engine.planned import planner_of, with_importance, write_planned

    experiment = load(config, data_at_sites=probes is not None)
    with console.status("reading what machines were found to do"):
        planner = planner_of(experiment, probes)
    if importance is not None:
        planner = with_importance(planner, importance)
    plan = planner.plan(experiment)
    modules = len(planner.architecture.modules)
    console.print(plan_table(plan, modules))
    for line in sentences(plan):
        console.print(f"  {line}")
    if client is not None:
        console.print(_layers(plan, client))
    if out is not None:
        write_planned(out, planner.applied(experiment, plan))
        console.print(f"  {out} is the configuration that follows this plan: fedloom run {out}")
    if chart is not None:
        _write_chart(chart, experiment.name, plan, modules)


def plan_table(plan: Plan, modules: int) -> Table:
    """A row for each client. modules: that could carry factors."""
    table = _table(f"The plan ({STRAGGLER}: the client that a round waits for)", HEADS)
    for row in client_rows(plan, modules):
        table.add_row(*row)
    return table


def _layers(plan: Plan, client: str) -> Table:
    table = _table(f"Layers of {client}", LAYER_HEADS)
    for row in layer_rows(plan.of(client)):
        table.add_row(*row)
    return table


def _table(title: str, heads: tuple[str, ...]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(head, justify="left" if head in ("client", "layer", "blocks", "ranks") else "right")
    return table


def _write_chart(path: Path, name: str, plan: Plan, modules: int) -> None:
    from fedloom.report.plan import plan_page
    from fedloom.store.unfinished import replace_file

    page = plan_page(f"Plan of {name}", plan, modules)
    replace_file(path, page.encode(), intact="The plan is above", again="plan again")
    console.print(f"  charts: {path}")
