"""Commands in fenced blocks have the options that the command line has; toml and python blocks parse."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from fedloom.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMANDS = typer.main.get_command(app).commands


def unknown_in(line: str) -> list[str]:
    """Command or options of a `fedloom ..` line that the command line does not have."""
    words = shlex.split(re.sub(r"[\[\]]", " ", line), comments=True)[1:]
    if words[0] not in COMMANDS:
        return words[:1]
    known = {name for parameter in COMMANDS[words[0]].params for name in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words[1:] if word.startswith("--") and word.split("=")[0] not in known]


def test_an_invented_option_is_found():
    assert unknown_in("fedloom run pilot.toml --fast") == ["--fast"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_fenced_blocks_are_what_they_say(page):
    for kind, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if kind == "toml":
            tomllib.loads(block)
        elif kind == "python":
            compile(block, str(page), "exec")
        else:
            lines = [line for line in block.splitlines() if line.startswith("fedloom ")]
            assert [unknown for line in lines for unknown in unknown_in(line)] == []


def test_both_readmes_name_the_same_commands_pages_and_methods():
    english, japanese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ja.md"))

    def named(text: str) -> tuple[set[str], ...]:
        commands = {words.split("#")[0].strip() for words in re.findall(r"^fedloom .*$", text, re.MULTILINE)}
        pages = {page for page in re.findall(r"\]\(((?:docs/)?[\w./-]+\.md)\)", text) if not page.startswith("README")}
        methods = set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))
        return commands, pages, methods

    for kind, ours, theirs in zip(("command", "page", "method"), named(english), named(japanese), strict=True):
        assert ours == theirs, f"{kind} in one README alone: {sorted(ours ^ theirs)}"
        assert ours, kind
        assert all((ROOT / page).is_file() for page in ours if page.endswith(".md"))
