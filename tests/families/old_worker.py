"""Runs under transformers 4.48.3 (old_environment.py): what it makes of directories, and directories that it writes."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

SEQ = 48


def tokens(vocab: int) -> torch.Tensor:
    """The same in both environments."""
    return torch.randint(0, vocab, (2, SEQ), generator=torch.Generator().manual_seed(7))


def logits(*directories: str) -> dict[str, Any]:
    """Of each directory: those of ``tokens``, into DIRECTORY/../logits.safetensors; and what did not fit.

    A directory of an architecture that this version lacks, or of a scaling that it refuses there, says so.
    """
    answers: dict[str, Any] = {}
    for directory in map(Path, directories):
        kind = json.loads((directory / "config.json").read_text())["model_type"]
        if kind not in transformers.models.auto.configuration_auto.CONFIG_MAPPING:
            answers[str(directory)] = "unknown"
            continue
        try:
            model, loading = transformers.AutoModelForCausalLM.from_pretrained(
                directory, output_loading_info=True, attn_implementation="sdpa"
            )
        except ValueError as error:
            answers[str(directory)] = str(error)
            continue
        with torch.no_grad():
            found = model.eval()(input_ids=tokens(model.config.vocab_size), use_cache=False).logits
        save_file({"logits": found.float().contiguous()}, directory.parent / "logits.safetensors")
        answers[str(directory)] = {name: sorted(map(str, keys)) for name, keys in loading.items() if keys}
    return answers


def adapter(base: str, directory: str, target: str) -> dict[str, Any]:
    """An adapter that peft of this age loads beside a base, and saves; logits of ``tokens`` go along."""
    import peft

    model = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), directory).eval()
    with torch.no_grad():
        found = model(input_ids=tokens(model.config.vocab_size), use_cache=False).logits
    model.save_pretrained(target)
    save_file({"logits": found.float().contiguous()}, Path(target) / "logits.safetensors")
    return {"peft": peft.__version__}


def save(specification: str) -> dict[str, Any]:
    """Models of [[directory, configuration class, its arguments, size of a file], ...], random, as this version saves
    them.
    """
    for directory, name, arguments, size in json.loads(Path(specification).read_text()):
        torch.manual_seed(3)
        config = getattr(transformers, name)(**arguments)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        for key, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, mean=0.0 if key.endswith("bias") or parameter.ndim > 1 else 1.0, std=0.15)
        model.save_pretrained(directory, max_shard_size=size)
    return {}


def save_tokenizer(directory: str, file: str, settings: str) -> dict[str, Any]:
    """Of a tokenizer.json and its settings, after a call with truncation, as this version saves it."""
    made = transformers.PreTrainedTokenizerFast(tokenizer_file=file, **json.loads(settings))
    made("one call", truncation=True, max_length=2)
    made.save_pretrained(directory)
    return {}


def tokenizer(directory: str, texts: str, messages: str = "[]") -> dict[str, Any]:
    """What AutoTokenizer makes of texts and of a conversation."""
    made = transformers.AutoTokenizer.from_pretrained(directory)
    ids = [made(text)["input_ids"] for text in json.loads(texts)]
    said = json.loads(messages)
    return {
        "class": type(made).__name__,
        "ids": ids,
        "texts": [made.decode(row) for row in ids],
        "size": len(made),
        "special": made.special_tokens_map,
        "eos": made.eos_token_id,
        "chat": made.apply_chat_template(said, tokenize=False, add_generation_prompt=True) if said else None,
    }


def generation(directory: str) -> dict[str, Any]:
    """What generation_config.json says."""
    return transformers.GenerationConfig.from_pretrained(directory).to_diff_dict()


if __name__ == "__main__":
    gc.freeze()  # it collects after each file, which takes most of a second with all that is imported
    transformers.logging.set_verbosity_error()
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
