"""scikit-learn's digits through the whole program: every kind of file, divided by label, interrupted and resumed."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

import fedloom
from fedloom.data.clients import Sources
from fedloom.engine.events import ClientBegins
from fedloom.testing.tiny import tiny_vit
from tests.some import mostly_slow

datasets = pytest.importorskip("datasets")
digits = pytest.importorskip("sklearn.datasets").load_digits()
picture = pytest.importorskip("PIL.Image")
IMAGES = np.round(digits.images * (255 / 16)).astype(np.uint8)[:400]
LABELS = [f"digit {target}" for target in digits.target[:400]]

CONFIG = """\
name = "digits"
[model]
id = "model"
task = "image-classification"
dtype = "float32"
[method]
name = "{method}"
[training]
rounds = 2
local_steps = {steps}
batch_size = 32
learning_rate = 0.02
head_learning_rate = 0.05
[data]
source = "{source}"
partition = {partition}
"""
BY_LABEL = '{kind = "column", column = "label"}'
MIXED = '{kind = "dirichlet", column = "label", alpha = 2.0}'
CLIENT = '[[clients]]\nname = "site-{number}"\nrank = {rank}\n'


def png(image):
    buffer = io.BytesIO()
    picture.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def jsonl(folder):
    lines = (json.dumps({"image": i.tolist(), "label": label}) for i, label in zip(IMAGES, LABELS, strict=True))
    (folder / "all.jsonl").write_text("\n".join(lines))
    return "all.jsonl"


def table_of_paths(folder):
    (folder / "scans").mkdir()
    with (folder / "all.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_path", "label"])
        for number, image in enumerate(IMAGES):
            (folder / "scans" / f"{number}.png").write_bytes(png(image))
            writer.writerow([f"scans/{number}.png", LABELS[number]])
    return "all.csv"


def columns():
    return {"image": [{"bytes": png(image), "path": None} for image in IMAGES], "label": LABELS}


def parquet(folder):
    datasets.Dataset.from_dict(columns()).to_parquet(folder / "all.parquet")
    return "all.parquet"


def hugging_face(folder):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=sorted(set(LABELS)))})
    datasets.Dataset.from_dict(columns(), features=features).save_to_disk(folder / "saved")
    return f"hf:{folder / 'saved'}"


WAYS = {"jsonl": jsonl, "csv": table_of_paths, "parquet": parquet, "hugging face": hugging_face}


def federation(folder, *, way="jsonl", ranks=(8, 2), method="loom", partition=BY_LABEL, steps=1):
    folder.mkdir(exist_ok=True)
    tiny_vit(folder / "model", labels=4)
    text = CONFIG.format(method=method, steps=steps, source=WAYS[way](folder), partition=partition)
    text += "".join(CLIENT.format(number=number, rank=rank) for number, rank in enumerate(ranks))
    (folder / "pilot.toml").write_text(text)
    return fedloom.load(folder / "pilot.toml")


@pytest.fixture(scope="module")
def from_jsonl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jsonl")
    return fedloom.run(federation(folder), root=folder / "runs")


@pytest.mark.parametrize("way", mostly_slow([way for way in WAYS if way != "jsonl"], "csv", "hugging face"))
def test_the_same_images_give_the_same_model_however_they_are_stored(way, from_jsonl, tmp_path):
    assert fedloom.run(federation(tmp_path / "site", way=way), root=tmp_path / "runs").digest == from_jsonl.digest


def test_clients_of_one_label_each_come_closer_to_all_labels_together(tmp_path):
    experiment = federation(tmp_path / "site", ranks=(8, 8, 4, 4, 4, 2, 2, 2, 1, 1), steps=8)
    sources = Sources(experiment)
    held = [{example.label for example in sources.client(client.name).train} for client in experiment.clients]
    assert all(len(labels) == 1 for labels in held)
    assert set.union(*held) == set(LABELS)
    summary = fedloom.run(experiment, root=tmp_path / "runs").summary
    assert summary.federated.pooled.loss < summary.base.pooled.loss


@pytest.mark.parametrize("method", mostly_slow(["rbla", "zeropad"], "zeropad"))
def test_other_methods_learn_too(method, tmp_path):
    result = fedloom.run(
        federation(tmp_path / "site", method=method, partition=MIXED, steps=40), root=tmp_path / "runs"
    )
    assert result.summary.federated.pooled.accuracy > max(0.4, result.summary.base.pooled.accuracy + 0.2)


def test_an_interrupted_run_goes_on_to_the_same_model(from_jsonl, tmp_path):
    def interrupt(event):
        if isinstance(event, ClientBegins) and event.kind == "train" and event.round == 2:
            raise KeyboardInterrupt

    experiment = federation(tmp_path / "site")
    with pytest.raises(KeyboardInterrupt):
        fedloom.run(experiment, root=tmp_path / "runs", observe=interrupt)
    resumed = fedloom.resume(tmp_path / "runs" / "digits")
    assert resumed.digest == from_jsonl.digest
    assert resumed.summary.resumed
