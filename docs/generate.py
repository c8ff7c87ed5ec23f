"""Write docs/methods.md, docs/configuration.md and docs/cli.md from the code, and put the measured tables into
docs/evidence.md, docs/personal.md, docs/privacy.md, docs/robustness.md and docs/wire.md.

So they cannot drift from the code and from benchmarks/results.

Usage: python docs/generate.py (a test fails where the files are not what this writes)
"""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import get_args

import typer
from pydantic import BaseModel

from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.registry import METHODS
from fedloom.cli.main import app
from fedloom.spec.experiment import Experiment

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
MEASURED = re.compile(r"<!-- ([\w.-]+\.md) -->\n.*?<!-- end -->", re.DOTALL)


def methods_page() -> str:
    """Every method: source, settings, and which laws hold."""
    names = list(METHODS)
    lines = [
        "# Methods",
        "",
        "Generated from the registry by `docs/generate.py`. Property tests hold every tick to be true, and know a",
        "counterexample for every blank.",
        "",
        "| law | " + " | ".join(f"`{name}`" for name in names) + " |",
        "|---|" + ":-:|" * len(names),
    ]
    for law in Law:
        ticks = ("✓" if law in METHODS[name].laws else "" for name in names)
        lines.append(f"| {law.value} | " + " | ".join(ticks) + " |")
    words = {"sum": "the sum", "deltas": "the sum, by sketches", "individuals": "each client's"}
    sees = (words[METHODS[name].reveals] for name in names)
    lines.append("| what the server must see | " + " | ".join(sees) + " |")
    for method in METHODS.values():
        lines += ["", *_method_section(method)]
    return "\n".join(lines) + "\n"


def _method_section(method: Method) -> list[str]:
    settings = fields(method.settings)
    lines = [f"## {method.name}", "", f"{method.summary}", "", f"Source: {method.source}", ""]
    lines += [f"Traffic: {method.traffic}.", "", " ".join(method.when.split())]
    if settings:
        lines += ["", "| setting | default | meaning |", "|---|---|---|"]
    for field in settings:
        default = "" if field.default is MISSING else f"`{field.default!r}`"
        lines.append(f"| `{field.name}` | {default} | {field.metadata['help']} |")
    return lines


def configuration_page() -> str:
    """Every key of the configuration file with its default and meaning."""
    lines = [
        "# Configuration",
        "",
        "Generated from `spec/experiment.py` by `docs/generate.py`. `fedloom init pilot.toml` writes the same as a",
        "file, `fedloom check pilot.toml` says what is wrong with one.",
    ]
    tables = {"": Experiment, **_tables(Experiment, "")}
    for name, table in tables.items():
        lines += ["", f"## {name or 'top level'}", "", (table.__doc__ or "").strip().splitlines()[0], ""]
        lines += ["| key | default | meaning |", "|---|---|---|"]
        for key, field in table.model_fields.items():
            if field.description:
                default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
                meaning = field.description.replace("|", "\\|")
                lines.append(f"| `{key}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _tables(table: type[BaseModel], prefix: str) -> dict[str, type[BaseModel]]:
    """Dotted name -> table below this one; [[name]] for lists of tables."""
    found: dict[str, type[BaseModel]] = {}
    for key, field in table.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                repeated = kind is not field.annotation and "tuple" in str(field.annotation)
                name = f"[[{prefix}{key}]]" if repeated else f"[{prefix}{key}]"
                found[name] = kind
                found |= _tables(kind, f"{prefix}{key}.")
    return found


def cli_page() -> str:
    """Every command with its help, arguments and options, as `fedloom COMMAND --help` has them."""
    commands = typer.main.get_command(app).commands
    lines = [
        "# Commands",
        "",
        "Generated from the command line by `docs/generate.py`. Exit code 0: done; 2: what was wrong, where,",
        "and what to do stands on standard error.",
    ]
    for name, command in commands.items():
        lines += ["", f"## fedloom {name}", "", _flowing(command.help or "")]
        rows = [_parameter(parameter) for parameter in command.params if not parameter.hidden]
        if rows:
            lines += ["", "| argument or option | default | meaning |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _parameter(parameter: typer.core.TyperArgument | typer.core.TyperOption) -> str:
    """A row of the table: an argument in capitals, an option with all its names."""
    if parameter.param_type_name == "argument":
        names = f"`{(parameter.metavar or parameter.name.upper()).strip('[]')}`"
    else:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.required:
        default = "required"
    else:
        flag = getattr(parameter, "is_flag", False)
        default = "" if parameter.default in (None, (), "") or flag else f"`{parameter.default}`"
    return f"| {names} | {default} | {_flowing(parameter.help or '').replace('|', chr(92) + '|')} |"


def _flowing(text: str) -> str:
    """Lines of a docstring as paragraphs; angle brackets are no tags."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.replace("\b", "").split("\n\n"))
    return "\n\n".join(paragraphs).replace("<", "&lt;")


def measured_page(name: str) -> str:
    """The page as it is, with the tables between its marks as they were measured last."""
    text = (DOCS / name).read_text(encoding="utf-8")
    return MEASURED.sub(lambda found: f"<!-- {found[1]} -->\n{_measured(found[1])}\n<!-- end -->", text)


def _measured(name: str) -> str:
    return (RESULTS / name).read_text(encoding="utf-8").strip()


PAGES = {
    "methods.md": methods_page,
    "configuration.md": configuration_page,
    "cli.md": cli_page,
    "evidence.md": partial(measured_page, "evidence.md"),
    "personal.md": partial(measured_page, "personal.md"),
    "privacy.md": partial(measured_page, "privacy.md"),
    "robustness.md": partial(measured_page, "robustness.md"),
    "wire.md": partial(measured_page, "wire.md"),
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
