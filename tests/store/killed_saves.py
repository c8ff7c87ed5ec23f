"""Run by test_client_store.py in a process of its own: saves in forked children and kills each at another call."""

import json
import os
import sys
from pathlib import Path

import torch
from killed_rounds import kill_at

from fedloom.store.client_store import ClientStore

torch.set_num_threads(1)


def value(number):
    return {"m|b": torch.full((3, 2), float(number))}


def killed_child(store, names, number):
    """Whether a child that saves round 2 once more, as 9, was killed at that call."""
    child = os.fork()
    if child == 0:
        kill_at(names, number)
        store.forget_after(1)
        store.save(2, value(9))
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(folder, names):
    kills, number, killed = [], 1, True
    while killed:
        store = ClientStore(folder / str(number) / "clients" / "a")
        store.save(1, value(1))
        store.save(2, value(2))
        killed = killed_child(store, names, number)
        found = {round: store.load(round)["m|b"][0, 0].item() for round in store.rounds()}
        store.forget_after(1)
        store.save(2, value(9))
        left = sorted(entry.name for entry in store.directory.iterdir())
        kills.append({"found": found, "after": store.load(2)["m|b"][0, 0].item(), "left": left})
        number += 1
    print(json.dumps(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
