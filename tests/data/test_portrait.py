"""What a client would send of its rows: counts, bounded by what one row can change, and no text."""

import random
from dataclasses import asdict

import pytest

from fedloom.data.examples import Classification, Generation, Image, ImageClassification, Message
from fedloom.data.portrait import fingerprint, portrait_of, with_noise
from fedloom.rounds.portrait import WORDS

WORDLIST = ["copper", "linen", "glass", "oak", "wool", "slate", "harbour", "lantern", "of", "the", "a", "is"]
LABELS = ("even", "odd")


def asked(text, answer="yes"):
    return Generation((Message("user", text), Message("assistant", answer)))


def sentence(draw):
    return " ".join(draw.choices(WORDLIST, k=draw.randrange(1, 9)))


def rows_of(kind, draw, count):
    if kind == "words":
        return [asked(sentence(draw)) for _ in range(count)]
    return [Classification(sentence(draw), draw.choice(LABELS)) for _ in range(count)]


def test_labels_and_lengths_are_counted():
    rows = [Classification("one two three", "odd"), Classification("one", "odd"), Classification("one two", "even")]
    found = portrait_of("a", rows, LABELS, b"salt")
    assert (found.kind, found.names, found.counts) == ("labels", LABELS, (1, 2))
    assert found.lengths[:4] == (0, 1, 2, 0)
    assert (found.rows, found.shorter_than(0.3), found.shorter_than(0.9)) == (3, 2, 4)


def test_words_are_the_longest_of_each_row_wherever_they_stand():
    one = portrait_of("a", [asked("is lantern harbour a copper linen of", "yes")], (), None)
    other = portrait_of("a", [asked("copper HARBOUR linen lantern", "the wool")], (), None)
    assert one.counts == other.counts
    assert 1 <= sum(one.counts) <= WORDS
    assert one.counts != portrait_of("a", [asked("slate")], (), None).counts


@pytest.mark.parametrize("kind", ["words", "labels"])
def test_one_row_more_changes_no_more_than_noise_is_made_for(kind):
    draw, labels = random.Random(2), LABELS if kind == "labels" else ()
    largest = 0
    for _ in range(60):
        rows = rows_of(kind, draw, 5)
        before, after = (portrait_of("a", some, labels, None) for some in (rows[1:], rows))
        pairs = zip((*before.lengths, *before.counts), (*after.lengths, *after.counts), strict=True)
        largest = max(largest, sum(abs(one - other) for one, other in pairs))
    assert largest == before.sensitivity, "a bound that is never met is too wide"


def test_nothing_of_a_text_is_in_what_is_sent():
    rows = [asked("harbour lantern"), asked("copper")]
    said = str(asdict(portrait_of("a", rows, (), b"salt")))
    assert not any(word in said for word in ("harbour", "lantern", "copper", "yes"))


def test_rows_that_say_the_same_have_one_fingerprint_under_one_salt():
    same = [Classification("A  Row\n", "even"), Classification("a row", "odd")]
    assert len({fingerprint(row, b"salt") for row in same}) == 1
    assert fingerprint(same[0], b"salt") != fingerprint(same[0], b"other")
    assert fingerprint(same[0], b"salt") != fingerprint(Classification("a rows", "even"), b"salt")
    found = portrait_of("a", [*same, same[0]], LABELS, b"salt")
    assert (found.repeated, len(found.fingerprints)) == (2, 1)
    without = portrait_of("a", same, LABELS, None)
    assert (without.repeated, without.fingerprints) == (None, frozenset())


def test_images_are_counted_by_label_and_told_apart_by_their_bytes():
    images = [ImageClassification(Image.of(bytes([value] * 9), (3, 3, 1), "here"), "odd") for value in (1, 1, 2)]
    found = portrait_of("a", images, LABELS, b"salt")
    assert (found.counts, found.repeated, len(found.fingerprints)) == ((0, 3), 1, 2)
    assert found.lengths[4] == 3


def test_noise_is_really_added_and_fingerprints_are_gone():
    rows = rows_of("labels", random.Random(1), 40)
    plain = portrait_of("a", rows, LABELS, b"salt")
    found = [with_noise(plain, 1.0, random.Random(seed).randrange) for seed in range(20)]
    assert len({one.counts for one in found}) > 10
    assert len({one.lengths for one in found}) == 20
    assert all((one.epsilon, one.fingerprints, one.repeated) == (1.0, frozenset(), None) for one in found)
    mean = sum(one.counts[0] for one in found) / 20
    assert mean == pytest.approx(plain.counts[0], abs=3)


def test_a_label_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="'other'"):
        portrait_of("a", [Classification("x", "other")], LABELS, None)


def test_a_length_beyond_all_bins_is_counted_in_the_last():
    found = portrait_of("a", [asked("word " * 70000)], (), None)
    assert found.lengths[-1] == 1
    assert found.shorter_than(0.5) is None
