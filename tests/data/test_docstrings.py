"""Rows from the source of libraries, which is read and never run."""

import sys
import time

import pytest

from fedloom.data.docstrings import docstring_rows
from fedloom.errors import DataError

LIBRARY = {
    "__init__.py": '"""A library for the weaving of looms."""\nraise RuntimeError("imported")\n'
    "from .inner import Shuttle\nfrom ._hidden import weave\nfrom .inner import *\n",
    "inner.py": '''
class Shuttle:
    """A boat that carries the thread."""
    def throw(self):
        """Throw the shuttle through the shed."""
        def local():
            """A function that nobody can call."""
    def _rest(self):
        """A method that nobody should call."""
    @property
    def thread(self):
        """The thread that is on the shuttle."""
if True:
    def beat():
        """Beat the weft into the cloth."""
def same():
    """Beat the weft into the cloth."""
''',
    "_hidden.py": 'def weave():\n    """Weave the threads into a cloth."""\n'
    'def secret():\n    """Keep the secrets of the guild."""\n',
    "broken.py": "def (:\n",
    "tests/__init__.py": '"""A package of things nobody should learn."""',
    "test_inner.py": '"""A module of things nobody should learn."""',
    "part/__init__.py": '"""A part of the library of looms."""',
}


@pytest.fixture
def library(tmp_path, monkeypatch):
    for name, source in LIBRARY.items():
        path = tmp_path / "loomlib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("library")
def test_public_definitions_under_their_shortest_names_and_nothing_is_imported():
    rows = docstring_rows(["loomlib"])
    assert {row["prompt"]: row["response"] for row in rows} == {
        "What is the module `loomlib` for?": "A library for the weaving of looms.",
        "What is `loomlib.Shuttle`?": "A boat that carries the thread.",
        "What does `loomlib.Shuttle.throw` do?": "Throw the shuttle through the shed.",
        "What is `loomlib.Shuttle.thread`?": "The thread that is on the shuttle.",
        "What does `loomlib.beat` do?": "Beat the weft into the cloth.",
        "What is the module `loomlib.part` for?": "A part of the library of looms.",
        "What does `loomlib.weave` do?": "Weave the threads into a cloth.",
    }
    assert {row["package"] for row in rows} == {"loomlib"}
    assert "loomlib" not in sys.modules


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("package", "advice"),
    [("torhc", "torch"), ("loomlib.inne", "inner"), ("shutils", "shutil"), ("_thread", "no Python source")],
)
def test_an_unknown_package_is_named_with_the_nearest(package, advice):
    with pytest.raises(DataError, match=advice) as caught:
        docstring_rows([package])
    assert package in str(caught.value)


def test_a_dotted_name_chooses_a_part():
    rows = docstring_rows(["email.mime"])
    assert rows
    assert all("`email.mime." in row["prompt"] for row in rows)


def test_the_standard_library_gives_thousands_of_distinct_rows_in_a_fixed_order():
    rows = docstring_rows(["os", "shutil", "pathlib"])
    assert rows == docstring_rows(["os", "shutil", "pathlib"])
    assert {
        "prompt": "What does `shutil.copytree` do?",
        "response": "Recursively copy a directory tree and return the destination directory.",
        "package": "shutil",
    } in rows
    everything = docstring_rows(["stdlib"])
    assert len(everything) > 3000
    for column in ("prompt", "response"):
        assert len({row[column] for row in everything}) == len(everything)


@pytest.mark.slow
def test_torch_is_read_in_seconds():
    start = time.process_time()
    prompts = {row["prompt"] for row in docstring_rows(["torch"])}
    assert time.process_time() - start < 10
    assert len(prompts) > 2000
    assert "What is `torch.nn.Linear`?" in prompts
