"""A client's whole model as it was measured last, in one file at its site. It never travels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.io import from_bytes, to_bytes
from fedloom.aggregation.world import Mixing, Start
from fedloom.errors import AdapterError, CheckpointDamagedError, RunError
from fedloom.spec.experiment import Experiment
from fedloom.store.durable import cannot_write, make_directory
from fedloom.store.unfinished import remove_abandoned, replace_file

FILE = "model.safetensors"
FORMAT, VERSION = "fedloom.own_model", 1
_FORMAT, _VERSION, _DIGEST, _ABOUT = "format", "version", "digest", "about"
_ADAPTERS = frozenset({"trainable", "trunk", "rest"})
_MATRIX, _MIXER, _HEAD = "matrix|", "mixer|", "head|"
_AGAIN = "It is written anew when the run measures this client again; or put the file back from a copy"


@dataclass(frozen=True)
class OwnModel:
    """Whose model, after which round, and all that is needed to use it where its base is.

    start: without a borrowing, as the client has taken itself out.  head: the trainables that are not LoRA, by name.
    facts: JSON values that stay the same during the run, as the client knows them: base_digest, labels, and in rows the
        digest of its own.  experiment: as the client knows it, its data and base where they are at the site.
    """

    client: str
    round: int
    start: Start
    head: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    experiment: Experiment = field(repr=False)


def save_own_model(directory: Path, model: OwnModel) -> None:
    """Put a model in the place of the one that was there, durably; until then the old one stays, whole.

    directory: the client's own, as of `ClientStore`; it is made if it is missing.
    Raises: RunError if it cannot be written; AdapterError for a dtype that files do not have.
    """
    path = directory / FILE
    intact = "What the client keeps for the run, and its model of an earlier round, are intact"
    data = _to_bytes(model)
    try:
        make_directory(directory)
    except OSError as error:
        raise cannot_write(error, path, needed_bytes=len(data), intact=intact, again="let it be measured") from error
    remove_abandoned(path)
    replace_file(path, data, intact=intact, again="let it be measured")


def load_own_model(directory: Path) -> OwnModel:
    """The model again, bit for bit.

    Raises: RunError if it cannot be read, or is of another version; CheckpointDamagedError if it is not as written.
    """
    path = directory / FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError("this client's model cannot be read", where=path, found=error.strerror) from error
    try:
        adapters, tensors, facts = from_bytes(data, where=str(path))
    except AdapterError as error:
        raise _damaged(path, error.what) from error
    found = f"{facts.get(_FORMAT)} {facts.get(_VERSION)}"
    if found != f"{FORMAT} {VERSION}":
        do = "Use the version of fedloom that wrote it"
        raise RunError("another version", where=path, expected=f"{FORMAT} {VERSION}", found=found, do=do)
    if adapters.keys() != _ADAPTERS or facts.get(_DIGEST) != _digest(adapters, tensors, facts.get(_ABOUT, "")):
        raise _damaged(path, "other numbers than were written")
    return _from_parts(adapters, tensors, facts[_ABOUT], path)


def _to_bytes(model: OwnModel) -> bytes:
    start = model.start
    adapters = {"trainable": start.trainable, "trunk": start.trunk, "rest": start.rest}
    tensors = {
        **{_MATRIX + module: matrix for module, matrix in start.matrices.items()},
        **{_MIXER + module: mixer for module, mixer in start.mixers.items()},
        **{_HEAD + name: tensor for name, tensor in model.head.items()},
    }
    about = json.dumps(
        {
            "client": model.client,
            "round": model.round,
            "mixing": None if start.mixing is None else asdict(start.mixing),
            **({} if start.borrows is None else {"borrows": start.borrows}),
            "facts": dict(model.facts),
            "experiment": model.experiment.model_dump(mode="json"),
        },
        sort_keys=True,
    )
    facts = {_FORMAT: FORMAT, _VERSION: str(VERSION), _ABOUT: about, _DIGEST: _digest(adapters, tensors, about)}
    return to_bytes(adapters, tensors, facts=facts)


def _digest(adapters: Mapping[str, Adapter], tensors: Mapping[str, Tensor], about: str) -> str:
    """Of names, shapes, dtypes, numbers and facts; without a copy of them, as a trunk may be as large as its base."""
    digest = hashlib.sha256(about.encode())
    for name, adapter in sorted(adapters.items()):
        digest.update(f"{name}|{adapter.digest()}|".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _from_parts(adapters: Mapping[str, Adapter], tensors: Mapping[str, Tensor], about: str, path: Path) -> OwnModel:
    """Raises: RunError for facts that this version does not know, though they are as they were written."""
    try:
        table = json.loads(about)
        mixing = None if table["mixing"] is None else Mixing(**table["mixing"])
        borrows = None if table.get("borrows") is None else float(table["borrows"])
        experiment = Experiment.model_validate(table["experiment"])
        client, round, facts = table["client"], table["round"], table["facts"]
    except (ValueError, KeyError, TypeError) as error:
        do = "Use the version of fedloom that wrote it"
        found = _first_of(error) if isinstance(error, ValidationError) else repr(error)
        raise RunError("its facts are not those of this version", where=path, found=found, do=do) from error
    start = Start(
        trainable=adapters["trainable"],
        trunk=adapters["trunk"],
        rest=adapters["rest"],
        matrices=_under(_MATRIX, tensors),
        mixers=_under(_MIXER, tensors),
        mixing=mixing,
        borrows=borrows,
    )
    return OwnModel(client, round, start, _under(_HEAD, tensors), facts, experiment)


def _first_of(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _damaged(path: Path, found: str) -> CheckpointDamagedError:
    return CheckpointDamagedError("this client's model is damaged", where=path, found=found, do=_AGAIN)
