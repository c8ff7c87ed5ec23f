"""Cases of which a few are always tried, and all with the slow tests."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], *always: Any) -> list[Any]:
    """The cases for `pytest.mark.parametrize`; all but those named are slow ones."""
    listed = list(cases)
    assert set(always) <= set(listed), "a case that is always tried is one of them"

    def param(case: Any) -> Any:
        values = case if isinstance(case, tuple) else (case,)
        return pytest.param(*values, marks=[] if case in always else [pytest.mark.slow])

    return [param(case) for case in listed]
