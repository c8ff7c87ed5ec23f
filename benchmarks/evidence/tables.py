"""From measured cells to means, spreads and a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evidence.cells import Cell, Known, Metrics
from evidence.suite import Suite
from evidence.tuning import Chosen, chosen
from evidence.variants import Variant

PERCENT = ("accuracy", "rouge1", "rougeL", "exact_match")


@dataclass(frozen=True)
class Row:
    """One contender in one setting: its rate, and seed -> metrics of the trainings with it."""

    setting: str
    variant: Variant
    rate: Chosen
    by_seed: Mapping[int, Metrics]

    def values(self, name: str) -> dict[int, float]:
        return {seed: metrics[name] for seed, metrics in sorted(self.by_seed.items()) if name in metrics}


def rows_of(suite: Suite, pairs: Iterable[tuple[str, Variant]], known: Known) -> list[Row]:
    """The contenders whose rate is chosen, in the order given."""
    rows = []
    # Of two labels for the same settings, the first.
    for cell, (setting, variant) in {suite.cell(*pair): pair for pair in reversed(list(pairs))}.items():
        rate = chosen(cell, suite.grid, known, suite.score)
        if rate is not None:
            rows.append(Row(setting, variant, rate, _by_seed(replace(cell, rate=rate.rate), known)))
    return rows


def _by_seed(cell: Cell, known: Known) -> dict[int, Metrics]:
    return {other.seed: metrics for other, metrics in known.items() if other == replace(cell, seed=other.seed)}


def as_data(suite: Suite, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that the table says, and the values behind it."""
    return {
        "suite": suite.name,
        "metric": suite.metric,
        "reference": suite.reference,
        "grid": {"rates": suite.grid.rates, "factor": suite.grid.factor, "widenings": suite.grid.widenings},
        "settings": {
            name: {"what": setting.what, "recipe": setting.recipe}
            for name, setting in suite.settings.items()
            if any(row.setting == name for row in rows)
        },
        "rows": [_row_data(suite, row, _reference(suite, row, rows)) for row in rows],
    }


def _row_data(suite: Suite, row: Row, reference: Row | None) -> dict[str, Any]:
    names = sorted({name for metrics in row.by_seed.values() for name in metrics})
    ahead = _differences(row, reference, f"test_{suite.metric}")
    return {
        "setting": row.setting,
        "variant": row.variant.label,
        "identity": suite.cell(row.setting, row.variant).variant,
        "rate": row.rate.rate,
        "rate_at_edge": row.rate.at_edge,
        "validation_by_rate": {f"{rate:g}": _finite(score[0]) for rate, score in row.rate.tried.items()},
        "seeds": sorted(row.by_seed),
        "metrics": {name: _summary(row.values(name).values()) for name in names},
        f"test_{suite.metric}_minus_{suite.reference}": _summary(ahead) if ahead else None,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _summary(values: Iterable[float]) -> dict[str, Any]:
    """Mean, and the standard deviation over seeds where there are at least two."""
    found = list(values)
    spread = statistics.stdev(found) if len(found) > 1 else None
    return {"mean": statistics.fmean(found), "spread": spread, "values": found}


def _reference(suite: Suite, row: Row, rows: Sequence[Row]) -> Row | None:
    """The reference contender in the same setting."""
    wanted = (row.setting, suite.reference)
    return next((other for other in rows if (other.setting, other.variant.label) == wanted), None)


def _differences(row: Row, reference: Row | None, name: str) -> list[float]:
    """Seed by seed, as both have the same rows and the same draws."""
    if reference is None or reference is row:
        return []
    ours, theirs = row.values(name), reference.values(name)
    return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]


def as_markdown(data: Mapping[str, Any]) -> str:
    """One table per setting, the best contender first."""
    lines: list[str] = []
    for name, setting in data["settings"].items():
        rows = [row for row in data["rows"] if row["setting"] == name and row["metrics"]]
        lines += [f"### {data['suite']}, {name}", "", setting["what"], "", *_table(data, rows), ""]
        lines += _leading_ranks(data, rows)
        for metric in ("loss", "rougeL", "exact_match"):
            lines += _by_client(rows, metric)
    return "\n".join(lines)


def _table(data: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    metric, reference = data["metric"], data["reference"]
    sign = -1 if metric == "accuracy" else 1
    ordered = sorted(rows, key=lambda row: sign * row["metrics"][f"test_{metric}"]["mean"])
    extra = "rougeL" if any("test_rougeL" in row["metrics"] for row in rows) else "loss"
    lines = [
        f"| | learning rate | seeds | {_heading(metric)} | minus `{reference}` | {_heading(extra)} | MB up | MB down |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in ordered:
        metrics, ahead = row["metrics"], row[f"test_{metric}_minus_{reference}"]
        cells = [
            f"`{row['variant']}`",
            f"{row['rate']:g}" + ("*" if row["rate_at_edge"] else ""),
            str(len(row["seeds"])),
            _shown(metrics[f"test_{metric}"], metric),
            _shown(ahead, metric, signed=True),
            _shown(metrics.get(f"test_{extra}"), extra),
            *(_megabytes(metrics.get(name)) for name in ("bytes_up", "bytes_down")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    edge = any(row["rate_at_edge"] for row in rows)
    return lines + (["", "\\* the best rate lies at the edge of those that were tried"] if edge else [])


def _heading(metric: str) -> str:
    return f"{metric}, %" if metric in PERCENT else metric


def _shown(summary: Mapping[str, Any] | None, metric: str, *, signed: bool = False) -> str:
    if summary is None:
        return ""
    factor, digits = (100, 1) if metric in PERCENT else (1, 3)
    mean = f"{factor * summary['mean']:{'+' if signed else ''}.{digits}f}"
    return mean if summary["spread"] is None else f"{mean} ± {factor * summary['spread']:.{digits}f}"


def _megabytes(summary: Mapping[str, Any] | None) -> str:
    return "" if summary is None else f"{summary['mean'] / 1e6:.2f}"


def _by_client(rows: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """What every client's model scores on its own test rows, and the mean over clients."""
    prefix = f"test_{metric}|"
    clients = sorted({name.removeprefix(prefix) for row in rows for name in row["metrics"] if name.startswith(prefix)})
    if not clients:
        return []
    lines = [
        f"{_heading(metric)} of each client, on its own test rows (mean and spread over seeds), and their mean:",
        "",
        "| | " + " | ".join(clients) + " | mean |",
        "|---|" + "---|" * (len(clients) + 1),
    ]
    for row in rows:
        found = [row["metrics"].get(prefix + client) for client in clients]
        if all(found):
            over_clients = [statistics.fmean(values) for values in zip(*(one["values"] for one in found), strict=True)]
            shown = [_shown(summary, metric) for summary in (*found, _summary(over_clients))]
            lines.append(f"| `{row['variant']}` | " + " | ".join(shown) + " |")
    return [*lines, ""]


def _leading_ranks(data: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the global model of some contenders scores without its higher rank indices."""
    metric = data["metric"]
    ranks = sorted({int(name.split("_")[1]) for row in rows for name in row["metrics"] if name.startswith("leading_")})
    if not ranks:
        return []
    lines = [
        f"{_heading(metric)} of the global model with its leading rank indices only:",
        "",
        "| | " + " | ".join(str(rank) for rank in ranks) + " | all |",
        "|---|" + "---|" * (len(ranks) + 1),
    ]
    for row in rows:
        if any(name.startswith("leading_") for name in row["metrics"]):
            names = [f"leading_{rank}_{metric}" for rank in ranks] + [f"test_{metric}"]
            shown = [_shown(row["metrics"].get(name), metric) for name in names]
            lines.append(f"| `{row['variant']}` | " + " | ".join(shown) + " |")
    return [*lines, ""]
