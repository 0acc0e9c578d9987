"""Decoding with a cache is recomputation of the whole text, and transformers' greedy generate, for every family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families.cases import NAMES
from tests.families.pairs import pair
from tests.ranks import Task, attempt
from trainer.generation.cache import Cache
from trainer.generation.opened import Opened, opened_model

CLOSE = 1e-5
"""Largest difference over largest value."""
PROMPT, NEW = 28, 12
"""Tokens: across the context that dynamic scaling has to stretch (32), and across every window."""
LENGTHS = (PROMPT, 9, 20)


def directory(family: str, name: str, path: Path) -> Path:
    """transformers' directory of a family's case."""
    pair(family, name).theirs.save_pretrained(path)
    return path


def prompts(vocab: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, vocab, (length,), generator=generator).tolist() for length in LENGTHS]


def recomputed(opened: Opened, tokens: Sequence[int]) -> torch.Tensor:
    """Logits after a whole text, without a cache: FP32 [vocab]."""
    whole = torch.tensor([list(tokens)])
    positions = torch.arange(len(tokens)).unsqueeze(0)
    with torch.no_grad():
        logits: torch.Tensor = opened.lowered.logits(whole, positions, torch.zeros_like(whole))
    return logits[0, -1, : opened.model.vocab]


def distance(opened: Opened, rows: Sequence[Sequence[int]]) -> tuple[float, list[list[int]]]:
    """The worst difference between cached and recomputed logits while rows are continued greedily; and the rows."""
    texts, worst = [list(row) for row in rows], 0.0
    with Cache(opened, rows, max(map(len, rows)) + NEW) as cache:
        logits = cache.prefill()
        steps = [logits.clone()]
        for _ in range(NEW - 1):
            tokens = logits.argmax(-1)
            for text, token in zip(texts, tokens.tolist(), strict=True):
                text.append(token)
            logits = cache.forward(tokens.unsqueeze(1))
            steps.append(logits.clone())
    for row, text in enumerate(texts):
        for step, found in enumerate(steps):
            expected = recomputed(opened, text[: len(rows[row]) + step])
            worst = max(worst, ((found[row] - expected).abs().max() / expected.abs().max()).item())
    return worst, texts


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_cached_logits_are_recomputed_ones_and_tokens_are_transformers(family: str, name: str, tmp_path: Path) -> None:
    with opened_model(str(directory(family, name, tmp_path / "model"))) as opened:
        rows = prompts(opened.model.vocab)
        worst, texts = distance(opened, rows)
    assert worst <= CLOSE
    theirs: Any = pair(family, name).theirs
    theirs.generation_config.eos_token_id = None
    for row, text in zip(rows, texts, strict=True):
        # Under dynamic scaling transformers' own cache is not its recomputation: keys keep their older angles.
        cached = opened.model.rope_scaling.kind != "dynamic"
        tokens = torch.tensor([row])
        found = theirs.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=NEW - 1,
            do_sample=False,
            use_cache=cached,
            pad_token_id=0,
        )
        assert text == found[0].tolist()


def test_the_model_is_as_it_was_behind_the_cache(tmp_path: Path) -> None:
    with opened_model(str(directory("llama", "dynamic", tmp_path / "model"))) as opened:
        before = recomputed(opened, range(40))
        distance(opened, prompts(opened.model.vocab))
        assert torch.equal(recomputed(opened, range(40)), before)


def on_ranks(directory: str) -> dict[str, Any]:
    with opened_model(directory) as opened:
        worst, texts = distance(opened, prompts(opened.model.vocab))
        return {"worst": worst, "texts": texts}


SHARED = [
    ("llama", "smollm2"),
    ("mistral", "window"),
    ("qwen2", "windows behind the first layer"),
    ("qwen3", "dynamic"),
    ("falcon", "7b"),
    ("falcon", "40b"),
    ("gpt2", "gpt2"),
    ("olmo2", "yarn"),
]


@pytest.mark.slow
@pytest.mark.long
def test_two_ranks_decode_what_one_does(tmp_path: Path) -> None:
    models = {case: str(directory(*case, tmp_path / "-".join(case))) for case in SHARED}
    tasks = {case: Task("tests.generation.test_cache:on_ranks", 2, {"directory": models[case]}) for case in SHARED}
    found = attempt(tasks, tmp_path)
    for case in SHARED:
        alone = on_ranks(models[case])
        for rank in found[case]:
            assert rank["worst"] <= CLOSE, case
            assert rank["texts"] == alone["texts"], case
