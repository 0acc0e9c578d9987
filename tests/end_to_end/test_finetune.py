"""Every command of docs/finetuning.md on a small model with SmolLM2's own template; a kill, and a base that moves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests import harness
from tests.end_to_end.test_model_pages import commands, run

pytestmark = pytest.mark.slow
MODEL = Path("models/SmolLM2-135M-Instruct")
TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QUESTIONS = [
    (f"Who wrote book number {number}?", f"Author {number % 7} wrote it, in {1800 + number}.") for number in range(160)
]
SHORT = [
    "train.steps=8",
    "train.tokens_per_step=256",
    "data.seq_len=64",
    "evaluation.every_steps=4",
    "evaluation.windows=4",
    "data.heldout_fraction=0.1",
    "precision=fp32",
    "checkpoint.every_minutes=0",
]


def write_model(path: Path) -> None:
    """A Llama of 4 layers that transformers has drawn, with a tokenizer that knows the marks of ChatML."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([" ".join(pair) for pair in QUESTIONS], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", bos_token="<|im_start|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(path)
    config = LlamaConfig(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
        vocab_size=512, max_position_embeddings=256, tie_word_embeddings=True, eos_token_id=2, bos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("finetune")
    (cwd / "scripts").symlink_to(harness.ROOT / "scripts")
    write_model(cwd / MODEL)
    with (cwd / "prompts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("instruction", "output"), *QUESTIONS])
    return cwd


def arguments(name: str, *more: str) -> list[str]:
    source = "data.sources=[{paths: [prompts.csv], chat: auto}]"
    return ["recipe=smollm2_lora", f"run.name={name}", f"model.init_from={MODEL}", source, *SHORT, *more]


def losses(run_directory: Path) -> list[tuple[float, float]]:
    return [(record["loss"], record["grad_norm"]) for record in harness.records(run_directory)]


@pytest.fixture(scope="module")
def straight(workspace: Path) -> Path:
    """A run that nothing disturbs."""
    done = harness.train(workspace, arguments("straight"))
    assert done.code == 0, done.output
    assert "trained on the assistant's turns" in done.output
    assert "begins anew" in done.output
    return workspace / "runs/straight"


def test_the_page(workspace: Path) -> None:
    """In order: what one command leaves, the next one finds."""
    page = commands("finetuning.md")
    assert [command.split()[1] for command in page] == [
        "scripts/data.py", "scripts/train.py", "scripts/generate.py", "scripts/export_hf.py", "scripts/export_hf.py",
    ]  # fmt: skip
    short = " ".join(f"'{one}'" for one in SHORT)
    for command in page:
        trains = "train.py" in command or "data.py" in command
        more = f" {short}" if trains else " --tokens 4" if "generate.py" in command else ""
        said = run(workspace, command + more)
        if "data.py" in command:
            assert "[[Author" in said, "what is trained on is marked"
    assert sorted(path.name for path in (workspace / "my-adapter").glob("adapter*")) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    assert (workspace / "my-model/model.safetensors").is_file()


def test_the_exports_are_loaded_and_say_the_same(workspace: Path) -> None:
    torch, peft, transformers = (pytest.importorskip(name) for name in ("torch", "peft", "transformers"))
    assert (workspace / "my-adapter").exists(), "test_the_page makes it"
    tokens = torch.tensor([[1, 77, 202, 9, 2, 1, 5]])
    base = transformers.AutoModelForCausalLM.from_pretrained(workspace / MODEL)
    before = base(tokens).logits
    adapted = peft.PeftModel.from_pretrained(base, workspace / "my-adapter")(tokens).logits
    merged = transformers.AutoModelForCausalLM.from_pretrained(workspace / "my-model")(tokens).logits
    torch.testing.assert_close(adapted, merged, rtol=1e-5, atol=1e-5)
    assert (before - adapted).abs().max() > 1e-3, "something was learnt"


def test_greedy_answers_are_the_same_token_for_token(workspace: Path) -> None:
    """The run by our command, the merged weights in transformers, base and adapter in PEFT; not those of the base."""
    assert (workspace / "my-adapter").exists(), "test_the_page makes it"
    said = three_ways(workspace, [question for question, _ in QUESTIONS[:3]], tokens=24)
    assert said["ours"] == said["merged"] == said["adapter"]
    assert said["ours"] != said["base"]


def three_ways(workspace: Path, prompts: list[str], tokens: int) -> dict[str, list[list[int]]]:
    """The ids that follow on each prompt by runs/mine, my-model, my-adapter beside the base, and by the base alone."""
    torch, peft, transformers = (pytest.importorskip(name) for name in ("torch", "peft", "transformers"))
    asked = " ".join(f'--prompt "{prompt}"' for prompt in prompts)
    lines = run(workspace, f"python scripts/generate.py runs/mine --json --dtype float32 --tokens {tokens} {asked}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(workspace / "my-model")

    def model(path: Path) -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    def said(asked: Any) -> list[list[int]]:
        found = []
        for prompt in prompts:
            ids = torch.tensor([tokenizer(prompt)["input_ids"]])
            more = asked.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens,
                                  do_sample=False)  # fmt: skip
            found.append(more[0, ids.shape[1] :].tolist())
        return found

    base = model(workspace / MODEL)
    return {
        "ours": [json.loads(line)["tokens"] for line in lines.splitlines() if line.startswith("{")],
        "merged": said(model(workspace / "my-model")),
        "base": said(base),
        "adapter": said(peft.PeftModel.from_pretrained(base, workspace / "my-adapter")),
    }


def test_a_checkpoint_holds_what_is_trained_and_nothing_else(straight: Path) -> None:
    (newest,) = sorted(straight.glob("checkpoints/step-*"))[-1:]
    names = {name for file in (newest / "model").glob("*.safetensors") for name in safe_open(file, "np").keys()}  # noqa: SIM118
    assert names
    assert all(".lora_" in name for name in names)
    assert "base" in json.loads((newest / "state.json").read_text())


def test_killed_and_resumed_beside_a_base_that_has_moved(workspace: Path, straight: Path) -> None:
    """Bitwise the run that nothing disturbed."""
    moved = workspace / "elsewhere"
    settings = arguments("killed", "checkpoint.every_steps=2")
    killed = workspace / "runs/killed"
    at = killed / "checkpoints/step-00000004/manifest.json"
    harness.train_and_kill_when(workspace, settings, 1, at.exists)
    (workspace / MODEL).rename(moved)
    try:
        done = harness.train(workspace, settings)
        assert (done.code, "Traceback" in done.output) == (3, False), done.output
        done = harness.train(workspace, [f"model.init_from={moved}" if "init_from" in one else one for one in settings])
        assert done.code == 0, done.output
        assert "resuming killed from step" in done.output
        assert "begins anew" not in done.output
    finally:
        moved.rename(workspace / MODEL)
    assert losses(killed)[-4:] == losses(straight)[-4:]
    ended = [sorted(one.glob("checkpoints/step-*"))[-1] for one in (killed, straight)]
    states = [json.loads((one / "state.json").read_text()) for one in ended]
    named = [state["base"].pop("path") for state in states]
    assert [Path(name).name for name in named] == [moved.name, MODEL.name], "each says where its base lay"
    assert states[0] == states[1]
    files = [path.relative_to(ended[0]) for path in ended[0].glob("*/*.safetensors")]
    assert len(files) == 2, "weights and moments"
    for file in files:
        assert (ended[0] / file).read_bytes() == (ended[1] / file).read_bytes(), file


@pytest.mark.parametrize("layout", [["parallel.tp=2", "parallel.sp=true"], ["parallel.zero=3"]])
def test_two_ranks_give_the_same_curve(workspace: Path, straight: Path, layout: list[str]) -> None:
    name = layout[0].partition(".")[2].replace("=", "")
    done = harness.train(workspace, arguments(name, *layout), 2)
    assert done.code == 0, done.output
    harness.assert_same_curve(harness.records(straight), harness.records(workspace / "runs" / name))
