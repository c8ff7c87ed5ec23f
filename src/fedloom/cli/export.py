"""fedloom export: take the tuned model out of a run, or a site's own out of what the site keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedloom.cli.console import RunOrKit, console, refuse_round
from fedloom.errors import ConfigError
from fedloom.report.units import change_text, loss_text, plural

if TYPE_CHECKING:
    from fedloom.engine.personal import Personal, TakenHome

NAME = "export"
GGUF = "LoRA adapter for llama.cpp"


def command(
    run: RunOrKit,
    to: Annotated[
        Path | None,
        typer.Option("--to", "--out", help="Directory to write; left out: RUN/export, RUN/export/CLIENT or KIT/export"),
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="The whole model with the delta merged in")] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="A LoRA adapter for llama.cpp, of a Llama-like base")] = False,
    client: Annotated[
        str | None, typer.Option(help="Whose model, of a method that gives each client its own (fedsa, fedalt)")
    ] = None,
    round: Annotated[int | None, typer.Option(help="Committed round; left out: the last one")] = None,
) -> None:
    """Write a PEFT adapter (or, with --merge, a whole model) that plain transformers and PEFT load.

    Of a method that mixes two adapters at each client: both, their mixer, and the closest adapter without one.
    """
    from fedloom.engine.at_site import is_of_a_site, load_at_site
    from fedloom.engine.finished import load_finished
    from fedloom.engine.personal import personal_of_run
    from fedloom.export.peft import export_merged, export_peft, refuse_filled

    if merge and gguf:
        raise ConfigError(["--merge writes a whole model, and --gguf only an adapter: give one of them"])
    to = to or run / "export" / (client or "")
    refuse_filled(to)
    if is_of_a_site(run):
        refuse_round(run, round)
        model = load_at_site(run, client)
        of_round = f"round {model.round} of {model.run}, as it was measured last,"
        _write_own_gguf(model, to, of_round) if gguf else _write_own(model, to, merge, of_round)
        return
    finished = load_finished(run, round=round)
    of_round = f"round {finished.state.round}"
    if finished.method.personal and client is not None:
        model = personal_of_run(run, finished, client)
        _write_own_gguf(model, to, of_round) if gguf else _write_own(model, to, merge, of_round)
        return
    if gguf:
        from fedloom.export.gguf import export_gguf

        place = export_gguf(to, finished.adapter(client), finished.base, name=finished.experiment.name)
        _say_written(GGUF, of_round, place)
        return
    write = export_merged if merge else export_peft
    write(to, finished.adapter(client), finished.state.head, finished.base)
    _say_written("merged model" if merge else "PEFT adapter", of_round, to)


def _write_own(model: Personal, to: Path, merge: bool, of_round: str) -> None:
    """One client's model, and what merging costs where there is something to merge."""
    from fedloom.engine.personal import take_home
    from fedloom.export.peft import export_merged, export_peft

    taken = None
    if model.mixes:
        with console.status("reading the client's rows, and what merging costs on them"):
            taken = take_home(model, to, merge=merge)
    else:
        write = export_merged if merge else export_peft
        write(to, model.start.delta(), model.head, model.base)
    kind = "merged model" if merge else "personal model" if model.mixes else "PEFT adapter"
    _say_written(f"{kind} of client {model.client}", of_round, to)
    for line in [] if taken is None else _said(taken, model.client, merge):
        console.print(f"  {line}", soft_wrap=True)


def _write_own_gguf(model: Personal, to: Path, of_round: str) -> None:
    """One client's model for llama.cpp: of two adapters that are mixed, the closest one without a mixer."""
    from fedloom.engine.personal import take_home_gguf
    from fedloom.export.gguf import FILE

    taken = take_home_gguf(model, to)
    _say_written(f"{GGUF} of client {model.client}", of_round, to / FILE)
    for line in [] if taken is None else _said(taken, model.client, True):
        console.print(f"  {line}", soft_wrap=True)


def _say_written(what: str, of_round: str, to: Path) -> None:
    console.print(f"Wrote the {what} of {of_round} to {to}", soft_wrap=True)


def _said(taken: TakenHome, client: str, merge: bool) -> list[str]:
    """What merging costs, or why nobody knows."""
    found = taken.merging
    if found is None:
        left_out = "" if merge else "; where shares are learned there is no merged adapter either"
        return [f"What merging costs is not known, as the client's rows cannot be read here: {taken.lacking}{left_out}"]
    own, merged = found.personal["loss"], found.merged["loss"]
    said = [
        f"On {plural(found.rows, 'held-out row')} of {client}: loss {loss_text(own)} of its own model, "
        f"{loss_text(merged)} of the closest static mixture, as in merged ({change_text(own, merged)})"
    ]
    if "accuracy" in found.personal:
        before, after = (100 * each["accuracy"] for each in (found.personal, found.merged))
        said.append(f"Accuracy on them: {before:.1f}% and {after:.1f}%")
    return said
