"""Which column means what, and which rows are of no use."""

import pytest

from fedloom.data.columns import examples_of
from fedloom.data.examples import Classification, Generation, ImageClassification, Message
from fedloom.errors import DataError
from fedloom.spec.experiment import ColumnsTable


def convert(rows, task="generation", numbers=None, labels=None, **columns):
    table = ColumnsTable(**columns)
    return examples_of(rows, table, task, source="a.jsonl", client="a", numbers=numbers, labels=labels)


def pair(prompt, response):
    return Generation((Message("user", prompt), Message("assistant", response)))


PAIRS = {
    "prompt_response": {"prompt": "q", "response": "a"},
    "any_case": {"Question": "q", "Answer": "a"},
    "input_output": {"input": "q", "output": "a"},
    "first_answer": {"instruction": "q", "input": "", "output": ["a", "b"]},
    "spaces": {"prompt": " q\n", "completion": " a "},
    "chat": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "shared_chat": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "chat_in_parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q"}]},
            {"role": "assistant", "content": "a"},
        ]
    },
    "open_chat": {
        "messages": [{"role": r, "content": c} for r, c in [("user", "q"), ("assistant", "a"), ("user", "more")]]
    },
}


@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
def test_usual_names_are_found(row):
    assert convert([row]) == [pair("q", "a")]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"instruction": "q", "context": "c", "response": "a"}, {}),
        ({"instruction": "q", "input": "c", "output": "a"}, {}),
        ({"x": "q", "y": "c", "z": "a"}, {"prompt": "x", "context": "y", "response": "z"}),
    ],
)
def test_a_context_follows_the_prompt(row, columns):
    assert convert([row], **columns) == [pair("q\n\nc", "a")]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"question": "q", "passage": "a"}, {"prompt": "question", "response": "passage"}),
        ({"output": "q", "input": "a"}, {"prompt": "output", "response": "input"}),
        ({"question": "a", "input": "q"}, {"response": "question"}),
        ({"answer": "q", "output": "a", "response": "a"}, {"prompt": "answer"}),
        ({"response": "q", "output": "a"}, {"prompt": "response"}),
    ],
)
def test_a_column_with_a_role_is_not_taken_for_another(row, columns):
    """Above all, what should be answered never stands in what is asked."""
    assert convert([row], **columns) == [pair("q", "a")]


@pytest.mark.parametrize("names", [("image", "label"), ("Img", "class"), ("pixels", "digit")])
def test_images_are_found_by_their_usual_names_or_as_named(names):
    picture, label = names
    columns = {"label": "digit"} if label == "digit" else {}
    rows = [{picture: [[0, 255]], label: 1.0}, {picture: None, label: "2"}, {picture: [[9, 9]], label: ""}]
    (found,) = convert(rows, "image-classification", **columns)
    assert isinstance(found, ImageClassification)
    assert (found.image.shape, found.image.content, found.label) == ((1, 2, 1), b"\x00\xff", "1")
    assert found.image.where == f"client 'a', a.jsonl, row 1, column {picture!r}"


def test_a_row_without_an_image_or_of_another_class_is_named():
    with pytest.raises(DataError, match=r"row 1: no column for the image .expected image: image or img"):
        convert([{"text": "t", "label": "x"}], "image-classification")
    with pytest.raises(DataError, match=r"no row is left of 1 .*found 1 with an empty image"):
        convert([{"image": "", "label": "x"}], "image-classification")
    with pytest.raises(DataError, match=r"row 1: the label 'x' is not one"):
        convert([{"image": [[1]], "label": "x"}], "image-classification", labels=["y"])


def test_a_named_context_is_not_dropped_for_a_chat():
    row = {"prompt": "q", "about": "c", "response": "a", "messages": "no"}
    assert convert([row], context="about") == [pair("q\n\nc", "a")]


def test_named_columns_win_over_usual_names():
    row = {"prompt": "no", "q": "q", "response": "a", "messages": "no"}
    assert convert([row], prompt="q") == [pair("q", "a")]


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        ({"sentence": "t", "intent": "x"}, {}, "x"),
        ({"text": "t", "category": 3}, {}, "3"),
        ({"text": "t", "category": 3.0}, {}, "3"),
        ({"text": "t", "category": -0.0}, {}, "0"),
        ({"text": "t", "category": 3.5}, {}, "3.5"),
        ({"text": "t", "category": 1e300}, {}, "1e+300"),
        ({"text": "t", "category": "3.0"}, {}, "3.0"),
        ({"text": "x", "label": "t"}, {"text": "label", "label": "text"}, "x"),
        ({"label": "t", "class": "x"}, {"text": "label"}, "x"),
        ({"text": "t", "label": "no", "y": ["x", "z"]}, {"label": "y"}, "x"),
    ],
)
def test_classification(row, columns, expected):
    assert convert([row], "classification", **columns) == [Classification("t", expected)]


GOOD_ROW = {"prompt": "q", "response": "a"}
BAD = {
    "named_column_missing_later": (
        [GOOD_ROW, {"prompt": "q", "reponse": "a"}],
        {"response": "response"},
        ["row 2", "'response'", "prompt, reponse", "Did you mean reponse?"],
    ),
    "named_context_missing": ([GOOD_ROW], {"context": "promt"}, ["row 1", "'promt'", "Did you mean prompt?"]),
    "nothing_usual": ([{"a": 1, "b": 2}], {}, ["the prompt and the response", "instruction", "completion", "a, b"]),
    "half_usual": ([{"prompt": "q", "b": 2}], {}, ["for the response", "prompt, b"]),
    "no_text": ([{"prompt": {"x": 1}, "response": "a"}], {}, ["row 1", "'prompt'", "not a text", "dict"]),
    "all_empty": (
        [{"prompt": "", "response": "a"}, {"prompt": "q", "response": " "}, {"prompt": None, "response": "a"}],
        {},
        ["no row is left of 3", "2 with an empty prompt", "1 with an empty response"],
    ),
    "no_rows": ([], {}, ["no rows"]),
    "two_kinds": ([GOOD_ROW], {"messages": "m", "prompt": "p"}, ["both"]),
    "two_roles": ([GOOD_ROW], {"prompt": "prompt", "response": "prompt"}, ["'prompt'", "as prompt and as response"]),
    "half_a_character": (
        [GOOD_ROW, {"prompt": "x \ud83d", "response": "a"}],
        {},
        ["row 2", "'prompt'", "\\ud83d", "2"],
    ),
    "half_a_character_in_a_chat": (
        [{"messages": [{"role": "user", "content": "\udc00"}]}],
        {},
        ["row 1", "message 1", "\\udc00"],
    ),
    "half_a_character_in_a_part": (
        [{"messages": [{"role": "user", "content": [{"type": "text", "text": "\udc00"}]}]}],
        {},
        ["row 1", "message 1", "\\udc00"],
    ),
    "no_chat": ([{"messages": "hello"}], {}, ["row 1", "not a chat", "str"]),
    "no_message": ([{"messages": [{"role": "user"}]}], {}, ["message 1", "not a message"]),
    "unknown_role": ([{"messages": [{"role": "usr", "content": "x"}]}], {}, ["unknown role", "Did you mean user?"]),
    "no_answer": ([{"messages": [{"role": "user", "content": "x"}]}], {}, ["no row is left", "no question and answer"]),
}


@pytest.mark.parametrize(("rows", "columns", "words"), BAD.values(), ids=BAD)
def test_bad_rows_are_refused_by_row_and_column(rows, columns, words):
    with pytest.raises(DataError) as caught:
        convert(rows, **columns)
    for word in ["client 'a', a.jsonl", *words]:
        assert word in str(caught.value)


def test_empty_rows_are_left_out():
    rows = [GOOD_ROW, {"prompt": "q", "response": None}, {"prompt": "q2", "response": float("nan")}]
    assert convert(rows) == [pair("q", "a")]


def test_a_label_outside_the_list_is_refused_by_the_row_of_its_source():
    rows = [{"text": "t", "label": "good"}, {"text": "u", "label": "godo"}]
    assert len(convert(rows, "classification", labels=["good", "godo"])) == 2
    with pytest.raises(DataError, match=r"row 9: the label 'godo'.*Did you mean good\?"):
        convert(rows, "classification", numbers=[4, 9], labels=["bad", "good"])
