"""Tables for the terminal. Better figures are bold and carry a star, so that nothing is said by looks alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fedloom.evaluation.scores import Scores, scores_of
from fedloom.report.results import POOLED, Cell, compared_columns, comparison_rows, differences, incomplete, result_rows
from fedloom.report.units import bytes_text, loss_text, number_text, plural, score_text, seconds_text
from fedloom.report.values import Answer, RunSummary, Stage


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
    table = plain_table(summary.held_out, _result_caption(summary, len(shown)))
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
            table.add_row(Text(row.label), *map(starred, cells))
    return table


def client_table(summary: RunSummary) -> Table:
    """Rank, rows, bytes and time of each client over the whole run."""
    troubled = any(client.refused or client.dropouts for client in summary.clients)
    table = plain_table("Clients", None)
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


def scores_table(per_client: Mapping[str, Mapping[str, float]], title: str = "Held-out rows") -> Table:
    """What one model scores on each client's held-out rows, and on all of them: metrics by client.

    Raises: DataError where a client's metrics have no loss or no counts.
    """
    rows = {name: scores_of({**metrics, "client": name}) for name, metrics in per_client.items()}
    together = Stage(rows).pooled
    measured = [name for name in _SCORES if any(getattr(scores, name) is not None for scores in rows.values())]
    table = plain_table(title, None)
    table.add_column("client", overflow="fold", min_width=len(POOLED))
    for heading in ("rows", "loss", *(_SCORES[name] for name in measured)):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, scores in rows.items():
        table.add_row(Text(name), *_score_texts(scores, measured))
    if together is not None and len(rows) > 1:
        table.add_section()
        table.add_row(POOLED, *_score_texts(together, measured))
    return table


_SCORES = {"rouge1": "ROUGE-1", "rougeL": "ROUGE-L", "exact_match": "exact\nmatch", "accuracy": "accuracy"}


def _score_texts(scores: Scores, measured: Iterable[str]) -> list[str]:
    figures = [score_text(getattr(scores, name)) for name in measured]
    return [number_text(scores.rows), loss_text(scores.loss), *figures]


def comparison_table(summaries: Mapping[str, RunSummary], notes: Mapping[str, str] | None = None) -> Group:
    """One row per run; below it the notes of each method, and what else differs between the runs."""
    headings = {"score": " / ".join(sorted({run.score_label for run in summaries.values()})), "loss": "held-out\nloss"}
    headings |= {"worst client": "loss of the\nworst client", "down": "bytes\ndown", "up": "bytes\nup"}
    table = plain_table("Comparison", "* best of its column" if len(summaries) > 1 else None)
    table.add_column("run", overflow="fold")
    rows = comparison_rows(summaries)
    columns = compared_columns(rows)
    for name in columns:
        left = name in ("method", "worst client")
        table.add_column(headings.get(name, name), justify="left" if left else "right", overflow="fold")
    for label, row in rows.items():
        table.add_row(Text(label), *(starred(row[name]) for name in columns))
    return Group(table, *_remarks(summaries, notes or {}))


def answer_block(answer: Answer) -> RenderableType:
    """One question and the answers of the base and of the tuned model."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    after = f"after, model{answer.whose}" if answer.client else "after"
    for label, text in (("question", answer.question), ("before", answer.before), (after, answer.after)):
        if text is not None:
            table.add_row(label, Text(text.strip() or "(an empty answer)"))
    return Padding(table, (0, 0, 0, 1))


def plain_table(title: str, caption: str | None) -> Table:
    """A table of the terminal, without lines."""
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


def starred(cell: Cell) -> Text:
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
    if summary.whose_model and "federated" in summary.stages:
        lines.append(summary.whose_model)
    if shown < len(summary.clients):
        lines.append(f"the {shown} clients of highest loss; {plural(len(summary.clients) - shown, 'other')} not shown")
    lines += [f"not measured by all: {line}" for line in incomplete(summary)]
    return "\n".join(lines) or None


def _remarks(summaries: Mapping[str, RunSummary], notes: Mapping[str, str]) -> Iterable[Text]:
    for label, note in notes.items():
        yield Text(f"  {label}: {note}")
    for label, summary in summaries.items():
        if summary.whose_model:
            yield Text(f"  {label}: {summary.whose_model}")
    differing = differences(summaries)
    if differing:
        yield Text(f"  These runs also differ in: {', '.join(differing)}.")


def _costs(summary: RunSummary) -> Text:
    said = [f"rounds {summary.committed_rounds} of {summary.planned_rounds}"]
    if summary.seconds is not None:
        name = "time since the last resume" if summary.resumed else "time"
        said.insert(0, f"{name} {seconds_text(summary.seconds)}")
    if summary.peak_memory_bytes is not None:
        said.insert(0, f"peak memory {bytes_text(summary.peak_memory_bytes)}")
    return Text("  " + "   ".join(said))
