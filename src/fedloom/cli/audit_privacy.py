"""fedloom audit-privacy: attack what a run released, and say how much that proves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from fedloom.cli.console import Run, console

if TYPE_CHECKING:
    from fedloom.engine.auditing import RunAudit
    from fedloom.privacy.audit import Attack, Audit

NAME = "audit-privacy"
HEADS = ("trained\non", "left\nout", "AUC, %", "found at 1%\nfalse alarms, %", "epsilon\nat least")


def command(
    run: Run,
    round: Annotated[int | None, typer.Option(help="Committed round; left out: the last one")] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of each kind per client; left out: evaluation.max_rows")
    ] = None,
    client: Annotated[str | None, typer.Option(help="Whose rows to look for; left out: those of all clients")] = None,
) -> None:
    """Attack the model of a run: who can tell which rows it was trained on, and the epsilon that this proves.

    Not fedloom audit, which verifies that no file of the run was changed.
    """
    from fedloom.engine.auditing import audit_run

    with console.status("reading rows, and their losses by the base and by the model"):
        found = audit_run(run, round=round, rows=rows, client=client)
    console.print(attacks_table(found))
    for line in said(found):
        console.print(f"  {line}")


def attacks_table(found: RunAudit) -> Table:
    """One line for each attack; bounds that no coin proves are in brackets."""
    table = Table(title=f"Membership, by the model of round {found.round}")
    table.add_column("attack")
    for head in HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for one in found.result.attacks:
        table.add_row(Text(one.name), *_cells(one))
    return table


def said(found: RunAudit) -> Iterator[str]:
    """What the figures mean, and what they do not."""
    result = found.result
    yield f"rows of {', '.join(found.clients)}"
    if found.absent:
        yield f"{', '.join(found.absent)}: took part in no round, so that nothing of theirs was trained on"
    if found.note:
        yield found.note
    if any(not one.proven for one in result.attacks):
        yield "in brackets: a heuristic, as no coin decided which rows are held out"
    yield _promised(found)
    yield from _of_canaries(result)
    proven, spent = result.epsilon_at_least, found.spent
    if found.unit == "client":
        yield "the promise is about whole clients, and the attacks look for single rows, which give less away"
    elif proven is not None and spent is not None and proven > spent:
        yield (
            f"MORE THAN PROMISED: canaries prove {proven:.2f}, and {spent:.2f} was spent. By chance that happens to "
            "fewer than 1 in 20 audits: look for a flaw in the noise, the clipping or the counting"
        )
    yield f"written to {found.written.name}"


def _cells(one: Attack) -> tuple[str, ...]:
    found = one.found
    interval = f"{100 * found.share:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"
    epsilon = f"{one.epsilon:.2f}" if one.proven else f"({one.epsilon:.2f})"
    return str(one.members), str(one.others), f"{100 * one.area:.1f}", interval, epsilon


def _promised(found: RunAudit) -> str:
    delta = f"at delta {found.result.delta:g}"
    if found.unit == "none":
        return f"promised: nothing ([privacy] unit is none); bounds are {delta}"
    budget = "no budget" if found.promised is None else f"epsilon {found.promised:g}"
    spent = "" if found.spent is None else f", spent up to this round: {found.spent:.2f}"
    return f"promised for each {found.unit}: {budget}{spent}, {delta}"


def _of_canaries(result: Audit) -> Iterator[str]:
    """What is proven; without (enough) canaries, what it would take."""
    needed = "no number of canaries" if result.needed is None else f"{result.needed} canaries or more"
    if result.epsilon_at_least is None:
        yield (
            "no canaries were planted: only losses of rows could be compared, which proves no epsilon. To prove one, "
            f"set [privacy] canaries before a run ({needed} over all clients can show something, hundreds show more)"
        )
        return
    counts = f"{result.canaries} canaries, {result.included} of them trained on"
    if result.most == 0:
        yield f"{counts}: too few to prove anything at this delta; {needed} over all clients can"
        return
    yield (
        f"{counts}, prove with 95% confidence: epsilon is at least {result.epsilon_at_least:.2f} (so many can prove "
        f"{result.most:.2f} at most). 0 means that nothing was proven, not that nothing leaks"
    )
