"""Which tokens an example becomes, and which of them are learned."""

import time

import pytest

from fedloom.data.examples import Classification, Generation, Message
from fedloom.data.tokens import IGNORED, encode, encode_all, prompt_ids
from fedloom.errors import DataError, ModelError

THINKING = (
    "{% for m in messages %}{{ m['role'] + ':' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:<think>' }}{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}x"


def chat(response="Hi.", prompt="Hello", *more):
    return Generation((*more, Message("user", prompt), Message("assistant", response)))


def decoded(tokenizer, ids):
    return tokenizer.decode([token for token in ids if token != IGNORED])


CASES = {
    "template": ({}, "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", "Hi.<|im_end|>"),
    "border": (
        {"merges": (("Ċ", "H"),)},
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
        "Hi.<|im_end|>",
    ),
    "prompt_is_no_prefix": ({"template": THINKING}, "user:Hello<|im_end|>assistant:<think>", "Hi.<|im_end|>"),
    "template_without_end": ({"template": NO_END}, "user: Hello\nassistant: ", "Hi.<|im_end|>"),
    "no_template": ({"template": None}, "Hello\n", "Hi.<|im_end|>"),
    "beginning": ({"template": None, "bos": True}, "<s>Hello\n", "Hi.<|im_end|>"),
    "template_writes_beginning": (
        {"template": "<s>" + NO_END, "bos": True},
        "<s>user: Hello\nassistant: ",
        "Hi.<|im_end|>",
    ),
}


@pytest.mark.parametrize(("tokenizer", "prompt", "answer"), CASES.values(), ids=CASES)
def test_only_the_answer_and_its_end_are_learned(byte_tokenizer, tokenizer, prompt, answer):
    tokenizer = byte_tokenizer(**tokenizer)
    encoded = encode(chat(), tokenizer, 100)
    assert decoded(tokenizer, encoded.input_ids) == prompt + answer
    assert decoded(tokenizer, encoded.labels) == answer
    assert encoded.labels[-1] == tokenizer.eos_token_id
    assert len(encoded.labels) == len(encoded.input_ids)
    assert encoded.prompt_ids == prompt_ids(chat().prompt_messages, tokenizer, 100)
    assert list(encoded.input_ids[: len(encoded.prompt_ids)]) == encoded.prompt_ids


def test_earlier_answers_of_a_chat_are_not_learned(byte_tokenizer):
    tokenizer = byte_tokenizer()
    encoded = encode(chat("Two.", "And?", Message("user", "Hello"), Message("assistant", "One.")), tokenizer, 200)
    assert decoded(tokenizer, encoded.labels) == "Two.<|im_end|>"
    assert "One.<|im_end|>" in decoded(tokenizer, encoded.input_ids)


def test_the_middle_of_a_long_prompt_goes_first(byte_tokenizer):
    tokenizer = byte_tokenizer(None)
    encoded = encode(chat("yes", "a" * 30 + "m" * 50 + "z" * 30), tokenizer, 40)
    assert len(encoded.input_ids) == 40
    assert decoded(tokenizer, encoded.labels) == "yes<|im_end|>"
    assert decoded(tokenizer, encoded.prompt_ids) == "a" * 18 + "z" * 17 + "\n"


def test_a_long_answer_loses_its_end_and_leaves_the_prompt_a_quarter(byte_tokenizer):
    tokenizer = byte_tokenizer(None)
    encoded = encode(chat("y" * 100, "a" * 50), tokenizer, 40)
    assert decoded(tokenizer, encoded.prompt_ids) == "a" * 9 + "\n"
    assert decoded(tokenizer, encoded.labels) == "y" * 30
    assert tokenizer.eos_token_id not in encoded.labels


def test_an_answer_of_nothing_is_left_out(byte_tokenizer):
    tokenizer = byte_tokenizer()
    assert encode(chat(" "), tokenizer, 50) is None
    assert len(encode_all([chat(), chat(" ")], tokenizer, 50, client="a")) == 1
    with pytest.raises(DataError, match="client 'a': no example is left"):
        encode_all([chat(" ")], tokenizer, 50, client="a")


def test_all_at_once_is_one_by_one(byte_tokenizer):
    tokenizer = byte_tokenizer(merges=(("Ċ", "H"), ("n", "Ċ")))
    examples = [
        chat(answer * (1 + number % 7), "Hello " * (number % 11)) for number in range(300) for answer in ("H.", "x")
    ]
    together = encode_all(examples, tokenizer, 60, client="a")
    assert together == [encode(example, tokenizer, 60) for example in examples]


def test_a_text_keeps_its_frame_when_it_is_cut(encoder_tokenizer):
    encoded = encode(Classification("abcdefgh", "good"), encoder_tokenizer, 6, {"bad": 0, "good": 1})
    assert encoder_tokenizer.decode(list(encoded.input_ids)) == "[CLS]abcd[SEP]"
    assert encoded.label == 1
    assert len(encoded.labels) == 0


def test_what_cannot_be_encoded_names_the_client(byte_tokenizer, encoder_tokenizer):
    with pytest.raises(DataError, match=r"client 'a'.*found other"):
        encode_all([Classification("t", "other")], encoder_tokenizer, 9, {"good": 0}, client="a")
    with pytest.raises(DataError, match=r"client 'a'.*no system role.*the roles system, user"):
        encode_all([chat("x", "y", Message("system", "z"))], byte_tokenizer(STRICT), 9, client="a")


def test_a_tokenizer_without_an_end_is_refused(byte_tokenizer):
    tokenizer = byte_tokenizer(None)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end-of-text token"):
        encode(chat(), tokenizer, 50)


def test_a_thousand_rows_take_less_than_a_second(byte_tokenizer):
    tokenizer = byte_tokenizer()
    start = time.process_time()
    encode_all([chat("Fine, thanks.", f"How are you, {number}?") for number in range(1000)], tokenizer, 100, client="a")
    assert time.process_time() - start < 1
