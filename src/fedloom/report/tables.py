"""Tables for the terminal. Better figures are bold and carry a star, so that nothing is said by looks alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fedloom.report.results import COMPARED, POOLED, Cell, comparison_rows, differences, incomplete, result_rows
from fedloom.report.units import bytes_text, number_text, plural, seconds_text
from fedloom.report.values import Answer, RunSummary


def closing(summary: RunSummary) -> Group:
    """What a run says at its end: results, clients, peak memory, and each question before and after."""
    parts: list[RenderableType] = []
    if summary.stages:
        parts += [result_table(summary), Text()]
    parts += [client_table(summary), Text()]
    parts += [part for answer in summary.answers for part in (answer_block(answer), Text())]
    return Group(*parts, _costs(summary))


def result_table(summary: RunSummary, limit: int | None = None) -> Table:
    """Held-out loss and score of base, alone and federated, for each client and for all together.

    limit: with more clients than this, only those of highest federated loss are shown, and the caption says so.
    """
    scored = summary.has_score()
    rows = result_rows(summary)
    shown = _hardest(summary, limit)
    table = _table("Held-out text", _result_caption(summary, len(shown)))
    table.add_column("client", overflow="fold", min_width=len(POOLED))
    for stage in summary.stages:
        table.add_column(f"loss\n{stage}", justify="right", no_wrap=True)
    for stage in summary.stages if scored else ():
        table.add_column(f"{summary.score_label}\n{stage}", justify="right", no_wrap=True)
    for row in rows:
        if row.pooled:
            table.add_section()
        if row.pooled or row.label in shown:
            cells = [*row.loss.values(), *(row.score.values() if scored else ())]
            table.add_row(Text(row.label), *map(_cell, cells))
    return table


def client_table(summary: RunSummary) -> Table:
    """Rank, rows, bytes and time of each client over the whole run."""
    troubled = any(client.refused or client.dropouts for client in summary.clients)
    table = _table("Clients", None)
    table.add_column("client", overflow="fold", min_width=len(POOLED))
    for name in ("rank", "training\nrows", "bytes up", "bytes down", "time", *(["refused /\ndropped out"] * troubled)):
        table.add_column(name, justify="right", no_wrap=True)
    for client in summary.clients:
        trouble = [f"{client.refused} / {client.dropouts}"] * troubled
        table.add_row(
            Text(client.name),
            number_text(client.rank),
            number_text(client.train_rows),
            bytes_text(client.bytes_up),
            bytes_text(client.bytes_down),
            seconds_text(client.seconds),
            *trouble,
        )
    if len(summary.clients) > 1:
        table.add_section()
        total = ["", "", bytes_text(summary.bytes_up), bytes_text(summary.bytes_down), "", *([""] * troubled)]
        table.add_row(POOLED, *total)
    return table


def comparison_table(summaries: Mapping[str, RunSummary], notes: Mapping[str, str] | None = None) -> Group:
    """One row per run; below it the notes of each method, and what else differs between the runs."""
    headings = {"score": " / ".join(sorted({run.score_label for run in summaries.values()})), "loss": "held-out\nloss"}
    headings |= {"worst client": "loss of the\nworst client", "down": "bytes\ndown", "up": "bytes\nup"}
    table = _table("Comparison", "* best of its column" if len(summaries) > 1 else None)
    table.add_column("run", overflow="fold")
    rows = comparison_rows(summaries)
    columns = [name for name in COMPARED if name != "method" or any(row[name].text != key for key, row in rows.items())]
    for name in columns:
        left = name in ("method", "worst client")
        table.add_column(headings.get(name, name), justify="left" if left else "right", overflow="fold")
    for label, row in rows.items():
        table.add_row(Text(label), *(_cell(row[name]) for name in columns))
    return Group(table, *_remarks(summaries, notes or {}))


def answer_block(answer: Answer) -> RenderableType:
    """One question and the answers of the base and of the tuned model."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in (("question", answer.question), ("before", answer.before), ("after", answer.after)):
        if text is not None:
            table.add_row(label, Text(text.strip() or "(an empty answer)"))
    return Padding(table, (0, 0, 0, 1))


def _table(title: str, caption: str | None) -> Table:
    return Table(
        title=title,
        caption=caption,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="none",
        header_style="none",
        padding=(0, 1),
        collapse_padding=True,
    )


def _cell(cell: Cell) -> Text:
    """The star has a place of its own, so that the figures stay in line."""
    return Text(cell.text + ("*" if cell.better else " "), style="bold" if cell.better else "")


def _hardest(summary: RunSummary, limit: int | None) -> frozenset[str]:
    names = [client.name for client in summary.clients]
    if limit is None or len(names) <= limit:
        return frozenset(names)
    losses = {name: scores.loss for name, scores in summary.federated.clients.items()}
    return frozenset(sorted(names, key=lambda name: losses.get(name, float("inf")), reverse=True)[:limit])


def _result_caption(summary: RunSummary, shown: int) -> str | None:
    lines = []
    if "alone" in summary.stages and "federated" in summary.stages:
        lines.append("* the better of alone and federated")
    if shown < len(summary.clients):
        lines.append(f"the {shown} clients of highest loss; {plural(len(summary.clients) - shown, 'other')} not shown")
    lines += [f"not measured by all: {line}" for line in incomplete(summary)]
    return "\n".join(lines) or None


def _remarks(summaries: Mapping[str, RunSummary], notes: Mapping[str, str]) -> Iterable[Text]:
    for label, note in notes.items():
        yield Text(f"  {label}: {note}")
    differing = differences(summaries)
    if differing:
        yield Text(f"  These runs also differ in: {', '.join(differing)}.")


def _costs(summary: RunSummary) -> Text:
    facts = {
        "peak memory": None if summary.peak_memory_bytes is None else bytes_text(summary.peak_memory_bytes),
        "time": None if summary.seconds is None else seconds_text(summary.seconds),
        "rounds": f"{summary.committed_rounds} of {summary.planned_rounds}",
    }
    return Text(" " + "   ".join(f"{name} {value}" for name, value in facts.items() if value is not None))
