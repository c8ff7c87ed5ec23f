"""Examples as token ids. The tokenizer comes as an argument; nothing here imports transformers.

Generation: the chat template's prompt, then the answer and its end-of-turn token; only the last two are learned. The
prompt is encoded exactly as it will be when an answer is asked for, so that training and use see the same tokens. With
no template: the prompt, a line break, the answer, the end-of-text token.

Too long: the middle of the prompt goes first (its beginning holds the question, its end opens the answer), down to a
quarter of max_tokens; then the end of the answer goes, and with it the end-of-turn token, as the answer does not end.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from fedloom.data.examples import Classification, Example, Generation, Message
from fedloom.errors import DataError, ModelError

IGNORED = -100  # of cross entropy: a position that is not learned
MIN_PROMPT_SHARE = 4  # the prompt of a long example keeps at least max_tokens // 4
BORDER_CHARACTERS = 32  # of the prompt's end, enough to see how the first token of an answer comes out
ROWS_AT_ONCE = 256  # bounds the memory of the tokenizer's intermediate values


@dataclass(frozen=True)
class Encoded:
    """One example as token ids (sequences of int; compact arrays where `encode` made them).

    labels: as long as input_ids, IGNORED on the prompt; empty for classification.
    label: the number of the class, for classification.
    """

    input_ids: Sequence[int]
    labels: Sequence[int]
    label: int | None = None

    @property
    def size(self) -> int:
        """Tokens."""
        return len(self.input_ids)

    @property
    def prompt_ids(self) -> list[int]:
        """Generation: the tokens before the answer."""
        return [token for token, label in zip(self.input_ids, self.labels, strict=True) if label == IGNORED]


def encode(
    example: Example, tokenizer: Any, max_tokens: int, labels: Mapping[str, int] | None = None
) -> Encoded | None:
    """One example; None if nothing of its answer or text is left. Raises: as `encode_all`."""
    return next(_encoded([example], tokenizer, max_tokens, labels))


def encode_all(
    examples: Sequence[Example],
    tokenizer: Any,
    max_tokens: int,
    labels: Mapping[str, int] | None = None,
    *,
    client: str,
) -> list[Encoded]:
    """All examples of a client, in order, without those of which nothing is left.

    labels: class name -> number, for classification.
    Raises: DataError where none is left, a label has no number or the chat template refuses a chat; ModelError for a
    tokenizer without an end-of-text token.
    """
    try:
        encoded = [item for item in _encoded(examples, tokenizer, max_tokens, labels) if item is not None]
    except DataError as problem:
        raise DataError(
            problem.what, where=f"client {client!r}", expected=problem.expected, found=problem.found, do=problem.do
        ) from problem
    if not encoded:
        raise DataError(
            "no example is left after cutting",
            where=f"client {client!r}",
            found=f"{len(examples)} examples",
            do=f"Raise max_tokens above {max_tokens}",
        )
    return encoded


def prompt_ids(messages: Sequence[Message], tokenizer: Any, max_tokens: int) -> list[int]:
    """The tokens of a question, ready for the answer; cut in the middle to max_tokens.

    Raises: DataError where the chat template refuses the chat.
    """
    ids = _ids([_prompt_text(messages, tokenizer)], tokenizer)[0]
    return _without_middle([*_opening(tokenizer), *ids], max_tokens)


def text_ids(text: str, tokenizer: Any) -> list[int]:
    """The tokens of a text that is to be classified, however many they are."""
    return list(tokenizer(text, return_attention_mask=False, verbose=False)["input_ids"])


def _encoded(
    examples: Sequence[Example], tokenizer: Any, max_tokens: int, labels: Mapping[str, int] | None
) -> Iterator[Encoded | None]:
    for start in range(0, len(examples), ROWS_AT_ONCE):
        rows = examples[start : start + ROWS_AT_ONCE]
        chats = [row for row in rows if isinstance(row, Generation)]
        texts = [row for row in rows if isinstance(row, Classification)]
        if chats and texts:
            raise DataError("chats and classified texts in one list")
        yield from _chats(chats, tokenizer, max_tokens) if chats else _texts(texts, tokenizer, max_tokens, labels or {})


def _texts(
    examples: Sequence[Classification], tokenizer: Any, max_tokens: int, labels: Mapping[str, int]
) -> Iterator[Encoded | None]:
    texts = [example.text for example in examples]
    encoding = tokenizer(texts, truncation=True, max_length=max_tokens, return_attention_mask=False, verbose=False)
    for example, ids in zip(examples, encoding["input_ids"], strict=True):
        if example.label not in labels:
            raise DataError("a label without a number", expected=" or ".join(labels) or "labels", found=example.label)
        yield Encoded(array("i", ids), (), labels[example.label]) if example.text.strip() and ids else None


def _chats(examples: Sequence[Generation], tokenizer: Any, max_tokens: int) -> Iterator[Encoded | None]:
    prompts = [_prompt_text(example.prompt_messages, tokenizer) for example in examples]
    answers = [_answer_text(example, prompt, tokenizer) for example, prompt in zip(examples, prompts, strict=True)]
    opening = _opening(tokenizer)
    answer_rows = _continuations([prompt[-BORDER_CHARACTERS:] for prompt in prompts], answers, tokenizer)
    for example, prompt_row, answer_row in zip(examples, _ids(prompts, tokenizer), answer_rows, strict=True):
        yield _fitted([*opening, *prompt_row], answer_row, max_tokens) if example.response.strip() else None


def _continuations(before: Sequence[str], texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """The tokens of each text as it follows what is before it.

    Where a token would run across the border, which it cannot when an answer is generated: those of the text alone.
    """
    before_rows = _ids(before, tokenizer)
    whole_rows = _ids([first + second for first, second in zip(before, texts, strict=True)], tokenizer)
    return [
        whole[len(row) :] if whole[: len(row)] == row else _ids([text], tokenizer)[0]
        for row, whole, text in zip(before_rows, whole_rows, texts, strict=True)
    ]


def _fitted(prompt: list[int], answer: list[int], max_tokens: int) -> Encoded | None:
    least = min(len(prompt), max_tokens // MIN_PROMPT_SHARE)
    prompt = _without_middle(prompt, max(max_tokens - len(answer), least))
    answer = answer[: max_tokens - len(prompt)]
    if not answer:
        return None
    return Encoded(array("i", prompt + answer), array("i", [IGNORED] * len(prompt) + answer))


def _without_middle(ids: list[int], count: int) -> list[int]:
    """The first and the last tokens, `count` in all."""
    first = count // 2
    return ids if len(ids) <= count else ids[:first] + ids[len(ids) - (count - first) :]


def _ids(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    encoding = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
    return encoding["input_ids"]


def _opening(tokenizer: Any) -> list[int]:
    """The beginning-of-text token where the tokenizer sets one and no template writes it."""
    if tokenizer.chat_template or tokenizer.bos_token_id is None:
        return []
    first = tokenizer("", verbose=False)["input_ids"][:1]
    return first if first == [tokenizer.bos_token_id] else []


def _prompt_text(messages: Sequence[Message], tokenizer: Any) -> str:
    if not tokenizer.chat_template:
        return "".join(f"{message.content}\n" for message in messages)
    return _rendered(messages, tokenizer, add_generation_prompt=True)


def _answer_text(example: Generation, prompt: str, tokenizer: Any) -> str:
    """The answer as the template writes it after the prompt, up to its end-of-turn token."""
    response = example.response.strip()
    if tokenizer.chat_template:
        whole = _rendered(example.messages, tokenizer, add_generation_prompt=False).rstrip()
        # Some templates open an answer with more than they write before a finished one (an empty thought, say).
        if whole.startswith(prompt) and not whole.endswith(response):
            return whole[len(prompt) :]
    if tokenizer.eos_token is None:
        raise ModelError("the tokenizer has no end-of-text token", do="Choose a model whose tokenizer has one")
    return response + tokenizer.eos_token


def _rendered(messages: Sequence[Message], tokenizer: Any, *, add_generation_prompt: bool) -> str:
    chat = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as problem:
        roles = ", ".join(message.role for message in messages)
        raise DataError(f"the model's chat template refuses a chat: {problem}", found=f"the roles {roles}") from problem
