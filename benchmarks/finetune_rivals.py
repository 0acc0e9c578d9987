"""trl's SFTTrainer, with PEFT or in full, on rows of messages. A program of its own: benchmarks/finetune.py starts it.

    python benchmarks/finetune_rivals.py MODEL ROWS.jsonl --steps 8 --rows 8 --seq-len 512 [--compile] [--lora]

Everything that trl switches on by itself and that changes the comparison is set: BF16, gradient checkpointing, metrics
for each token. The last line of its output is JSON: seconds of each step, useful tokens of a step, trained tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

TEMPLATE_TURNS = ("{% generation %}", "{% endgeneration %}")
"""What trl's own training templates put around an assistant's turn."""


def main() -> None:
    """Train, and print what was measured."""
    asked = arguments()
    hide_xla()
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(asked.seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(asked.model)
    tokenizer.chat_template = training_template(tokenizer.chat_template)
    rows = [json.loads(line) for line in Path(asked.data).read_text(encoding="utf-8").splitlines()]
    lora = LoraConfig(
        r=asked.rank, lora_alpha=asked.alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    timed = clock()
    trainer = lean()(
        model=AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32, attn_implementation="sdpa"),
        args=settings(asked),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora if asked.lora else None,
        callbacks=[timed],
    )
    trainer.train()
    if asked.save:
        (trainer.model.merge_and_unload() if asked.lora else trainer.model).save_pretrained(asked.save)
        tokenizer.save_pretrained(asked.save)
    seconds = [after - before for before, after in pairwise(timed.marks)]
    measured = {"seconds": seconds, "tokens": trainer.tokens / asked.steps, "trained": trainer.trained / asked.steps}
    print(json.dumps(measured))


def hide_xla() -> None:
    """Before transformers is imported: where torch_xla is installed it is taken for the device, use_cpu or not
    (findings/xla_taken_by_trainer.sh).
    """
    modules: dict[str, Any] = sys.modules
    modules["torch_xla"] = None


def clock() -> Any:
    """A callback with the times at which training began and steps ended: what is between steps counts."""
    from transformers import TrainerCallback

    class Timed(TrainerCallback):
        def __init__(self) -> None:
            self.marks: list[float] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.marks.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.marks.append(time.perf_counter())

    return Timed()


def lean() -> Any:
    """SFTTrainer without its metrics for each token, which counts what it is given."""
    from trl import SFTTrainer

    class Lean(SFTTrainer):
        tokens: int = 0
        trained: int = 0

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = 1
        ) -> Any:
            labels = inputs["labels"]
            self.trained += int((labels[:, 1:] != -100).sum())
            self.tokens += int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else labels.numel()
            outputs = model(**inputs, use_cache=False, fused_lm_head=True)
            return -outputs.log_probs.sum() / num_items_in_batch

    return Lean


def settings(asked: argparse.Namespace) -> Any:
    """What recipe=smollm2_lora says, in trl's words."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=asked.output,
        use_cpu=True,
        bf16=asked.bf16,
        gradient_checkpointing=False,
        packing=True,
        packing_strategy="bfd",
        max_length=asked.seq_len,
        assistant_only_loss=True,
        per_device_train_batch_size=asked.batch,
        gradient_accumulation_steps=asked.rows // asked.batch,
        max_steps=asked.steps,
        learning_rate=asked.lr,
        lr_scheduler_type=asked.schedule,
        warmup_steps=asked.warmup,
        weight_decay=0.0,
        max_grad_norm=1.0,
        adam_beta2=0.95,
        logging_strategy="no",
        report_to=[],
        save_strategy="no",
        seed=asked.seed,
        torch_compile=asked.compile,
        dataset_num_proc=1,
    )


def training_template(template: str) -> str:
    """SmolLM2's template with marks around what an assistant says, its end of turn included, for assistant_only_loss.

    Raises ValueError where it is another template: the marks would stand in the wrong places.
    """
    plain = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    if template.count(plain) != 1:
        raise ValueError("the model's chat template is not SmolLM2's")
    before, after = TEMPLATE_TURNS
    marked = (
        "{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}"
        f"{before}{{{{message['content'] + '<|im_end|>'}}}}{after}{{{{'\n'}}}}"
        "{% else %}{{message['content'] + '<|im_end|>' + '\n'}}{% endif %}"
    )
    return template.replace(plain, marked)


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rows", type=int, default=8, help="samples of a step")
    parser.add_argument("--batch", type=int, default=1, help="samples of a microbatch")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--schedule", default="cosine")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--output", default="trl-output")
    parser.add_argument("--save", help="directory for the trained model, merged")
    return parser.parse_args()


if __name__ == "__main__":
    main()
