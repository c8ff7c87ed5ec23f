"""Which docstrings become answers, and how they read."""

import pytest

from fedloom.data.prose import MAX_CHARACTERS, answer

GOOD = {
    "one_line": ("Return the login name of the file owner.", "Return the login name of the file owner."),
    "full_stop_and_capital": ("close the connection to the server", "Close the connection to the server."),
    "wrapped": (
        "Recursively copy a tree\n    and return the folder.",
        "Recursively copy a tree and return the folder.",
    ),
    "first_paragraph_only": ("Open the file for reading.\n\nIt must exist.", "Open the file for reading."),
    "sections_cut": ("Remove the format from the table.\nArgs:\n    name: of it", "Remove the format from the table."),
    "fields_cut": ("Remove the format from the table.\n:param name: of it", "Remove the format from the table."),
    "underline_cut": ("Tools for the shell syntax\n=====", "Tools for the shell syntax."),
    "after_signature": ("abs(x) -> float\n\nReturn the absolute value of x.", "Return the absolute value of x."),
    "roles": ("Call :func:`~os.path.join` with the ``names``.", "Call `os.path.join` with the `names`."),
    "closing_formula": ("Apply a linear map to the data: :math:`y = xA^T`.", "Apply a linear map to the data."),
    "colon_sentence_dropped": ("Run the whole thing now. It takes these:", "Run the whole thing now."),
    "aside_dropped": ("Run the whole thing now. See also stop.", "Run the whole thing now."),
    "abbreviation": (
        "Match a name, e.g. Unicode ones, in the table.",
        "Match a name, e.g. Unicode ones, in the table.",
    ),
}
BAD = {
    "short": "Do it.",
    "reference": "See the base class for what this one does.",
    "deprecated": "Deprecated: use the other function for this.",
    "alias": "Alias for the function of the other module.",
    "todo": "TODO write down what this function does.",
    "signature_only": "copy(source, target, follow_links=True)",
    "other_language": "Öffnet die Datei für das Lesen und schließt sie.",
    "formula": "Compute :math:`x^2` of all of the elements given.",
    "leans_on_more": "Takes the same options as the function above.",
    "loose_tick": "Return the value of `name in the table.",
    "not_prose": "+ the + name + is + parsed + as + everything",
    "test": "Tests for the parser of the shell.",
}


@pytest.mark.parametrize(("docstring", "expected"), GOOD.values(), ids=GOOD)
def test_a_good_docstring_reads_as_an_answer(docstring, expected):
    assert answer(docstring) == expected


@pytest.mark.parametrize("docstring", BAD.values(), ids=BAD)
def test_a_poor_docstring_is_no_answer(docstring):
    assert answer(docstring) is None


def test_a_long_paragraph_ends_after_a_sentence():
    sentence = "This is one of the many sentences."
    found = answer(" ".join([sentence] * 20))
    assert len(found) <= MAX_CHARACTERS < len(found) + len(sentence) + 1
    assert found.endswith("sentences.")


def test_one_sentence_that_is_too_long_is_no_answer():
    assert answer("word " * 80) is None
