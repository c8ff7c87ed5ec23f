"""A federation of images on the command line: every command, and every way in which an image can be wrong."""

from __future__ import annotations

import json
import re

import pytest

from fedloom.testing.tiny import tiny_vit


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def second_row(pilot, value):
    """Put another image into row 2 of site-1."""
    path = pilot.parent / "site-1.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["image"] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def cut_file(pilot):
    picture = pytest.importorskip("PIL.Image").new("L", (8, 8), 128)
    picture.save(pilot.parent / "whole.png")
    (pilot.parent / "cut.png").write_bytes((pilot.parent / "whole.png").read_bytes()[:-20])
    second_row(pilot, "cut.png")


PLACE = r"site-1.*row 2, column 'image': "
BAD = {
    "no file": (lambda p: second_row(p, "nowhere.png"), PLACE + r".*nowhere\.png"),
    "not an image": (lambda p: second_row(p, "site-0.jsonl"), PLACE + "not an image"),
    "cut": (cut_file, PLACE + ".*damaged"),
    "too bright": (lambda p: second_row(p, [[0, 300]]), PLACE + ".*found 300"),
    "other size": (lambda p: second_row(p, [[0] * 4] * 8), PLACE + ".*expected 8 x 8, found 8 x 4"),
    "colours": (lambda p: second_row(p, [[[1, 2, 3]] * 8] * 8), PLACE + ".*channels.*expected 1, found 3"),
    "no column": (
        lambda p: (p.parent / "site-1.jsonl").write_text('{"x": 1, "label": "a"}'),
        "no column for the image",
    ),
    "a text of an image": (lambda p: edit(p, "batch_size", "max_tokens = 9\nbatch_size"), "max_tokens: is for"),
    "a convolution": (
        lambda p: edit(p, "[method]", '[lora]\ntargets = ["projection"]\n[method]'),
        "projection.*not a linear layer.*Conv2d",
    ),
    "a model of texts": (lambda p: (p.parent / "model" / "config.json").write_text('{"model_type": "llama"}'), "image"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_image_is_named_and_nothing_is_written(bad, fedloom, images, tmp_path):
    spoil, expected = BAD[bad]
    spoil(images)
    for command, options in (("check", []), ("run", ["--root", tmp_path / "runs"])):
        outcome = fedloom(command, images, *options)
        assert outcome.code == 2, outcome
        assert "Traceback" not in outcome.err
        message = outcome.err.replace("\n", " ")
        assert re.search(expected, message), message
    assert not (tmp_path / "runs" / "tiny").exists()


def test_every_command_speaks_of_images(fedloom, images, tmp_path):
    assert "3 clients" in " ".join(fedloom("check", images).out.split())
    ran = fedloom("run", images, "--root", tmp_path)
    assert ran.code == 0, ran.err
    assert "images/s" in ran.out
    assert "Held-out images" in ran.out
    assert "Accuracy" in ran.out
    assert "token" not in ran.out
    assert "accuracy" in fedloom("evaluate", tmp_path / "tiny").out
    assert fedloom("report", tmp_path / "tiny").code == 0
    assert fedloom("resume", tmp_path / "tiny").code == 0
    for options in ([], ["--merge"]):
        assert fedloom("export", tmp_path / "tiny", "--to", tmp_path / f"out{len(options)}", *options).code == 0
    compared = fedloom("compare", images, "--methods", "loom,rbla", "--root", tmp_path)
    assert compared.code == 0, compared.err
    assert "Accuracy" in compared.out


def test_another_base_of_images_is_refused(fedloom, images, tmp_path):
    assert fedloom("run", images, "--root", tmp_path).code == 0
    tiny_vit(images.parent / "model", seed=1)
    outcome = fedloom("resume", tmp_path / "tiny")
    assert outcome.code == 2
    assert "other weights" in outcome.err
