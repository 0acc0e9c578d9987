"""A small tokenizer with a chat template, as transformers 5 or a user's own hand leaves it in a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import processors

from trainer.data.tokenizer import train_bpe

TEXTS = ["the cat sat on the mat. ", " hello , world !", "def f(x):\n\treturn x  ", "<|im_start|>x<|im_end|>"]
MESSAGES = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = "<bos>" + "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\nsat<|im_end|>\n<|im_start|>assistant\n"


def made(bos: bool = False) -> tokenizers.Tokenizer:
    """Byte-level BPE. bos: the post-processor puts <bos> in front."""
    inner = train_bpe(iter(["the cat sat on the mat. hello world\n" * 40]), 280).inner
    inner.encode_special_tokens = False
    inner.add_special_tokens(["<bos>", "<|im_start|>", "<|im_end|>", "<pad>"])
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", inner.token_to_id("<bos>"))]
        )
    return inner


def by_hand(directory: Path, bos: bool = False, **settings: Any) -> Path:
    """As directories of transformers 4 are: settings and template in tokenizer_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    made(bos).save(str(directory / "tokenizer.json"))
    said = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": {"content": "<bos>", "special": True, "__type": "AddedToken"},
        "eos_token": "<|im_end|>",
        "pad_token": "<pad>",
        "additional_special_tokens": ["<|im_start|>"],
        "chat_template": TEMPLATE,
        "add_bos_token": True,
        "model_max_length": 64,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps({**said, **settings}))
    return directory


def by_five(directory: Path, bos: bool = False) -> Path:
    """As transformers 5 saves it, after one call with truncation, which it writes into tokenizer.json."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made(bos),
        bos_token="<bos>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        extra_special_tokens=["<|im_start|>"],
        chat_template=TEMPLATE,
    )
    tokenizer(TEXTS[0], truncation=True, max_length=2)
    tokenizer.save_pretrained(directory)
    return directory
