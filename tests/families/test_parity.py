"""Every family is transformers' own: logits and every gradient, on random weights that came through its map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.families.cases import CLASSES, NAMES
from tests.families.pairs import Pair, dense_masks, pair, samples
from trainer.batch import IGNORED_LABEL, Batch
from trainer.pretrained.config_json import config_json

CLOSE = 1e-5
"""Largest difference over largest value, of each tensor."""


def distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def their_logits(two: Pair, theirs: Any, batch: Batch, masked: bool) -> torch.Tensor:
    """Without a mask of ours transformers makes its own, windows included."""
    masks = {"attention_mask": dense_masks(two.model, batch)} if masked else {}
    out: torch.Tensor = theirs(batch.tokens, position_ids=batch.positions, use_cache=False, **masks).logits
    return out


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "documents"])
@pytest.mark.parametrize(("family", "name"), NAMES)
def test_logits_and_every_gradient_are_transformers(family: str, name: str, masked: bool) -> None:
    two = pair(family, name)
    two.ours.zero_grad()
    two.theirs.zero_grad()
    batch = samples(two.model, masked)
    expected = their_logits(two, two.theirs, batch, masked)
    live = batch.document_ids >= 0
    logits = two.ours.logits(batch.tokens, batch.positions, batch.document_ids)
    assert distance(logits[live], expected[live]) <= CLOSE

    loss, _ = two.ours(*batch)
    loss.backward()
    flat = expected.reshape(-1, two.model.vocab)
    F.cross_entropy(flat, batch.labels.reshape(-1), ignore_index=IGNORED_LABEL, reduction="sum").backward()
    theirs = two.to_ours({key: p.grad for key, p in two.theirs.named_parameters()})
    ours = {key: p.grad for key, p in two.ours.named_parameters()}
    assert ours.keys() == theirs.keys()
    for key, gradient in ours.items():
        assert gradient is not None
        # Without a rotation a key's bias moves all scores of a query alike: its gradient is noise around 0.
        nothing = key.endswith("k_proj.bias") and two.model.position == "learned"
        scale = theirs[key.replace("k_proj", "q_proj") if nothing else key].abs().max()
        assert ((gradient - theirs[key]).abs().max() / scale).item() <= CLOSE, key


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_the_written_config_json_is_the_same_function_in_transformers(family: str, name: str) -> None:
    two = pair(family, name)
    config_class, model_class = CLASSES[family]
    again = model_class(config_class.from_dict(config_json(two.model, "float32")))
    again.load_state_dict(two.theirs.state_dict())
    again.set_attn_implementation("sdpa")
    batch = samples(two.model, masked=False)
    with torch.no_grad():
        first, second = (their_logits(two, theirs, batch, False) for theirs in (two.theirs, again))
    assert torch.equal(first, second)
