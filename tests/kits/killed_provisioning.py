"""Run by test_kill_kits.py in a process of its own: makes kits in forked children and kills each at another call."""

import json
import os
import sys
from functools import partial
from pathlib import Path

from killed_rounds import kill_at

from fedloom.errors import KitError
from fedloom.kits.add import add_clients
from fedloom.kits.provision import provision
from fedloom.kits.read_client import read_client_kit
from fedloom.kits.read_server import read_server_kit
from fedloom.spec.experiment import ClientTable, Experiment

TWO = Experiment(clients=(ClientTable(name="a"), ClientTable(name="b")))
THREE = Experiment(clients=(*TWO.clients, ClientTable(name="c")))


def killed_child(work, out, names, number):
    child = os.fork()
    if child == 0:
        kill_at(names, number)
        work(out)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def found(out):
    """What is there after the kill: nothing, an incomplete list of clients, or everything that is visible sound."""
    if not out.exists():
        return "nothing"
    for kit in (out / "clients").iterdir():
        if not kit.name.startswith("."):
            read_client_kit(kit)
    try:
        return ",".join(sorted(read_server_kit(out / "server").clients))
    except KitError as error:
        return "add again" if "--add" in str(error) else str(error)


def kills(folder, names, prepare, work, complete):
    """For every call: what was found, and what after doing it again."""
    outcomes, number, killed = [], 1, True
    while killed:
        out = folder / str(number) / "kits"
        out.parent.mkdir(parents=True)
        prepare(out)
        killed = killed_child(work, out, names, number)
        first = found(out)
        if first != complete:
            work(out)
        hidden = [str(path) for path in out.parent.rglob(".*.tmp-*")]
        outcomes.append({"killed": killed, "found": first, "then": found(out), "hidden": hidden})
        number += 1
    return outcomes


def main(folder, names):
    new = kills(folder / "new", names, Path.exists, partial(provision, TWO), "a,b")
    added = kills(folder / "add", names, partial(provision, TWO), partial(add_clients, THREE), "a,b,c")
    print(json.dumps({"new": new, "add": added}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
