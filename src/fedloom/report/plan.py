"""A plan as rows, as sentences, and as one HTML file with its costs against the limits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from fedloom.planning.plan import ClientPlan, Plan
from fedloom.report.charts import bars
from fedloom.report.document import Figures, document
from fedloom.report.markup import Html, element, join, section, table
from fedloom.report.units import bytes_text, plural, seconds_text

HEADS = ("client", "layers", "ranks", "batch", "bits", "memory", "round", "up", "down", "covers")
LAYER_HEADS = ("layer", "rank", "blocks")
STRAGGLER = "*"
MOST_SHOWN = 50  # clients whose layers are listed one by one
Text = Callable[[float], str]


def client_rows(plan: Plan, modules: int) -> list[list[str]]:
    """A row of HEADS for each client, what it uses of a limit in percent; the one that is waited for is marked.

    modules: that could carry factors.
    """
    slowest = plan.straggler.client
    return [
        _row(one, modules, STRAGGLER if one.client == slowest and len(plan.clients) > 1 else "") for one in plan.clients
    ]


def _row(one: ClientPlan, modules: int, mark: str) -> list[str]:
    accumulated = f"x{one.accumulation}" if one.accumulation > 1 else ""
    return [
        f"{one.client}{mark}",
        f"{len(one.ranks)}/{modules}",
        ranks_text(one),
        f"{one.batch}{accumulated}",
        str(one.bits),
        _within(one.memory_bytes, one.allowed.memory_bytes, bytes_text),
        _within(one.seconds, one.allowed.seconds, seconds_text),
        _within(one.up_bytes, one.allowed.up_bytes, bytes_text),
        _within(one.down_bytes, one.allowed.down_bytes, bytes_text),
        f"{100 * one.covered:.0f}%",
    ]


def _within(used: float, limit: float | None, text: Text) -> str:
    return text(used) if limit is None else f"{text(used)} {100 * used / limit:.0f}%"


def ranks_text(one: ClientPlan) -> str:
    """Such as "4", or "4-16" from the lowest to the highest."""
    ranks = {rank for _, rank in one.ranks}
    return str(min(ranks)) if len(ranks) == 1 else f"{min(ranks)}-{max(ranks)}"


def layer_rows(one: ClientPlan) -> list[list[str]]:
    """Which kind of layer has which rank where: a row for each last part of a name and rank, with its modules."""
    kinds: dict[tuple[str, int], list[str]] = defaultdict(list)
    for module, rank in one.ranks:
        above, _, last = module.rpartition(".")
        kinds[last, rank].append(above)
    return [[last, str(rank), ", ".join(_numbers(names))] for (last, rank), names in sorted(kinds.items())]


def _numbers(names: Iterable[str]) -> list[str]:
    """The numbers of the blocks, where names have one; else the names."""
    return [next((part for part in name.split(".") if part.isdigit()), name or "-") for name in names]


def sentences(plan: Plan) -> list[str]:
    """Who is waited for, how good the plan is at least, and what it gains."""
    slow = plan.straggler
    said = [
        f"A round takes {seconds_text(plan.round_seconds)}: it waits for {slow.client}. Percentages are of a client's "
        "limit; the last column is the share of all layers' importance that it covers."
    ]
    said.append(f"No plan within these limits is better by more than {100 * plan.gap:.2g}% (optimality gap).")
    uniform, gain = plan.uniform, plan.gain
    if uniform is None or gain is None:
        said.append("No configuration that is the same for all clients fits every client.")
        return said
    said.append(
        f"The best that is the same for all (rank {uniform.rank} on every layer, batch {uniform.batch}, "
        f"{uniform.bits} bits) covers {100 * uniform.covered:.0f}% of the importance in "
        f"{seconds_text(uniform.round_seconds)}; this plan covers {100 * plan.covered:.0f}% ({gain[0]:.2f} times) in "
        f"{seconds_text(plan.round_seconds)} ({gain[1]:.2f} times)."
    )
    return said


def plan_page(title: str, plan: Plan, modules: int) -> str:
    """The plan as one HTML file. Raises: FedLoomError where plotly is not installed."""
    figures = Figures()
    said = map(_paragraph, sentences(plan))
    parts = [
        section("What every client trains", *said, table(HEADS, client_rows(plan, modules))),
        _against(plan, figures, "Memory", "memory_bytes", bytes_text),
        _against(plan, figures, "Time of a round", "seconds", seconds_text),
        *_layers(plan),
    ]
    header = join((element("h1", title), element("p", plural(len(plan.clients), "planned client"))))
    footer = element("p", "Written by FedLoom. This file fetches nothing from any network.")
    return document(f"{title} – FedLoom", header, join(parts), footer, figures.by_id)


def _paragraph(text: str) -> Html:
    return element("p", text)


def _layers(plan: Plan) -> Iterator[Html]:
    for one in plan.clients[:MOST_SHOWN]:
        yield section(f"Layers of {one.client}", table(LAYER_HEADS, layer_rows(one), texts=1))
    if len(plan.clients) > MOST_SHOWN:
        yield _paragraph(f"The layers of {len(plan.clients) - MOST_SHOWN} further clients are in plan.json.")


def _against(plan: Plan, figures: Figures, title: str, field: str, text: Text) -> Html:
    """Bars of what is used, beside the limits where there are any."""
    used = {one.client: float(getattr(one, field)) for one in plan.clients}
    limits = {one.client: limit for one in plan.clients if (limit := getattr(one.allowed, field)) is not None}
    series = {"expected": used, **({"limit": limits} if limits else {})}
    rows = [[name, *(text(found[name]) if name in found else "" for found in series.values())] for name in used]
    return figures.add(
        f"chart-{field}",
        title,
        bars(list(used), series, text),
        table(["client", *series], rows),
        says="What the plan expects of each client, beside its limit where there is one.",
    )
