"""fedloom probe: what this machine can do for a run, measured with the base itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fedloom.cli.console import console
from fedloom.cli.live import live_view
from fedloom.errors import FedLoomError
from fedloom.planning import probe_file
from fedloom.planning.cost import step_seconds, usage
from fedloom.planning.probe_file import Histogram, Probe
from fedloom.planning.values import Architecture, Choice, Work
from fedloom.report.units import bytes_text, number_text, seconds_text
from fedloom.spec.experiment import Experiment, Task

if TYPE_CHECKING:
    from fedloom.engine.probe import Link

NAME = "probe"
RANK, TOKENS = 8, 128  # what the table tells of: all layers at this rank, rows of so many tokens, half of them learned
MBIT = 125_000  # bytes


def command(
    source: Annotated[Path, typer.Argument(help="pilot.toml, or this site's kit", metavar="CONFIG_OR_KIT")],
    client: Annotated[str | None, typer.Option(help="Whose rows; of a kit left out: its own client")] = None,
    all_clients: Annotated[bool, typer.Option("--all", help="Measure once, and write a file for each client")] = False,
    data: Annotated[str | None, typer.Option(help="The client's rows, in place of what the configuration says")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write (with --all: a folder)")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long all of it should take")] = 50.0,
    server: Annotated[str | None, typer.Option(help="HOST:PORT: see whether and how fast it is connected to")] = None,
    upload_mbit: Annotated[float | None, typer.Option(min=1e-3, help="Megabits per second to the server")] = None,
    download_mbit: Annotated[float | None, typer.Option(min=1e-3, help="Megabits per second from the server")] = None,
    task: Annotated[str | None, typer.Option(help="Of a kit: generation, classification, image-classification")] = None,
    max_tokens: Annotated[int, typer.Option(min=8, help="Of a kit: tokens that texts are cut to")] = 512,
    targets: Annotated[str | None, typer.Option(help="Of a kit: lora.targets of the run, with commas")] = None,
) -> None:
    """Measure this machine with the base in under a minute, count the rows, and write a small JSON file."""
    from fedloom.engine.probe import probe

    _finite({"--seconds": seconds, "--upload-mbit": upload_mbit, "--download-mbit": download_mbit})
    link = _link(server, upload_mbit, download_mbit)
    limit: int | None = None
    if source.is_dir():
        experiment, limit = _of_kit(source, client, data, task, max_tokens, targets)
    else:
        experiment = _of_config(source, client, data, all_clients)
    names = [one.name for one in experiment.active] if all_clients else [client or experiment.clients[0].name]
    with live_view() as observe:
        found, architecture = probe(experiment, names, seconds=seconds, link=link, memory_limit=limit, observe=observe)
    _show(found, architecture, experiment)
    for one in found:
        _write(one, _place(one, out, all_clients))


def _finite(options: Mapping[str, float | None]) -> None:
    """Raises: FedLoomError for nan and inf, which stand for no time and for no speed."""
    for name, value in options.items():
        if value is not None and not value < math.inf:
            raise FedLoomError("this is no number to measure by", where=name, expected="a finite number", found=value)


def _of_config(path: Path, client: str | None, data: str | None, all_clients: bool) -> Experiment:
    from fedloom.engine.for_client import experiment_of
    from fedloom.spec.load import load
    from fedloom.spec.places import source_at

    if all_clients == (client is not None):
        raise FedLoomError("whose rows?", where=path, expected="either --client NAME or --all")
    if data is not None and all_clients:
        raise FedLoomError("--data is one client's", where=path, expected="--client NAME with it")
    experiment = load(path, data_at_sites=data is not None)
    known = [one.name for one in experiment.clients]
    if client is not None and client not in known:
        raise FedLoomError(f"there is no client {client!r}", where=path, expected=f"one of {', '.join(known)}")
    if client is None:
        return experiment
    own = {} if data is None else {"data": source_at(data, Path.cwd())}
    return experiment_of(experiment, client, **own)


def _of_kit(
    path: Path, client: str | None, data: str | None, task: str | None, max_tokens: int, targets: str | None
) -> tuple[Experiment, int | None]:
    """The experiment, and the memory that the site allows."""
    from fedloom.kits.alone import experiment_of_site
    from fedloom.kits.read_client import read_client_kit
    from fedloom.kits.site import read_site
    from fedloom.spec.places import source_at

    kit = read_client_kit(path)
    if client not in (None, kit.client):
        raise FedLoomError("the kit is another client's", where=path, expected=kit.client, found=client)
    site = read_site(kit.site)
    if data is not None:
        site = site.model_copy(update={"data": source_at(data, Path.cwd())})
    chosen = _task(task, site.accept.classes is not None)
    named = None if targets is None else tuple(name.strip() for name in targets.split(",") if name.strip())
    return (
        experiment_of_site(kit.client, kit.run, site, chosen, max_tokens, named, kit.site),
        site.memory_limit_bytes,
    )


def _task(named: str | None, has_classes: bool) -> Task:
    """What a kit is for: it says so only by the classes that site.toml accepts."""
    known: dict[str, Task] = {
        "generation": "generation",
        "classification": "classification",
        "image-classification": "image-classification",
    }
    if named is None:
        found: Task = "classification" if has_classes else "generation"
        console.print(
            f"task: {found} (taken from site.toml, which names {'' if has_classes else 'no '}classes; --task)"
        )
        return found
    if named not in known:
        raise FedLoomError("no task of this name", where="--task", expected=", ".join(known), found=named)
    return known[named]


def _link(server: str | None, upload: float | None, download: float | None) -> Link:
    from fedloom.engine.probe import Link

    place = None
    if server is not None:
        from fedloom.kits.address import parse_address

        address = parse_address(server)
        place = (address.host, address.port)
    return Link(upload and upload * MBIT, download and download * MBIT, place)


def _place(probe: Probe, out: Path | None, all_clients: bool) -> Path:
    name = f"{probe.client}.probe.json"
    return (out or Path()) / name if all_clients else out or Path(name)


def _write(probe: Probe, path: Path) -> None:
    from fedloom.store.durable import cannot_write, make_directory
    from fedloom.store.unfinished import replace_file

    data, intact, again = probe_file.to_json(probe).encode() + b"\n", "No file was changed", "probe again"
    try:
        make_directory(path.parent)
    except OSError as error:
        raise cannot_write(error, path, needed_bytes=len(data), intact=intact, again=again) from error
    replace_file(path, data, intact=intact, again=again)
    console.print(f"{probe.client}: {path}", soft_wrap=True)


def _show(probes: list[Probe], architecture: Architecture, experiment: Experiment) -> None:
    first = probes[0]
    console.print(
        f"{first.base.identity} on {first.cores} cores ({first.device}), "
        f"{bytes_text(first.memory_available)} of {bytes_text(first.memory_total)} free"
    )
    console.print(_speeds(first, architecture, experiment))
    for one in first.unavailable:
        console.print(f"  {one.bits} bits: not available: {one.reason}", soft_wrap=True)
    for probe in probes:
        _show_rows(probe)
    console.print(_connection(first))
    known = first.calibrated
    console.print(
        f"{known.trials} trials in {seconds_text(first.seconds)}; they are reproduced within "
        f"{100 * known.memory_error:.1f}% of memory ({known.memory_by}) and {100 * known.seconds_error:.0f}% of time"
    )


def _speeds(probe: Probe, architecture: Architecture, experiment: Experiment) -> Table:
    machine = probe.measured_machine()
    longest = max((one.up_to for one in probe.rows.lengths), default=TOKENS)
    tokens = min(TOKENS, longest, experiment.training.max_tokens)
    labels = 1 if experiment.model.classifies else tokens // 2
    table = Table(title=f"All {len(architecture.modules)} layers at rank {RANK}, rows of {tokens} tokens")
    for head in (
        "bits",
        "tokens/s, batch 8",
        "memory, batch 1",
        "memory, batch 8",
        "memory to load",
        "seconds to load",
    ):
        table.add_column(head, justify="right")
    ranks = tuple((module.name, RANK) for module in architecture.modules)
    for speed, loading in zip(machine.speeds, sorted(probe.loading, key=lambda one: one.bits), strict=True):
        work = {batch: Work(1, batch, tokens, labels) for batch in (1, 8)}
        choices = {batch: Choice(ranks, speed.bits, batch, 1) for batch in (1, 8)}
        peaks = [usage(architecture, machine, work[batch], choices[batch]).memory_bytes for batch in (1, 8)]
        rate = 8 * tokens / max(step_seconds(architecture, machine, work[8], choices[8]), 1e-9)
        table.add_row(
            str(speed.bits),
            f"{rate:,.0f}",
            *map(bytes_text, (*peaks, loading.peak_bytes)),
            f"{loading.seconds:.1f}",
        )
    return table


def _show_rows(probe: Probe) -> None:
    rows = probe.rows
    dropped = f", {number_text(rows.dropped)} dropped" if rows.dropped else ""
    console.print(
        f"{probe.client}: {number_text(rows.train)} rows to train, {number_text(rows.held_out)} held out{dropped}"
    )
    console.print(f"  tokens of a row: {_buckets(rows.lengths)}", soft_wrap=True)
    if rows.learned:
        console.print(f"  tokens learned: {_buckets(rows.learned)}", soft_wrap=True)


def _buckets(histogram: Histogram) -> str:
    return ", ".join(f"up to {bucket.up_to}: {number_text(bucket.rows)}" for bucket in histogram)


def _connection(probe: Probe) -> str:
    known = probe.bandwidth
    if known is None:
        return "connection: nothing declared (--upload-mbit, --download-mbit): plans will not count messages"
    declared = [
        f"{name} {value / MBIT:g} Mbit/s"
        for name, value in (("up", known.upload), ("down", known.download))
        if value is not None
    ]
    said = f"{', '.join(declared)}, declared and not measured" if declared else "no bandwidth declared"
    reached = ""
    if known.connect_seconds is not None:
        reached = f"; {known.server} answered in {1000 * known.connect_seconds:.0f} ms"
    return f"connection: {said}{reached}"
