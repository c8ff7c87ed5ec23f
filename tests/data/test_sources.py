"""Every kind of source, and an error with client, file and line for each way that one can be bad."""

import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from fedloom.data.sources import read_rows, source_folder
from fedloom.errors import DataError

ROWS = [{"prompt": "Why?", "response": "Because."}, {"prompt": "Wo, genau?", "response": "Über\nall"}]
LINES = "\n".join(json.dumps(row) for row in ROWS)
TASK = {"Definition": ["Answer."], "Instances": [{"id": "1", "input": "Why?", "output": ["Because.", "So."]}]}


def parquet(path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def saved(path):
    datasets.Dataset.from_list(ROWS).save_to_disk(path)


def saved_splits(path):
    splits = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    datasets.DatasetDict(splits).save_to_disk(path)


GOOD = {
    "jsonl": ("a.jsonl", LINES + "\n\n"),
    "windows_lines_and_mark": ("a.jsonl", "\ufeff" + LINES.replace("\n", "\r\n")),
    "array_called_jsonl": ("a.jsonl", json.dumps(ROWS, indent=1)),
    "json": ("a.json", json.dumps(ROWS)),
    "lines_called_json": ("a.json", LINES),
    "csv": ("a.csv", 'prompt,response\nWhy?,Because.\n"Wo, genau?","Über\nall"\n'),
    "upper_case_ending": ("A.CSV", 'prompt,response\nWhy?,Because.\n"Wo, genau?","Über\nall"\n'),
    "parquet": ("a.parquet", parquet),
    "saved": ("folder", saved),
    "saved_splits": ("folder", saved_splits),
}
BAD = {
    "empty": ("a.jsonl", b" \n", ["empty"]),
    "not_utf8": ("a.jsonl", b'{"a": 1}\n{"a": "\xe4"}', ["line 2", "UTF-8", "0xe4", "offset 16"]),
    "broken_line": ("a.jsonl", b'{"a": 1}\n{"a": \n', ["line 2", "broken JSON"]),
    "line_no_object": ("a.jsonl", b'{"a": 1}\n3\n', ["line 2", "not an object", "int"]),
    "broken_array": ("a.json", b'[{"a": 1},\n{"a" 2}]', ["line 2", "broken JSON"]),
    "entry_no_object": ("a.json", b'[{"a": 1}, "b"]', ["row 2", "not an object", "str"]),
    "object": ("a.json", b'{"data": []}', ["not a list of rows", "data"]),
    "no_rows": ("a.json", b"[]", ["no rows"]),
    "too_deep": ("a.json", b"[" * 100_000, ["broken JSON"]),
    "long_number": (
        "a.jsonl",
        b'{"a": 1}\n{"a": ' + b"9" * 5000 + b"}",
        ["line 2", "a number that is too long", "4300"],
    ),
    "not_utf8_after_a_mark": ("a.jsonl", b'\xef\xbb\xbf{"a": "\xe4"}', ["0xe4", "offset 10"]),
    "no_header": ("a.csv", b"\na,b\n1,2\n", ["line 1", "the header is empty"]),
    "header_of_spaces": ("a.csv", b" , \n1,2\n", ["line 1", "the header is empty"]),
    "short_row": ("a.csv", b"a,b\n1,2\n3\n", ["line 3", "2 cells", "found 1"]),
    "open_quote": ("a.csv", b'a,b\n1,2\n3,"4\n', ["line", "broken table"]),
    "column_twice": ("a.csv", b"a,a\n1,2\n", ["line 1", "'a'"]),
    "header_only": ("a.csv", b"a,b\n", ["no rows"]),
    "not_parquet": ("a.parquet", b"PAR1 and no more", ["not a Parquet file"]),
    "unknown_ending": ("a.xls", b"a", [".xls", ".csv", ".jsonl"]),
}


@pytest.mark.parametrize(("name", "content"), GOOD.values(), ids=GOOD)
def test_the_same_rows_from_every_format(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8", newline="")
    else:
        content(path)
    assert read_rows(str(path), client="a") == ROWS


@pytest.mark.parametrize(("name", "content", "words"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_by_client_file_and_place(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_rows(str(tmp_path / name), client="site_b")
    for word in ["client 'site_b'", name, *words]:
        assert word in str(caught.value)


def test_a_missing_file_is_named_with_the_nearest(tmp_path):
    (tmp_path / "site_a.jsonl").write_text(LINES)
    with pytest.raises(DataError, match=r"Did you mean site_a\.jsonl"):
        read_rows(str(tmp_path / "site_s.jsonl"), client="a")
    with pytest.raises(DataError, match="There is no folder"):
        read_rows(str(tmp_path / "none" / "site_a.jsonl"), client="a")


def test_tab_separated_files_keep_quotation_marks(tmp_path):
    (tmp_path / "a.tsv").write_text('label\ttext\nx\t"Yes", he said\ny\t"open\n')
    assert [row["text"] for row in read_rows(str(tmp_path / "a.tsv"), client="a")] == ['"Yes", he said', '"open']


def test_a_natural_instructions_task_repeats_its_definition(tmp_path):
    (tmp_path / "task.json").write_text(json.dumps(TASK))
    expected = {"instruction": "Answer.", "id": "1", "input": "Why?", "output": ["Because.", "So."]}
    assert read_rows(str(tmp_path / "task.json"), client="a") == [expected]


def test_a_split_is_chosen_and_class_numbers_become_names(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    datasets.DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(tmp_path / "set")
    assert read_rows(f"hf:{tmp_path / 'set'}:test", client="a") == [{"text": "a", "label": "good"}]
    with pytest.raises(DataError, match="train or test"):
        read_rows(f"hf:{tmp_path / 'set'}:dev", client="a")


IMPOSSIBLE = {"long": "x" * 300, "null": "a\x00b"}


@pytest.mark.parametrize("name", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize("form", ["{}", "{}.jsonl", "hf:{}", "docstrings:{}"])
def test_a_name_that_the_system_cannot_have_is_an_error_of_the_client(form, name):
    with pytest.raises(DataError, match="client 'a'"):
        read_rows(form.format(name), client="a")


@pytest.mark.parametrize("source", ["hf:nobody/no-such-data-set", "hf:", "hf:a/b/c/d:train"])
def test_a_data_set_that_cannot_be_had_is_an_error_of_the_client(source):
    with pytest.raises(DataError, match="client 'a', hf:"):
        read_rows(source, client="a")


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="datasets cannot read it"):
        read_rows(str(tmp_path), client="a")
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match="Name one of the files"):
        read_rows(str(tmp_path), client="a")


def test_docstrings_of_several_packages():
    assert {row["package"] for row in read_rows("docstrings:shutil, os", client="a")} == {"os", "shutil"}
    for source in ("docstrings:", "docstrings:shutils"):
        with pytest.raises(DataError, match="client 'a', docstrings:"):
            read_rows(source, client="a")


def test_paths_in_rows_are_relative_to_the_folder_of_the_source(tmp_path):
    (tmp_path / "saved").mkdir()
    saved = tmp_path / "saved"
    assert source_folder(str(tmp_path / "a.csv")) == tmp_path
    assert source_folder(str(saved)) == source_folder(f"hf:{saved}") == source_folder(f"hf:{saved}:train") == saved
    assert source_folder("hf:owner/name:train") is None
    assert source_folder("docstrings:json") is None
