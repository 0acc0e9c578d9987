"""A small tokenizer with a chat template, as transformers 5 or a user's own hand leaves it in a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, processors, trainers

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


def like_llama() -> tokenizers.Tokenizer:
    """Sentencepiece's conventions: U+2581 before each word, the first too, and bytes for what has no token."""
    inner = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=specials, show_progress=False)
    inner.train_from_iterator(["the cat sat on the mat. hello world\n" * 40], trainer)
    end = decoders.Strip(" ", 1, 0)
    inner.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), end])
    return inner


def llama_directory(directory: Path) -> Path:
    """Of Llama's own class, which has its own normaliser in transformers 5; 4.48.3 puts <s> in front for it."""
    directory.mkdir(parents=True, exist_ok=True)
    like_llama().save(str(directory / "tokenizer.json"))
    said = {
        **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"},
        **{"add_bos_token": True, "add_eos_token": True, "legacy": False},
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(said))
    (directory / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    return directory


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


def by_four(directory: Path, bos: bool = False) -> Path:
    """As 4.48.3 itself saves it, after the same call; tests skip where there is no environment with it."""
    from tests.families.old_environment import ask

    file = directory.with_name("before.json")
    made(bos).save(str(file))
    settings = {
        **{"bos_token": "<bos>", "eos_token": "<|im_end|>", "pad_token": "<pad>", "chat_template": TEMPLATE},
        "additional_special_tokens": ["<|im_start|>"],
    }
    ask("save_tokenizer", directory, file, json.dumps(settings))
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
