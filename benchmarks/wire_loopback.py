"""Bytes of a run on the loopback interface, by method and wire format: a server and three sites, real processes, TLS.

    python benchmarks/wire_loopback.py [--rounds 3] [--steps 6] [--base smollm2-135m-instruct] [--methods loom ..]

Here every hop of Flower is on one interface (server app, SuperLink, SuperNode, client app, each its own process), so
that a message is counted about three times; between machines it travels once. What the interface carries while nobody
trains (polling) is measured before each run and taken off for its seconds. Both are set against the same method in
float32, and the held-out loss beside them. Writes results/wire_loopback.json and .md; goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from deployment import DATA, RESULTS, on_loopback, payload, pilot

from fedloom.engine.losses import pooled_losses
from fedloom.testing.deployment import Deployment

METHODS = ("zeropad", "ffa", "loom", "flora")  # for unequal ranks
FORMATS = (("float32", "float32"), ("int4", "int8"), ("int4", "int4"))
AIM = 0.25
IDLE_SECONDS = 10.0


def measured(base: str, rounds: int, steps: int, method: str, up: str, down: str) -> dict[str, float]:
    """Megabytes of a round and client on the interface and in messages, both ways, and the last held-out loss."""
    with tempfile.TemporaryDirectory() as folder:
        path = pilot(Path(folder), base, rounds, steps)
        tables = f'\n[method]\nname = "{method}"\n\n[wire]\nup = "{up}"\ndown = "{down}"\n'
        path.write_text(path.read_text(encoding="utf-8") + tables, encoding="utf-8")
        deployment = Deployment(path, DATA)
        try:
            deployment.begin()
            idle = polling()
            before, began = on_loopback(), time.monotonic()
            deployment.run()
            carried = on_loopback() - before - idle * (time.monotonic() - began)
            sent, losses = payload(deployment), pooled_losses(deployment.records("evaluation"))
        finally:
            deployment.end()
    each = rounds * len(DATA) * 1e6
    return {"loopback": carried / each, "messages": sent / each, "loss": losses[rounds], "polling": idle / 1e6}


def polling() -> float:
    """Bytes a second that the interface carries while nobody trains."""
    before = on_loopback()
    time.sleep(IDLE_SECONDS)
    return (on_loopback() - before) / IDLE_SECONDS


def as_markdown(cells: Sequence[Mapping[str, Any]]) -> str:
    """A row for each method and format, with its shares of the method's bytes, and of FLoRA's, in float32."""
    plain = {cell["method"]: cell for cell in cells if (cell["up"], cell["down"]) == FORMATS[0]}
    lines = [
        "| method | up | down | MB on loopback | of float32 | MB in messages | of float32 | of FLoRA in float32 "
        "| held-out loss | above float32 |",
        "|---|---|---|" + "---:|" * 7,
    ]
    for cell in cells:
        exact, flora = plain[cell["method"]], plain.get("flora")
        of_flora = f"{cell['loopback'] / flora['loopback']:.3f}" if flora else ""
        shares = [f"{cell[name]:.2f} | {cell[name] / exact[name]:.3f}" for name in ("loopback", "messages")]
        lines.append(
            f"| `{cell['method']}` | {cell['up']} | {cell['down']} | {' | '.join(shares)} | {of_flora} "
            f"| {cell['loss']:.4f} | {cell['loss'] - exact['loss']:+.4f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    setting = {name: getattr(options, name) for name in ("rounds", "steps", "base")}
    path = options.out / "wire_loopback.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    for method, (up, down) in product(options.methods, FORMATS):
        key = {**setting, "method": method, "up": up, "down": down}
        if not any(key.items() <= cell.items() for cell in known):
            known.append({**key, **measured(**key)})
            path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    cells = [cell for cell in known if setting.items() <= cell.items() and cell["method"] in options.methods]
    print(table := as_markdown(cells))
    plain = {cell["method"]: cell["loopback"] for cell in cells if (cell["up"], cell["down"]) == FORMATS[0]}
    compact = [cell for cell in cells if (cell["up"], cell["down"]) != FORMATS[0]]
    within = sum(cell["loopback"] <= AIM * plain[cell["method"]] for cell in compact)
    print(f"{within} of {len(compact)} compact runs take at most {AIM:.0%} of float32 on the interface")
    (options.out / "wire_loopback.md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
