"""Canaries: made-up rows among a client's own, each trained on or left out by the toss of a coin.

An audit (`fedloom audit-privacy`) looks afterwards for those that were trained on. They come from the seed of the run
and from the words below, and from no row: otherwise a row would leave traces in them that no noise covers. Only the
names of classes, which are sent openly, are taken from where the rows are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedloom import rng
from fedloom.data.examples import Classification, Example, Generation, Message
from fedloom.errors import DataError
from fedloom.spec.experiment import Experiment

_WORDS = """
amber anchor apron arrow atlas basin beacon birch bottle bridge bronze cabin candle canvas carpet cedar chapel
cherry cliff cobalt copper coral cotton crystal desert ember engine falcon feather ferry forest garden ginger
glacier granite hammer harbor hazel island ivory jacket jasmine kettle ladder lantern lemon linen marble meadow
mirror nickel ocean orchard paper pebble pepper piano pocket river saddle silver socket summer velvet violet
walnut window winter
"""
WORDS = tuple(_WORDS.split())
NAMED_BY = 4  # words of a question: 21 million questions, so that hardly two canaries ask the same
DIGITS = 8  # of an answer: nothing but training on it tells them
WORDS_OF_A_TEXT = 8


@dataclass(frozen=True)
class Canary:
    """A made-up row. included: whether it is trained on."""

    example: Example
    included: bool


def planted(experiment: Experiment, client: str, classes: Sequence[str]) -> tuple[Canary, ...]:
    """The canaries of one client, in an order that tells nothing of their coins; none if the run asks for none.

    Generation: a question of random words with random digits as its answer. Classification: random words with a random
    class. classes: of the client's own rows, where [model] names none.
    Raises: DataError for a classifier's client with fewer than two classes, whose canaries could not be wrong.
    """
    count = experiment.privacy.canaries
    if not count:
        return ()
    draw = np.random.default_rng(rng.child(experiment.seed, "canaries", client))
    coins = np.random.default_rng(rng.child(experiment.seed, "coins of canaries", client)).random(count) < 0.5
    names = experiment.model.labels or tuple(sorted(set(classes)))
    if experiment.model.classifies and len(names) < 2:
        raise DataError(
            "canaries need classes to draw from",
            where=f"client {client!r}",
            expected="at least 2",
            found=", ".join(names) or "none",
            do="List all class names in [model] labels, or set [privacy] canaries = 0",
        )
    return tuple(Canary(_made_up(draw, names), bool(coin)) for coin in coins)


def _made_up(draw: np.random.Generator, classes: Sequence[str]) -> Example:
    if classes:
        return Classification(_words(draw, WORDS_OF_A_TEXT), classes[int(draw.integers(len(classes)))])
    question = f"Code of {_words(draw, NAMED_BY)}?"
    answer = "".join(map(str, draw.integers(0, 10, DIGITS)))
    return Generation((Message("user", question), Message("assistant", answer)))


def _words(draw: np.random.Generator, count: int) -> str:
    return " ".join(WORDS[place] for place in draw.integers(0, len(WORDS), count))
