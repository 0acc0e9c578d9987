"""transformers 4.48.3 and 5 read the same function of what is exported, and what 4.48.3 has written goes through.

It runs in an environment of its own (old_environment.py: make env-4-48), and the tests skip where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.families import tokenizers_of
from tests.families.checkpoints import parameters, save_run
from tests.families.old_environment import ask
from tests.families.old_worker import tokens
from tests.families.pairs import pair
from tests.families.tokenizers_of import CHAT, MESSAGES, TEXTS
from trainer.commands.import_hf import import_directory
from trainer.pretrained.export import export
from trainer.pretrained.tokenizer_files import tokenizer_files

pytestmark = [pytest.mark.slow, pytest.mark.long]

CLOSE = 1e-5
SAME = [
    ("llama", "llama 3.2"),
    ("llama", "biased"),
    ("llama", "linear"),
    ("llama", "dynamic"),
    ("llama", "yarn, mscale"),
    ("mistral", "window"),
    ("mistral", "no window"),
    ("qwen2", "0.5b"),
    ("qwen2", "yarn"),
    ("falcon", "7b"),
    ("falcon", "40b"),
    ("falcon", "11b"),
    ("falcon", "old, multi-head"),
    ("falcon", "llama3"),
    ("gpt2", "gpt2"),
    ("olmo2", "odd, tied"),
]
OTHERWISE = {
    ("qwen3", "tied"): "unknown",
    ("olmo2", "yarn"): "must be a dictionary with two fields",
    ("qwen2", "windows in all layers"): "window",
}
"""What 4.48.3 lacks: the family; the scaling in that family; windows outside flash attention, which it passes over."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Directories by family and name, and what 4.48.3 says of each."""
    root = tmp_path_factory.mktemp("exported")
    for family, name in [*SAME, *OTHERWISE]:
        two = pair(family, name)
        checkpoint = save_run(root / family / name / "run", two.model, parameters(two.ours), (2, 2))
        export(checkpoint, root / family / name / "out")
    found = ask("logits", *(root / family / name / "out" for family, name in [*SAME, *OTHERWISE]))
    return root, {str(Path(path).parent.relative_to(root)): said for path, said in found.items()}


def difference(directory: Path) -> float:
    """Of 4.48.3's logits from 5's, over the largest."""
    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa")
    with torch.no_grad():
        theirs = model(input_ids=tokens(model.config.vocab_size), use_cache=False).logits
    before = load_file(directory.parent / "logits.safetensors")["logits"]
    return float((theirs - before).abs().max() / theirs.abs().max())


@pytest.mark.parametrize(("family", "name"), SAME, ids=str)
def test_both_read_the_same_function(family: str, name: str, exported: tuple[Path, dict[str, Any]]) -> None:
    root, said = exported
    assert said[f"{family}/{name}"] == {}, "no key is missing, none unexpected"
    assert difference(root / family / name / "out") <= CLOSE


@pytest.mark.parametrize(("family", "name"), OTHERWISE, ids=str)
def test_what_4_48_lacks_is_still_so(family: str, name: str, exported: tuple[Path, dict[str, Any]]) -> None:
    root, said = exported
    found = said[f"{family}/{name}"]
    if isinstance(found, str):
        assert OTHERWISE[family, name] in found
    else:
        assert difference(root / family / name / "out") > 0.1


WRITTEN: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"rope_theta": 500000.0, "num_key_value_heads": 2}),
    "llama, llama3": (
        "LlamaConfig",
        {
            "tie_word_embeddings": True,
            "rope_theta": 250000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "mistral": ("MistralConfig", {"num_key_value_heads": 2, "sliding_window": 9}),
    "qwen2": ("Qwen2Config", {"num_key_value_heads": 2, "tie_word_embeddings": True, "rope_theta": 1000000.0}),
    "falcon": ("FalconConfig", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon, old": ("FalconConfig", {"bias": True}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "olmo2": ("Olmo2Config", {}),
}
SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def test_what_4_48_has_written_goes_through(tmp_path: Path) -> None:
    """4.48.3 -> a checkpoint -> a directory that both read as 4.48.3 read its own: bit for bit the same weights."""
    jobs = []
    for name, (kind, more) in WRITTEN.items():
        base = {"vocab_size": 96} if kind == "GPT2Config" else SMALL
        jobs.append([str(tmp_path / name / "source" / "model"), kind, {**base, **more}])
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    ask("save", tmp_path / "jobs.json")
    for name in WRITTEN:
        list(import_directory(str(tmp_path / name / "source" / "model"), str(tmp_path / name / "made")))
        export(tmp_path / name / "made" / "step-00000000", tmp_path / name / "out")
    directories = [tmp_path / name / part for name in WRITTEN for part in ("source/model", "out")]
    assert all(said == {} for said in ask("logits", *directories).values())
    for name in WRITTEN:
        before, after = (
            load_file(p / "model.safetensors") for p in (tmp_path / name / "source/model", tmp_path / name / "out")
        )
        assert before.keys() == after.keys(), name
        assert all(torch.equal(before[key], after[key]) for key in before), name
        old = [load_file(tmp_path / name / part / "logits.safetensors")["logits"] for part in ("source", ".")]
        assert torch.equal(*old), name
        assert difference(tmp_path / name / "out") <= CLOSE, name


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("make", [tokenizers_of.by_hand, tokenizers_of.by_five])
def test_the_tokenizer_is_the_same_in_both(make: Callable[[Path, bool], Path], bos: bool, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    tokenizer_files(make(tmp_path / "source", bos)).write(tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    said = ask("tokenizer", tmp_path / "out", json.dumps(TEXTS), json.dumps(MESSAGES))
    plain = tokenizers_of.made(bos)
    assert said["ids"] == [plain.encode(text).ids for text in TEXTS]
    assert said["texts"] == [("<bos>" if bos else "") + text for text in TEXTS]
    assert said["chat"] == CHAT
    assert said["size"] == plain.get_vocab_size()
    assert said["special"]["additional_special_tokens"] == ["<|im_start|>"]
    end = plain.token_to_id("<|im_end|>")
    assert said["eos"] == end
    assert ask("generation", tmp_path / "out")["eos_token_id"] == end
