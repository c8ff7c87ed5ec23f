"""Experiments as text, and what the loader says about them."""

from pathlib import Path

import pytest

from fedloom.errors import ConfigError
from fedloom.spec.load import parse

CLIENTS = """
[[clients]]
name = "a"
data = "hf:x"

[[clients]]
name = "b"
data = "hf:x"
rank = 4
"""


@pytest.fixture
def problems(tmp_path):
    """problems(text): the lines of the ConfigError, none if the text is fine. Two clients are added if it has none."""

    def problems_of(text, folder: Path = tmp_path):
        has_clients = any(mark in text for mark in ("[clients]", "clients = [{", "# no clients"))
        complete = text if has_clients else text + CLIENTS
        try:
            parse(complete, where="pilot.toml", folder=folder)
        except ConfigError as error:
            return error.problems
        return []

    return problems_of
