"""From a docstring to an answer that a person would give: its first paragraph, or the sentences of it that fit."""

from __future__ import annotations

import re
from inspect import cleandoc

MIN_WORDS = 4
MIN_CHARACTERS = 20
MAX_CHARACTERS = 240


def _any_of(before: str, alternatives: str, after: str = "") -> re.Pattern[str]:
    """One pattern from alternatives that stand one on a line."""
    return re.compile(f"{before}(?:{'|'.join(alternatives.split(chr(10)))}){after}", re.IGNORECASE)


# A line that starts one of these ends the prose of a paragraph.
SECTION_NAMES = r"""args?|arguments|keyword args|parameters|params|inputs?|outputs?|shape|type|default|signature
attributes|returns?|yields?|raises|examples?|usage|notes?|warning|see also|references|inherited from|todo|since"""
SECTION = _any_of(
    "^",
    rf"(?:{SECTION_NAMES.replace(chr(10), '|')})\s*:"
    + r"""
[-=~^*#]{3,}\s*$
>>>
\.\. |:\w+[^:`]*:(?!`)
[-*+•] |\d+[.)] |@\w|\|""",
)

SIGNATURE = _any_of(
    "",
    r"""^[\w.]+\s*\(.*\)\s*(?:->.*|:)?$
->
^\w+\s*=\s*\S+$
^[\w.]+\(""",
)

# An answer that starts so says nothing about the thing itself.
HOLLOW = _any_of(
    r"^\W*",
    r"""see\b|same as\b|refer to\b|alias\b|this is an alias|like .{0,40}, but|likewise|ditto|as above
deprecat|inherit|overrid|internal\b|private\b|not implemented|placeholder|dummy|stub\b|helper\b|hook\b
this (?:function|method|class|module)?\s*(?:is|was|has been) deprecated
(?:the )?default (?:value|implementation)|please (?:see|refer)|for (?:more )?details
todo\b|fixme\b|tests?\b|usage\b|warning|note\b|args?\b|parameters?\b|returns?:
copyright\b|licensed?\b|author|created (?:on|by)|.*\bgenerated from\b
magic method|constructor\b|initiali[sz]e self""",
)

# An answer with one of these leans on something that is not in it.
UNCLEAR = _any_of(
    "",
    r""":math:|\\\w+\{|[{}|]|@\w|&\w+;|>>>|https?://|\.{3}$
\btodo\b|\bfixme\b|\bxxx\b|__\w+__|\bself\b|\bdeprecated\b|\b(?:above|below|following)\b""",
)

ASIDE = _any_of("^", r"see|refer|note|please|for more|for details|todo|example", r"\b")
OPENING = re.compile(r"[A-Za-z`\"'(]")
CLOSING_FORMULA = re.compile(r"\s*[:,]?\s*:math:`[^`]*`\s*(?=[.]|$)")
ROLE = re.compile(r":(?!math:)(?:\w+:)?\w+:`[~!]?([^`]*?)(?:\s*<[^`>]*>)?`")
DOUBLE_TICKS = re.compile(r"``([^`]+)``")
LINK = re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{0,2}")
SENTENCE_END = re.compile(r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\betc\.)(?<!\bvs\.)(?<!\bcf\.)(?<=[.!?])\s+(?=[A-Z`\"'(])")


def answer(docstring: str) -> str | None:
    """The answer that a docstring holds, or None where it holds none worth learning.

    The first paragraph that is not a signature, as one line without markup; a long one is cut after a sentence.
    """
    for paragraph in cleandoc(docstring).split("\n\n")[:2]:
        lines = _leading_prose(paragraph)
        if lines and not _is_signature(lines):
            text = _fitting(_plain(" ".join(lines)))
            return text if text is not None and is_usable(text) else None
    return None


def is_usable(text: str) -> bool:
    """Whether a person would take it as an answer: enough English words, no reference elsewhere, no loose markup."""
    words = re.findall(r"[A-Za-z][A-Za-z'-]+", text)
    return (
        len(words) >= MIN_WORDS
        and len(text) >= MIN_CHARACTERS
        and text.isascii()
        and OPENING.match(text) is not None
        and sum(len(word) for word in words) >= 0.6 * len(text)
        and text.count("`") % 2 == 0
        and text.count("(") == text.count(")")
        and not HOLLOW.search(text)
        and not UNCLEAR.search(text)
    )


def _leading_prose(paragraph: str) -> list[str]:
    """The lines before the first section head, list item, prompt or directive."""
    lines = []
    for line in paragraph.strip().splitlines():
        if SECTION.match(line.strip()):
            break
        lines.append(line.strip())
    return lines


def _is_signature(lines: list[str]) -> bool:
    return SIGNATURE.search(lines[0]) is not None


def _plain(text: str) -> str:
    """Without reStructuredText: roles and double ticks become single ticks; a formula that ends a sentence goes."""
    text = CLOSING_FORMULA.sub("", text)
    for pattern in (ROLE, DOUBLE_TICKS, LINK):
        text = pattern.sub(r"`\1`", text)
    return re.sub(r"\s+", " ", text).strip()


def _fitting(text: str) -> str | None:
    """The leading sentences that fit in MAX_CHARACTERS, ended by a full stop; None if the first alone does not fit."""
    kept = ""
    for sentence in SENTENCE_END.split(text):
        longer = f"{kept} {sentence}".strip()
        if len(longer) > MAX_CHARACTERS or sentence.endswith(":") or (kept and ASIDE.match(sentence)):
            break
        kept = longer
    if not kept:
        return None
    kept = kept[0].upper() + kept[1:] if kept[0].isalpha() else kept
    return kept if kept[-1] in ".!?" else kept.rstrip(",;-") + "."
