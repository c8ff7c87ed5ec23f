"""Small models, machines and work to plan for."""

from __future__ import annotations

import pytest

from fedloom.planning.values import Architecture, Machine, Work
from tests.planning.small import WORK, architecture_of, machine_of


@pytest.fixture
def architecture() -> Architecture:
    return architecture_of()


@pytest.fixture
def machine() -> Machine:
    return machine_of()


@pytest.fixture
def work() -> Work:
    return WORK
