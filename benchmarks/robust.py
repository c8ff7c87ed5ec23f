"""What attackers do to a federation, and what each defence leaves of it.

    python benchmarks/robust.py --data DIR [--rounds 8] [--rows 60] [--seeds 1 2 3] [--attacks ...] [--defences ...]

DIR holds banking77/train.csv and test.csv (columns text and category). Ten clients with MiniLM-L6 share the rows of the
first classes by name, drawn at random. Nobody attacks, or one does (three, if they collude):

    scaling     sends its change 100 times over            sign flip   sends the opposite, 5 times over
    random      sends noise 10 times as long               free rider  sends what it began from
    colluding   three of ten send one crafted change       label flip  trains on the label after the right one
    backdoor    trains on rows with a word that is to mean one label, and sends its change 5 times over
    absent      is not there at all: what doing without one client costs, attack or not
    loud flip   sends the opposite, 100 times over              quiet flip  sends the opposite, twice over

against nothing, the gate (also with a veto of each client), the norm bound, both, the gate with a wider bound that
drops nobody, and rules with the norm bound. Prints accuracy on test rows; where there is a backdoor, the share of test
rows of other classes that get its label without the word and with it; and by how much the loss on test rows, and the
held-out loss of the seven who never attack, lie above those without attack and defence of the same seed. Writes
results/robust.json after every run, and at the end the table, robust.md; runs that it has with the same options are
not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_federation import ATTACKS, CLIENTS, DEFENCES, Setting, setting

from fedloom.engine.local import LocalEngine
from fedloom.engine.losses import pooled_losses
from fedloom.rounds.assign import common_start, evaluation_assignment
from fedloom.rounds.messages import Dropout
from fedloom.rounds.state import RunState
from fedloom.testing.attacks import attacked_run, scaled

RESULTS = Path(__file__).parent / "results"
Run = Mapping[str, Any]


def judged(found: Setting, loop: Any, state: RunState, judges: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """What each of these judges measures of the global model on its rows."""
    start = common_start(loop.method, state)
    asked = [evaluation_assignment(loop.method, loop.world, state, judge, seed=0, start=start) for judge in judges]
    scores = {}
    for answer in LocalEngine(found.judging).exchange(asked):
        if isinstance(answer, Dropout):
            raise SystemExit(f"{answer.client} could not judge: {answer.reason}")
        scores[answer.assignment.client] = answer.contribution.metrics
    return scores


def one(found: Setting, folder: Path, attack: str, defence: str) -> dict[str, Any]:
    attempt = ATTACKS[attack]
    sites = found.sites[attempt.on_rows]
    attackers = CLIENTS[len(CLIENTS) - attempt.attackers :] if attempt.on_what_is_sent else ()
    experiment = found.experiments[attempt.on_rows].model_copy(update=DEFENCES[defence])
    path = folder / f"{attack} {defence}".replace(" ", "-")
    loop, state = attacked_run(experiment, path, sites, attackers, attempt.on_what_is_sent or scaled(1.0))
    records = loop.records()
    losses = pooled_losses(record for record in records if record.get("client") not in CLIENTS[7:])
    decisions = [record["decision"] for record in records if record["kind"] == "gate"]
    shut_out = [record["client"] for record in records if record["kind"] == "excluded"]
    scores = judged(found, loop, state, ("clean", *(("others", "triggered") if attack == "backdoor" else ())))
    return {
        "attack": attack,
        "defence": defence,
        "seed": found.seed,
        "loss": losses[max(losses)],
        "rejected": decisions.count("rejected"),
        "excluded": shut_out,
        "accuracy": scores["clean"]["accuracy"],
        "test_loss": scores["clean"]["loss"],
        **{judge: scores[judge]["accuracy"] for judge in ("others", "triggered") if judge in scores},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="of each client in a round")
    parser.add_argument("--rows", type=int, default=60, help="of each client")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--test-rows", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--method", default="loom")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=[*ATTACKS])
    parser.add_argument("--defences", nargs="+", choices=DEFENCES, default=[*DEFENCES])
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of robust.json")
    options = parser.parse_args()
    said = {key: getattr(options, key) for key in ("rounds", "steps", "rows", "classes", "test_rows", "method")}
    options.out.mkdir(parents=True, exist_ok=True)
    ran = earlier(options.out / "robust.json", said)
    for seed in options.seeds:
        known = {key_of(run) for run in ran}
        wanted = [(attack, defence, seed) for defence in options.defences for attack in options.attacks]
        if not (missing := [key for key in wanted if key not in known]):
            continue
        with tempfile.TemporaryDirectory() as name:
            found = setting(options, seed, Path(name))
            for attack, defence, _ in missing:
                ran.append(one(found, Path(name), attack, defence))
                print(f"{attack} against {defence}, seed {seed}: accuracy {ran[-1]['accuracy']:.3f}", flush=True)
                text = json.dumps({"options": said, "runs": sorted(ran, key=place)}, indent=2)
                (options.out / "robust.json").write_text(text + "\n", encoding="utf-8")
    (options.out / "robust.md").write_text(table(sorted(ran, key=place)) + "\n", encoding="utf-8")
    print(table(sorted(ran, key=place)))


def key_of(run: Run) -> tuple[str, str, int]:
    return run["attack"], run["defence"], run["seed"]


def place(run: Run) -> tuple[int, int, int]:
    return [*ATTACKS].index(run["attack"]), [*DEFENCES].index(run["defence"]), run["seed"]


def earlier(path: Path, options: Mapping[str, Any]) -> list[Run]:
    """The runs of a file that was made with these options; of any other none, as they cannot be compared."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return list(found["runs"]) if found.get("options") == dict(options) else []


def above(runs: Sequence[Run], usual: Mapping[int, Run], loss: str) -> str:
    """By how many percent a loss lies above that of the usual run of its seed, the mean over seeds and the largest."""
    rises = [100 * (run[loss] / usual[run["seed"]][loss] - 1) for run in runs if run["seed"] in usual]
    if not rises:
        return ""
    usually = _rise(sum(rises) / len(rises))
    return usually if len(rises) == 1 else f"{usually} (at most {_rise(max(rises))})"


def _rise(percent: float) -> str:
    return f"{percent:+.1f} %" if percent < 1000 else f"{1 + percent / 100:.0f} times"


def table(ran: Sequence[Run]) -> str:
    """Markdown, means over seeds: accuracy, and how far losses are above those without attack and defence."""
    usual = {run["seed"]: run for run in ran if (run["attack"], run["defence"]) == ("none", "nothing")}
    heads = ["attack", "defence", "seeds", "accuracy", "test loss", "above no attack", "held-out loss above"]
    heads += ["turned by the word", "rejected", "shut out"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "--:|" * (len(heads) - 2)]
    for attack, defence in dict.fromkeys((run["attack"], run["defence"]) for run in ran):
        runs = [run for run in ran if (run["attack"], run["defence"]) == (attack, defence)]
        backdoored = attack == "backdoor"
        turned = f"{100 * mean(runs, 'others'):.1f} to {100 * mean(runs, 'triggered'):.1f}" if backdoored else ""
        cells = [attack, defence, str(len(runs)), f"{100 * mean(runs, 'accuracy'):.1f}"]
        cells += [f"{mean(runs, 'test_loss'):.3f}", above(runs, usual, "test_loss"), above(runs, usual, "loss"), turned]
        shut_out = ", ".join(sorted({client for run in runs for client in run["excluded"]}))
        lines.append("| " + " | ".join([*cells, str(sum(run["rejected"] for run in runs)), shut_out]) + " |")
    return "\n".join(lines)


def mean(runs: Sequence[Run], key: str) -> float:
    return sum(run[key] for run in runs) / len(runs)


if __name__ == "__main__":
    main()
