"""transformers 4.48.3 and 5 read the same function of what is exported, and what either has written goes through.

It runs in an environment of its own (old_environment.py: make env-4-48), and the tests skip where there is none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

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


def logits(model: Any) -> torch.Tensor:
    """Of version 5."""
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=tokens(model.config.vocab_size), use_cache=False).logits
    return found


def held(directory: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in directory.glob("*.safetensors") for name, tensor in load_file(file).items()}


def apart(theirs: torch.Tensor, directory: Path) -> float:
    """The distance of 4.48.3's logits from these, over the largest."""
    before = load_file(directory.parent / "logits.safetensors")["logits"]
    return float((theirs - before).abs().max() / theirs.abs().max())


def difference(directory: Path) -> float:
    """Of 4.48.3's logits from 5's."""
    return apart(logits(AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa")), directory)


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


IN_SHARDS = {"llama, llama3", "falcon, old", "gpt2"}


def test_what_4_48_has_written_goes_through(tmp_path: Path) -> None:
    """4.48.3 -> a checkpoint -> a directory that both read as 4.48.3 read its own: bit for bit the same weights."""
    jobs = []
    for name, (kind, more) in WRITTEN.items():
        base = {"vocab_size": 96} if kind == "GPT2Config" else SMALL
        size = "20KB" if name in IN_SHARDS else "5GB"
        jobs.append([str(tmp_path / name / "source" / "model"), kind, {**base, **more}, size])
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    ask("save", tmp_path / "jobs.json")
    for name in WRITTEN:
        source, out = tmp_path / name / "source" / "model", tmp_path / name / "out"
        list(import_directory(str(source), str(tmp_path / name / "made")))
        export(tmp_path / name / "made" / "step-00000000", out)
        assert (source / "model.safetensors").exists() is (name not in IN_SHARDS), name
    directories = [tmp_path / name / part for name in WRITTEN for part in ("source/model", "out")]
    assert all(said == {} for said in ask("logits", *directories).values())
    for name in WRITTEN:
        before, after = held(tmp_path / name / "source/model"), held(tmp_path / name / "out")
        assert before.keys() == after.keys(), name
        assert all(torch.equal(before[key], after[key]) for key in before), name
        old = [load_file(tmp_path / name / part / "logits.safetensors")["logits"] for part in ("source", ".")]
        assert torch.equal(*old), name
        assert difference(tmp_path / name / "out") <= CLOSE, name


MISREAD = {("llama", "llama 3.2"), ("llama", "linear"), ("llama", "dynamic"), ("falcon", "llama3")}
"""Theta, scaling: 4.48.3 passes over the one key that says them in what 5 writes, without a word."""


def test_what_5_has_written_goes_through(tmp_path: Path) -> None:
    """5 -> a checkpoint -> shards that both read as 5 computed before it saved; bit for bit the same weights."""
    wanted, directories = {}, []
    for family, name in SAME:
        root, two = tmp_path / family / name, pair(family, name)
        wanted[family, name] = logits(two.theirs)
        two.theirs.save_pretrained(root / "source" / "model", max_shard_size="20KB")
        list(import_directory(str(root / "source" / "model"), str(root / "made")))
        export(root / "made" / "step-00000000", root / "out", shard_bytes=20_000)
        assert not (root / "out" / "model.safetensors").exists()
        before, after = held(root / "source" / "model"), held(root / "out")
        assert before.keys() == after.keys(), name
        assert all(torch.equal(before[key], after[key]) for key in before), name
        directories.append(root / "out")
    misread = [tmp_path / family / name / "source" / "model" for family, name in sorted(MISREAD)]
    said = ask("logits", *directories, *misread)
    assert all(found == {} for found in said.values()), said
    for (family, name), theirs in wanted.items():
        out = tmp_path / family / name / "out"
        assert apart(theirs, out) <= CLOSE, f"4.48.3: {family}, {name}"
        again = logits(AutoModelForCausalLM.from_pretrained(out, attn_implementation="sdpa"))
        assert (again - theirs).abs().max() <= CLOSE * theirs.abs().max(), f"5: {family}, {name}"
    for source in misread:
        key = source.parent.parent
        assert apart(wanted[key.parent.name, key.name], source) > 100 * CLOSE, f"the trap is gone: {key}"


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("make", [tokenizers_of.by_hand, tokenizers_of.by_four, tokenizers_of.by_five])
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
    new = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert [new(text)["input_ids"] for text in TEXTS] == said["ids"]
    assert new.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True) == CHAT
    assert ask("generation", tmp_path / "out")["eos_token_id"] == end


def test_a_tokenizer_json_alone_gets_no_tokens_past_the_vocabulary(tmp_path: Path) -> None:
    """Without our settings 4.48.3 invents <s>, </s> and <unk>, with ids that the embedding has no row for."""
    (tmp_path / "alone").mkdir()
    (tmp_path / "out").mkdir()
    tokenizers_of.made().save(str(tmp_path / "alone" / "tokenizer.json"))
    tokenizer_files(tmp_path / "alone" / "tokenizer.json", "<|endoftext|>").write(tmp_path / "out")
    for name in ("alone", "out"):
        (tmp_path / name / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    bare, ours = (ask("tokenizer", tmp_path / name, json.dumps(TEXTS)) for name in ("alone", "out"))
    plain = tokenizers_of.made()
    assert bare["size"] > plain.get_vocab_size(), "the trap is gone"
    assert ours["size"] == plain.get_vocab_size()
    assert ours["ids"] == [plain.encode(text).ids for text in TEXTS]
    assert ours["eos"] == plain.token_to_id("<|endoftext|>")


def test_no_token_is_put_in_front_that_tokenizer_json_does_not_put_there(tmp_path: Path) -> None:
    """4.48.3's class for Llama obeys add_bos_token and add_eos_token, 5 does not: an export has neither key."""
    source = tokenizers_of.llama_directory(tmp_path / "source")
    shutil.copytree(source, tmp_path / "out")
    tokenizer_files(source).write(tmp_path / "out")
    plain = [tokenizers_of.like_llama().encode(text).ids for text in TEXTS]
    before, after = (ask("tokenizer", tmp_path / name, json.dumps(TEXTS))["ids"] for name in ("source", "out"))
    assert before == [[1, *ids, 2] for ids in plain], "the trap is gone"
    assert after == plain
