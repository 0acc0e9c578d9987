"""A real pretrained model: greedy continuations of 20 prompts are transformers' tokens, chats included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.end_to_end.test_smollm2_round_trip import from_gguf
from trainer.data.chat.template import ChatTemplate
from trainer.generation.fast import quicken
from trainer.generation.generate import generate
from trainer.generation.opened import opened_model
from trainer.generation.settings import GREEDY, Limits

pytestmark = [pytest.mark.slow, pytest.mark.long]

NEW = 16
PROMPTS = [
    *("The capital of France is", "Water boils at", "def fibonacci(n):\n", "Once upon a time", "2 + 2 ="),
    *("The quick brown fox", "In 1969, humans first", "SELECT name FROM", "A recipe for bread:\n1.", "Dear Sir,"),
    *("import numpy as np\n", "Die Hauptstadt von", "The opposite of hot is", "E = mc", "To be, or not to be,"),
]
CHATS = ["Name a fruit.", "What is 7 times 6?", "Say hello in French.", "Who wrote Hamlet?", "What colour is the sky?"]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("quick", [False, True], ids=["plain", "quickened"])
def test_greedy_continuations_are_transformers(quick: bool, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from_gguf(tmp_path / "model")
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "model")
    chats = [[{"role": "user", "content": text}] for text in CHATS]
    encoded = [tokenizer(text)["input_ids"] for text in PROMPTS]
    encoded += [tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"] for chat in chats]
    assert len(encoded) == 20
    with opened_model(str(tmp_path / "model"), "float32") as opened:
        assert opened.words is not None
        assert opened.words.template is not None
        template = ChatTemplate(opened.words.template, opened.words.special)
        ids = [opened.words.encode(text) for text in PROMPTS]
        ids += [opened.words.encode(template(chat), special=False) for chat in chats]
        assert ids == encoded
        if quick:
            quicken(opened)
        answers = generate(opened, ids, GREEDY, Limits(NEW))
    for prompt, answer in zip(encoded, answers, strict=True):
        tokens = torch.tensor([prompt])
        found = theirs.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=NEW, do_sample=False, pad_token_id=0
        )[0].tolist()[len(prompt) :]
        assert answer.tokens == found
        assert answer.text == tokenizer.decode(found, skip_special_tokens=True)
