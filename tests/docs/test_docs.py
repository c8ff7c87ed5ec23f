"""What the docs say is what the code does: generated pages are fresh, examples run, commands exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from fedloom.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["methods.md", "configuration.md", "cli.md", "evidence.md", "personal.md", "privacy.md", "wire.md"]
)
def test_generated_pages_are_fresh(name):
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == generator().PAGES[name](), "run: python docs/generate.py"


def test_the_algebra_example_runs_and_prints_what_it_says(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    example = next(block for block in blocks if "fedloom.aggregate" in block)
    exec(compile(example, "docs/python.md", "exec"), {})
    expected = re.findall(r"print\(.*?\)\s+# (.*)", example)
    assert capsys.readouterr().out.split() == expected


def commands_named(page: Path) -> set[str]:
    return set(re.findall(r"(?:^|`)fedloom ([a-z]+(?:-[a-z]+)*)", page.read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_the_docs_exists(page):
    known = {command.name for command in app.registered_commands}
    assert commands_named(page) <= known


def test_the_readme_names_every_command():
    known = {command.name for command in app.registered_commands}
    assert known - {"demo"} <= commands_named(ROOT / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
