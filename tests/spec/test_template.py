"""The configuration that a newcomer starts from."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from fedloom.aggregation.registry import METHODS
from fedloom.spec.experiment import Experiment, MethodTable
from fedloom.spec.load import parse
from fedloom.spec.problem import tables
from fedloom.spec.template import SAMPLE_CLIENTS, template

TABLES = dict(tables())


@pytest.fixture(scope="module")
def text():
    return template()


def test_it_is_the_default_experiment_with_the_sample_clients(text):
    assert parse(text, where="template", folder=Path("/")) == Experiment(clients=SAMPLE_CLIENTS)
    assert [client.rank for client in SAMPLE_CLIENTS] == [32, 16, 8, 4]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: ".".join(path) or "top")
def test_every_field_of_every_table_is_there_with_its_description(text, path):
    header = f"[[{path[0]}]]" if path == ("clients",) else f"[{'.'.join(path)}]"
    section = text if not path else re.split(rf"(?m)^#?{re.escape(header)}$", text, maxsplit=1)[1]
    section = re.split(r"(?m)^#?\[(?!\.\.)", section)[0]
    words = " ".join(section.replace("\n# ", " ").split())
    for name, field in TABLES[path].model_fields.items():
        if (*path, name) not in TABLES:
            assert re.search(rf"(?m)^#?{name} = ", section), f"{header} {name}"
            if path[:1] != ("clients",) or len(path) == 1:
                assert field.description in words


def test_the_settings_of_the_default_method_are_there(text):
    for field in dataclasses.fields(METHODS[MethodTable().name].settings):
        assert f"\n#{field.name} = " in text


def test_every_key_that_is_commented_out_has_a_value_of_its_type(text):
    """Each alone parses as TOML, so that taking the mark away is all there is to do."""
    muted = re.findall(r"(?m)^#(\w+ = .*)$", text)
    assert len(muted) > 15
    assert all(tomllib.loads(line) for line in muted)


def test_lines_are_short(text):
    assert max(map(len, text.splitlines())) <= 120
