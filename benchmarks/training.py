"""Tokens of real text per second: FedLoom's training loop against transformers' Trainer with PEFT.

Both start from the same factors, train once over the same rows with the same batch size, rates, optimizer and dtype,
and learn the response only. They take turns of a few steps in one process, so that whatever else the machine does hits
both. The Trainer pads to the longest row of a batch (DataCollatorForSeq2Seq), without gradient checkpointing; in
bfloat16 the faster of its two ways is taken: the model loaded in bfloat16, or a float32 model with bf16=True.

    python benchmarks/training.py --data DIRECTORY_WITH_JSON_FILES
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments
from turns import Lap, Turns

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Start
from fedloom.data.batches import evaluation_batches, training_batches
from fedloom.data.examples import Generation, Message
from fedloom.data.tokens import Encoded, encode_all
from fedloom.rounds.messages import Assignment, LocalWork
from fedloom.spec.experiment import LoraTable, ModelTable
from fedloom.training.base_model import BaseModel, load_base
from fedloom.training.local import train
from fedloom.training.lora_layer import load_start
from fedloom.training.measure import held_out_loss
from fedloom.training.peft_files import load_peft

RANK, SCALING, BATCH, MAX_TOKENS, RATE, WARMUP = 16, 2.0, 8, 512, 5e-4, 0.05
SEED = 7


class InTurns(TrainerCallback):
    """Makes the Trainer take turns."""

    def __init__(self, turns: Turns, lap: Lap) -> None:
        self.turns, self.lap = turns, lap

    def on_log(self, *_: Any, logs: dict | None = None, **__: Any) -> None:
        if logs and "loss" in logs:
            self.turns.after_step(self.lap, float(logs["loss"]))


def read_rows(directory: Path) -> list[Generation]:
    """The rows of all site files of databricks-dolly-15k, in an order drawn once."""
    rows = []
    for path in sorted(directory.glob("local_training_*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            question = "\n\n".join(part for part in (row["instruction"], row["context"]) if part.strip())
            if row["response"].strip():
                rows.append(Generation((Message("user", question), Message("assistant", row["response"]))))
    random.Random(SEED).shuffle(rows)
    return rows


def peft_model(base: BaseModel, dtype: torch.dtype) -> Any:
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(base.source, dtype=dtype)
    suffixes = sorted({name.rpartition(".")[2] for name in base.modules})
    config = LoraConfig(r=RANK, lora_alpha=round(RANK * SCALING), target_modules=suffixes, task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def trainer(model: Any, base: BaseModel, rows: list[Encoded], autocast: bool, callbacks: list) -> Trainer:
    columns = [{"input_ids": list(row.input_ids), "labels": list(row.labels)} for row in rows]
    for row in columns:
        row["attention_mask"] = [1] * len(row["input_ids"])
    steps = steps_for(rows)
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=RATE,
        lr_scheduler_type="cosine",
        warmup_steps=round(WARMUP * steps),
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=autocast,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=SEED,
        data_seed=SEED,
    )
    collator = DataCollatorForSeq2Seq(base.tokenizer, padding="longest")
    made = Trainer(model=model, args=arguments, train_dataset=columns, data_collator=collator, callbacks=callbacks)
    made.remove_callback(transformers.PrinterCallback)
    return made


def steps_for(rows: list[Encoded]) -> int:
    return -(-len(rows) // BATCH)


def assignment(base: BaseModel, adapter: Adapter, steps: int) -> Assignment:
    work = LocalWork(steps, 0, steps, BATCH, 1, RATE, RATE, "cosine", WARMUP, 0.0, 1.0, MAX_TOKENS, 0.0)
    return Assignment("train", 1, "benchmark", Start(adapter), dict.fromkeys(base.modules, "ab"), {}, SEED, work)


def batches(base: BaseModel, rows: list[Encoded]) -> Any:
    return training_batches(rows, BATCH, steps_for(rows), SEED, base.tokenizer.pad_token_id, "generation")


def seconds_of(action: Any) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def fastest_baseline(base: BaseModel, rows: list[Encoded], console: Console) -> tuple[str, torch.dtype, bool, dict]:
    """Name, dtype to load and autocast of the Trainer's fastest way on a few rows, and the seconds of all ways."""
    ways = {"float32": (torch.float32, False)}
    if base.dtype == torch.bfloat16:
        ways = {"loaded in bfloat16": (torch.bfloat16, False), "bf16=True": (torch.float32, True)}
    seconds: dict[str, float] = {}
    for _ in range(2):  # the first time includes the compilation of kernels
        for name, (dtype, autocast) in ways.items():
            made = trainer(peft_model(base, dtype), base, rows, autocast, [])
            seconds[name] = seconds_of(made.train)
    best = min(seconds, key=lambda name: seconds[name])
    console.print("Trainer on a trial of", len(rows), "rows:", ", ".join(f"{n}: {s:.1f} s" for n, s in seconds.items()))
    return best, *ways[best], seconds


def race(base: BaseModel, rows: list[Encoded], dtype: torch.dtype, autocast: bool) -> tuple[Lap, Lap]:
    """Both contenders over all rows, in turns, from the same factors."""
    ours, theirs = Lap("FedLoom"), Lap("Trainer + PEFT")
    turns = Turns((ours, theirs))
    model = peft_model(base, dtype)
    start = adapter_of(model, base)
    made = trainer(model, base, rows, autocast, [InTurns(turns, theirs)])
    failures: list[BaseException] = []

    def run_ours() -> None:
        job = assignment(base, start, steps_for(rows))
        ours.adapter = train(base, job, batches(base, rows), lambda step: turns.after_step(ours, step.loss)).adapter

    def run_theirs() -> None:
        made.train()
        theirs.adapter = adapter_of(model, base)

    def guarded(lap: Lap, action: Any) -> None:
        turns.begin(lap)
        try:
            action()
        except BaseException as problem:
            failures.append(problem)
        turns.hand_over(lap, last=True)

    threads = [threading.Thread(target=guarded, args=pair) for pair in ((ours, run_ours), (theirs, run_theirs))]
    for thread in threads:
        thread.start()
    turns.may_run[theirs.name].release()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return ours, theirs


def adapter_of(model: Any, base: BaseModel) -> Adapter:
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        return load_peft(Path(directory), base.modules)


def held_out(base: BaseModel, adapter: Adapter, rows: list[Encoded]) -> float:
    load_start(base, Start(adapter), {})
    return held_out_loss(base, evaluation_batches(rows, 4096, base.tokenizer.pad_token_id, "generation"))["loss"]


def quarters(losses: list[float]) -> list[float]:
    """Mean loss of each quarter of the steps."""
    edges = [round(len(losses) * part / 4) for part in range(5)]
    return [sum(losses[a:b]) / max(b - a, 1) for a, b in itertools.pairwise(edges)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory with local_training_*.json")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--rows", type=int, default=400, help="rows to train on, at most")
    parser.add_argument("--minutes", type=float, default=10.0, help="fewer rows are taken if they would need longer")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training.json")
    options = parser.parse_args()
    console = Console()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    base = load_base(ModelTable(id=options.model, dtype=options.dtype), LoraTable(), None, MAX_TOKENS)
    everything = encode_all(read_rows(options.data)[: options.rows + 100], base.tokenizer, MAX_TOKENS, client="all")
    evaluation, rows = everything[:100], everything[100:]
    trial = rows[: 4 * BATCH]
    way, dtype, autocast, trial_seconds = fastest_baseline(base, trial, console)
    warm = adapter_of(peft_model(base, dtype), base)
    for _ in range(2):
        own = seconds_of(
            lambda: train(base, assignment(base, warm, steps_for(trial)), batches(base, trial), lambda _: None)
        )
    affordable = int(options.minutes * 60 / (own + trial_seconds[way]) * len(trial)) // BATCH * BATCH
    rows = rows[: max(affordable, len(trial))]

    laps = race(base, rows, dtype, autocast)
    measured = {
        "model": options.model,
        "dtype": str(base.dtype),
        "rows": len(rows),
        "tokens": sum(len(row.input_ids) for row in rows),
        "batch_rows": BATCH,
        "rank": RANK,
        "baseline": way,
        "trial_seconds": trial_seconds,
        "held_out_loss_before": held_out(base, warm, evaluation),
        "contenders": {lap.name: outcome(base, lap, evaluation) for lap in laps},
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }
    report(console, measured)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


def outcome(base: BaseModel, lap: Lap, evaluation: list[Encoded]) -> dict[str, Any]:
    return {"seconds": lap.seconds, "losses": lap.losses, "held_out_loss": held_out(base, lap.adapter, evaluation)}


def report(console: Console, measured: dict[str, Any]) -> None:
    """Print the table, and add what follows from the measurements to them."""
    table = Table(title="{model}, {dtype}: {rows} rows, {tokens} tokens, rank {rank}".format(**measured))
    for column in ("", "seconds", "tokens of text/s", "training loss by quarter", "held-out loss"):
        table.add_column(column)
    for name, lap in measured["contenders"].items():
        lap["tokens_per_second"] = measured["tokens"] / lap["seconds"]
        curve = " ".join(f"{value:.3f}" for value in quarters(lap["losses"]))
        table.add_row(
            name, f"{lap['seconds']:.1f}", f"{lap['tokens_per_second']:.0f}", curve, f"{lap['held_out_loss']:.4f}"
        )
    console.print(table)
    ours, theirs = measured["contenders"].values()
    measured["times_as_fast"] = theirs["seconds"] / ours["seconds"]
    measured["held_out_difference"] = abs(ours["held_out_loss"] / theirs["held_out_loss"] - 1)
    console.print(
        "{times_as_fast:.2f} times as fast as the Trainer ({baseline}). Held-out loss before: "
        "{held_out_loss_before:.4f}; after, the two differ by {held_out_difference:.2%}.".format(**measured)
    )


if __name__ == "__main__":
    main()
