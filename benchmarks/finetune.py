"""recipe=smollm2_lora against trl's SFTTrainer with PEFT: the same rows, precision and samples, in turn, as programs.

    OMP_NUM_THREADS=2 python -m benchmarks.finetune MODEL TRAIN.jsonl [--rounds 3] [--steps 4] [--full] [--compile]
    OMP_NUM_THREADS=2 python -m benchmarks.finetune MODEL TRAIN.jsonl --heldout HELDOUT.jsonl --lr 3e-4 1e-3 [--full]

The first measures: useful tokens/s (padding is none) without the first step, and the peak memory of the process; the
ratio of each pair, and the medians. The second trains both on TRAIN, trl once for each learning rate and ours with the
one that was best for trl, each once for each seed (the order of samples and A's first values move the result by more
than a hundredth), and scores both with transformers on HELDOUT: nats for each token that the assistant says, and how
much of trl's fall ours reaches. trl has to be installed (pip install trl peft).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.finetune_rivals import hide_xla

ROOT = Path(__file__).resolve().parent.parent
RIVAL = ROOT / "benchmarks" / "finetune_rivals.py"


@dataclass(frozen=True)
class Measured:
    """tokens_per_second: useful ones, without the first step. memory: peak of the process, GiB. seconds: in all."""

    tokens_per_second: float
    memory: float
    seconds: float


def run(command: list[str], cwd: Path) -> tuple[str, float, float]:
    """Output, peak memory in GiB and seconds of a program. Raises RuntimeError with its output where it fails."""
    begin = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        out.seek(0)
        said = out.read().decode(errors="replace")
    if status:
        raise RuntimeError(f"{command[:3]} failed\n{said[-3000:]}")
    return said, usage.ru_maxrss / 2**20, time.perf_counter() - begin


def ours(asked: argparse.Namespace, cwd: Path, steps: int, lr: float, *more: str) -> Measured:
    """A run of the recipe. Its records are in cwd/runs/ours."""
    recipe, script = "smollm2_sft" if asked.full else "smollm2_lora", str(ROOT / "scripts" / "train.py")
    source = f"data.sources=[{{name: chat, paths: [{asked.data}], chat: messages}}]"
    command = [
        sys.executable, script, f"recipe={recipe}", f"model.init_from={asked.model}", source,
        f"train.steps={steps}", f"train.tokens_per_step={asked.rows * asked.seq_len}", f"data.seq_len={asked.seq_len}",
        f"train.microbatch={asked.batch}", f"optim.lr={lr}", "data.heldout_fraction=0", "evaluation.every_steps=0",
        "evaluation.best=null", f"precision={'bf16_mixed' if asked.bf16 else 'fp32'}", "logging.progress=off",
        "schedule.warmup_steps=2", "schedule.min_ratio=0", "run.name=ours", *more,
    ]  # fmt: skip
    _, memory, seconds = run(command, cwd)
    records = [json.loads(line) for line in (cwd / "runs" / "ours" / "metrics.jsonl").read_text().splitlines()]
    each = [record["step_seconds"] for record in records if record.get("kind", "step") == "step"]
    useful = asked.rows * asked.seq_len
    return Measured(useful * (len(each) - 1) / sum(each[1:]), memory, seconds)


def theirs(asked: argparse.Namespace, cwd: Path, steps: int, lr: float, *more: str) -> Measured:
    """A run of trl."""
    command = [
        sys.executable, str(RIVAL), str(asked.model), str(asked.data), "--steps", str(steps), "--rows", str(asked.rows),
        "--batch", str(asked.batch), "--seq-len", str(asked.seq_len), "--lr", str(lr),
        *["--lora"] * (not asked.full), *["--bf16"] * asked.bf16, *["--compile"] * asked.compile, *more,
    ]  # fmt: skip
    said, memory, seconds = run(command, cwd)
    found = json.loads(said.strip().splitlines()[-1])
    return Measured(found["tokens"] * (len(found["seconds"]) - 1) / sum(found["seconds"][1:]), memory, seconds)


def speed(asked: argparse.Namespace) -> None:
    """Pairs in turn."""
    pairs = []
    for number in range(asked.rounds):
        with tempfile.TemporaryDirectory() as here:
            order = [ours, theirs] if number % 2 == 0 else [theirs, ours]
            found = {one.__name__: one(asked, Path(here), asked.steps, asked.lr[0]) for one in order}
        mine, other = found["ours"], found["theirs"]
        pairs.append((mine.tokens_per_second / other.tokens_per_second, mine.memory / other.memory))
        print(
            f"pair {number + 1}: ours {mine.tokens_per_second:.1f} tokens/s, {mine.memory:.2f} GiB; trl"
            f" {other.tokens_per_second:.1f} tokens/s, {other.memory:.2f} GiB; {pairs[-1][0]:.2f}x the speed,"
            f" {pairs[-1][1]:.2f}x the memory",
            flush=True,
        )
    speeds, memories = zip(*pairs, strict=True)
    print(
        f"median: {statistics.median(speeds):.2f}x the useful tokens/s, {statistics.median(memories):.2f}x the memory"
    )


def quality(asked: argparse.Namespace) -> None:
    """The fall of the held-out loss, ours against trl's at its best learning rate, on average over the seeds."""
    before = heldout_loss(asked.model, asked.heldout)
    print(f"before: {before:.4f} nats a token of the assistant's", flush=True)
    first, *more = asked.seeds
    tried = {lr: trained_by_trl(asked, lr, first) for lr in asked.lr}
    lr = min(tried, key=lambda one: tried[one])
    other = [tried[lr], *(trained_by_trl(asked, lr, seed) for seed in more)]
    mine = [trained_by_us(asked, lr, seed) for seed in asked.seeds]
    falls = [before - statistics.mean(losses) for losses in (mine, other)]
    print(f"ours falls by {falls[0]:.4f}, trl by {falls[1]:.4f}: {falls[0] / falls[1]:.3f} of it", flush=True)


def trained_by_trl(asked: argparse.Namespace, lr: float, seed: int) -> float:
    """Held-out loss after a run of trl."""
    with tempfile.TemporaryDirectory() as here:
        saved = Path(here) / "saved"
        spent = theirs(asked, Path(here), asked.steps, lr, "--save", str(saved), "--seed", str(seed)).seconds
        loss = heldout_loss(saved, asked.heldout)
    print(f"trl, lr {lr:g}, seed {seed}: {loss:.4f} in {spent:.0f} s", flush=True)
    return loss


def trained_by_us(asked: argparse.Namespace, lr: float, seed: int) -> float:
    """Held-out loss after a run of ours, exported to Hugging Face's layout."""
    with tempfile.TemporaryDirectory() as here:
        spent = ours(asked, Path(here), asked.steps, lr, f"seed={seed}").seconds
        exported = Path(here) / "exported"
        run([sys.executable, str(ROOT / "scripts" / "export_hf.py"), "runs/ours", str(exported)], Path(here))
        loss = heldout_loss(exported, asked.heldout)
    print(f"ours, lr {lr:g}, seed {seed}: {loss:.4f} in {spent:.0f} s", flush=True)
    return loss


def heldout_loss(model: Path, rows: Path) -> float:
    """Nats for each token between ``<|im_start|>assistant`` and the end of its turn, that included: by transformers."""
    hide_xla()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    begin = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    nats, count = 0.0, 0
    for line in rows.read_text(encoding="utf-8").splitlines():
        messages = json.loads(line)["messages"]
        ids = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"][
            : network.config.max_position_embeddings
        ]
        labels, place = [-100] * len(ids), 0
        while place < len(ids):
            if ids[place : place + len(begin)] != begin:
                place += 1
                continue
            place += len(begin)
            while place < len(ids):
                labels[place] = ids[place]
                place += 1
                if ids[place - 1] == end:
                    break
        with torch.no_grad():
            logits = network(torch.tensor([ids])).logits[0, :-1].float()
        targets = torch.tensor(labels[1:])
        nats += float(torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum"))
        count += int((targets != -100).sum())
    return nats / count


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="SmolLM2-135M-Instruct in Hugging Face's layout")
    parser.add_argument("data", type=Path, help="JSON lines with messages")
    parser.add_argument("--heldout", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rows", type=int, default=4, help="samples of a step")
    parser.add_argument("--batch", type=int, default=1, help="samples of a microbatch")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3])
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1234], help="trl's learning rate is sought by the first"
    )
    parser.add_argument("--full", action="store_true", help="all weights in the place of LoRA")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true", help="trl with torch_compile")
    asked = parser.parse_args()
    asked.model, asked.data = asked.model.resolve(), asked.data.resolve()
    quality(asked) if asked.heldout else speed(asked)


if __name__ == "__main__":
    main()
