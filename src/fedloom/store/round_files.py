"""A round's state as files, and back: equal values give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.io import from_bytes, to_file
from fedloom.adapters.sums import Identities, written_out
from fedloom.aggregation.world import GlobalState
from fedloom.errors import CheckpointDamagedError
from fedloom.store.checkpoint import Content, Written
from fedloom.store.json_values import canonical, json_values

ADAPTER_FILE = "adapter.safetensors"
STATE_FILE = "state.json"
_CLIENTS, _RESTS, _EXTRAS, _HEAD, _MOMENTUM = "clients/", "rests/", "extras/", "head/", "momentum/"


def to_files(
    round: int, state: GlobalState, head: Mapping[str, Tensor], metrics: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Content]:
    """adapter.safetensors: shared, trunk, momentum, clients/NAME, rests/NAME; tensors extras/, head/, and
    momentum/MODULE where the momentum is a matrix; state.json: the rest."""
    clients = {_CLIENTS + client: adapter for client, adapter in state.clients.items()}
    clients |= {_RESTS + client: adapter for client, adapter in state.rests.items()}
    matrices = _matrices(state.momentum)
    thin = Adapter({module: factors for module, factors in state.momentum.items() if module not in matrices})
    tensors = _prefixed(_EXTRAS, state.extras) | _prefixed(_HEAD, head) | _prefixed(_MOMENTUM, matrices)
    adapters = {"shared": state.shared, "trunk": state.trunk, "momentum": thin} | clients
    table = {
        "round": round,
        "rounds": state.rounds,
        "ranks": json_values(state.ranks),
        "metrics": json_values(metrics),
        "facts": json_values(facts),
    }
    return {
        ADAPTER_FILE: _large(adapters, tensors, {"round": str(round)}),
        STATE_FILE: canonical(table).encode() + b"\n",
    }


def from_files(files: Mapping[str, bytes], *, where: str) -> tuple[GlobalState, dict[str, Tensor], dict[str, Any]]:
    """(state, head, content of state.json). Raises: CheckpointDamagedError, AdapterError for files of another kind."""
    missing = {ADAPTER_FILE, STATE_FILE} - files.keys()
    if missing:
        raise CheckpointDamagedError("a file of the round is missing", where=where, expected=min(missing))
    adapters, tensors, _ = from_bytes(files[ADAPTER_FILE], where=f"{where}/{ADAPTER_FILE}")
    table = json.loads(files[STATE_FILE])
    state = GlobalState(
        shared=adapters["shared"],
        trunk=adapters["trunk"],
        clients=_under(_CLIENTS, adapters),
        rests=_under(_RESTS, adapters),
        momentum=_momentum(adapters["momentum"], _under(_MOMENTUM, tensors)),
        ranks=table["ranks"],
        extras=_under(_EXTRAS, tensors),
        rounds=table["rounds"],
    )
    return state, _under(_HEAD, tensors), table


def _large(adapters: Mapping[str, Adapter], tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> Written:
    sides = [side for adapter in adapters.values() for factors in adapter.values() for side in (factors.a, factors.b)]
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*sides, *tensors.values()))
    return Written(lambda path: to_file(path, adapters, tensors, facts=facts), size)


def _matrices(momentum: Adapter) -> dict[str, Tensor]:
    """module -> its momentum, where that is written out: with many clients no factors of it are smaller."""
    found = {module: written_out(factors) for module, factors in momentum.items()}
    return {module: matrix for module, matrix in found.items() if matrix is not None}


def _momentum(thin: Adapter, matrices: Mapping[str, Tensor]) -> Adapter:
    identities = Identities()
    return Adapter({**thin, **{module: identities.factors(matrix) for module, matrix in matrices.items()}})


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _under(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
