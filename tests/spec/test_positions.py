"""Line numbers of keys, whatever the TOML looks like."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.spec.dump import key, literal
from fedloom.spec.positions import positions

TEXTS = {
    "comments and blanks": ("# x = 1\n\na = 1 # y = 2\n", {("a",): 3}),
    "tables": (
        "a = 1\n[t]\nb = 2\n\n[t.u]\nc = 3",
        {("a",): 1, ("t",): 2, ("t", "b"): 3, ("t", "u"): 5, ("t", "u", "c"): 6},
    ),
    "dotted": ("t.u.a = 1", {("t",): 1, ("t", "u"): 1, ("t", "u", "a"): 1}),
    "quoted": ('["t.u"]\n"a = b" = 1', {("t.u",): 1, ("t.u", "a = b"): 2}),
    "inline": ("t = {a = 1, b = 2}\nc = 1", {("t",): 1, ("t", "a"): 1, ("t", "b"): 1, ("c",): 2}),
    "arrays over lines": ("a = [\n  [1],\n  [2], # ]\n]\nb = 1", {("a",): 1, ("b",): 5}),
    "text over lines": ('a = """\n[t]\nb = 1\n"""\nc = 1', {("a",): 1, ("c",): 5}),
    "arrays of tables": (
        "[[c]]\na = 1\n[c.t]\nb = 1\n[[c]]\na = 2\n[c.t]\nb = 2",
        {
            ("c", 0): 1,
            ("c", 0, "a"): 2,
            ("c", 0, "t"): 3,
            ("c", 0, "t", "b"): 4,
            ("c", 1): 5,
            ("c", 1, "a"): 6,
            ("c", 1, "t"): 7,
            ("c", 1, "t", "b"): 8,
        },
    ),
    "windows": ("a = 1\r\n[t]\r\nb = 2\r\n", {("a",): 1, ("t",): 2, ("t", "b"): 3}),
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.values(), ids=TEXTS)
def test_lines_are_found(text, expected):
    tomllib.loads(text)
    assert positions(text) == expected


VALUES = st.recursive(
    st.text() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_literals_are_read_again_and_found_on_their_lines(table):
    text = "".join(f"{key(name)} = {literal(value)}\n" for name, value in table.items())
    assert tomllib.loads(text) == table
    found = positions(text)
    assert [found[(name,)] for name in table] == list(range(1, len(table) + 1))
