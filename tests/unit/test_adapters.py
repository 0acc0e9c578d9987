"""Adapters against PEFT: outputs, gradients, an optimizer's step and merged weights, in every variant."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from trainer.batch import IGNORED_LABEL
from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.model import ModelConfig
from trainer.config.groups.optim import OptimConfig
from trainer.errors import ConfigError
from trainer.models.adapters.lora import LoraLinear
from trainer.models.family import family_of
from trainer.optim.adamw import MixedPrecisionAdamW

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

MODEL = ModelConfig(
    family="qwen2", hidden=32, layers=2, heads=4, kv_heads=2, mlp=48, vocab=64, max_positions=64, qkv_bias=True
)
ALL = ["all-linear"]
WITH_VOCABULARY = ["q_proj", "down_proj", "lm_head", "embed_tokens"]
VARIANTS = list(itertools.product((False, True), (False, True), (False, True), (ALL, WITH_VOCABULARY)))
RATIO = 16.0
OPTIM = OptimConfig(lr=1e-2, weight_decay=0.1, clip_norm=1.0, beta2=0.95, eps=1e-3)
"""eps: with a small one a first step is lr times a gradient's sign, that of one which is mere rounding too."""


def pair(model: ModelConfig, adapter: AdapterConfig) -> tuple[Any, Any, dict[str, Any], Any]:
    """Our model, PEFT's with the same values, PEFT's parameters by our names, and our family."""
    torch.manual_seed(0)
    family = family_of(model, adapter)
    ours: Any = family.build().to_empty(device="cpu")
    ours.materialised()
    config = transformers.Qwen2Config(
        hidden_size=model.hidden,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        intermediate_size=model.mlp,
        vocab_size=model.vocab,
        max_position_embeddings=model.max_positions,
        tie_word_embeddings=model.tied,
        rms_norm_eps=model.norm_eps,
    )
    theirs = peft.get_peft_model(
        transformers.Qwen2ForCausalLM(config),
        peft.LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            use_rslora=adapter.rslora,
            use_dora=adapter.dora,
            target_modules="all-linear" if adapter.targets == ALL else adapter.targets,
            task_type="CAUSAL_LM",
        ),
    )
    held = dict(theirs.named_parameters(remove_duplicate=False))
    for name, parameter in held.items():
        if "lora_magnitude" in name:
            parameter.data.mul_(1.1)
        elif "lora_" in name:
            parameter.data.copy_(torch.randn_like(parameter) * 0.3)
    by_name = {name: held[_theirs(name, held)] for name, _ in ours.named_parameters(remove_duplicate=False)}
    with torch.no_grad():
        for name, parameter in ours.named_parameters(remove_duplicate=False):
            parameter.copy_(by_name[name].reshape(parameter.shape))
    for name, parameter in ours.named_parameters():
        parameter.requires_grad_(family.plan.rule(ours.canonical_names()[name]).trainable)
    return ours, theirs, by_name, family


def _theirs(name: str, held: dict[str, Any]) -> str:
    path, _, kind = f"base_model.model.{name}".rpartition(".")
    if kind.startswith("lora_embedding"):
        return f"{path}.{kind}.default"
    if kind.startswith("lora_"):
        return f"{path}.{kind}.default.weight"
    return f"{path}.base_layer.{kind}" if f"{path}.base_layer.{kind}" in held else f"{path}.{kind}"


def batch(vocab: int) -> tuple[torch.Tensor, ...]:
    """tokens, labels, positions, document_ids: two samples of one document each."""
    tokens = torch.randint(0, vocab, (2, 12), generator=torch.Generator().manual_seed(1))
    labels = torch.cat([tokens[:, 1:], torch.full((2, 1), IGNORED_LABEL)], dim=1)
    return tokens, labels, torch.arange(12).expand(2, 12), torch.zeros_like(tokens)


@pytest.mark.parametrize(("tied", "dora", "rslora", "targets"), VARIANTS)
def test_equals_peft(tied: bool, dora: bool, rslora: bool, targets: list[str]) -> None:
    model = replace(MODEL, tied=tied)
    adapter = AdapterConfig("lora", 4, 8.0, 0.0, rslora, dora, RATIO, targets)
    ours, theirs, by_name, family = pair(model, adapter)
    tokens, labels, positions, ids = batch(model.vocab)
    logits = theirs(tokens).logits
    torch.testing.assert_close(ours.logits(tokens, positions, ids), logits, rtol=1e-5, atol=1e-5)
    loss, _ = ours(tokens, labels, positions, ids)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    trained = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    assert {name: by_name[name].requires_grad for name in dict(ours.named_parameters())} == {
        name: name in trained for name in dict(ours.named_parameters())
    }
    base = {name: p.detach().clone() for name, p in ours.named_parameters() if name not in trained}
    optimizer = MixedPrecisionAdamW(trained, family.plan.match(trained), OPTIM, "fp32")
    (loss / 20).backward()
    (expected / 20).backward()
    for name in trained:
        gradient = by_name[name].grad.reshape(trained[name].shape)
        assert (optimizer.gradient(name) - gradient).norm() <= 1e-5 * gradient.norm(), name
    _step_of_peft(theirs)
    optimizer.update(OPTIM.lr, optimizer.squared_norm().sqrt())
    for name, parameter in trained.items():
        updated = by_name[name].reshape(parameter.shape)
        assert (parameter - updated).norm() <= 1e-5 * updated.norm(), name
    assert base
    assert all(torch.equal(ours.get_parameter(name), values) for name, values in base.items())


def _step_of_peft(model: Any) -> None:
    """LoRA+ as PEFT has it: B, and what stands for it in an embedding, faster. Lengths do not decay."""
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    torch.nn.utils.clip_grad_norm_([p for _, p in parameters], OPTIM.clip_norm)
    groups = []
    for name, parameter in parameters:
        fast = "lora_B" in name or "lora_embedding_B" in name
        decay = 0.0 if "magnitude" in name else OPTIM.weight_decay
        groups.append({"params": [parameter], "lr": OPTIM.lr * (RATIO if fast else 1.0), "weight_decay": decay})
    torch.optim.AdamW(groups, betas=(OPTIM.beta1, OPTIM.beta2), eps=OPTIM.eps).step()


@pytest.mark.parametrize("dora", [False, True])
def test_merged_weights_are_those_of_peft(dora: bool) -> None:
    ours, theirs, _, _ = pair(MODEL, AdapterConfig("lora", 4, 8.0, dora=dora, targets=ALL))
    merged = dict(theirs.merge_and_unload().named_parameters())
    for name, module in ours.named_modules():
        if isinstance(module, LoraLinear):
            weight = module.merged() if not dora else module.share().unsqueeze(1) * module.merged()
            torch.testing.assert_close(weight, merged[f"{name}.weight"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dora", [False, True])
def test_dropout_stands_before_a_as_in_peft(dora: bool) -> None:
    """Our draws in the place of theirs."""
    adapter = AdapterConfig("lora", 4, 8.0, 0.25, dora=dora, targets=ALL)
    ours, theirs, _, _ = pair(MODEL, adapter)
    tokens, labels, positions, ids = batch(MODEL.vocab)
    keys = torch.randint(0, 2**31 - 1, tokens.shape, generator=torch.Generator().manual_seed(2))
    for name, module in ours.named_modules():
        if isinstance(module, LoraLinear):
            theirs.get_submodule(f"base_model.model.{name}").lora_dropout["default"] = _Drawn(module.dropout, keys)
    loss, _ = ours(tokens, labels, positions, ids, keys)
    expected = F.cross_entropy(theirs(tokens).logits.flatten(0, 1), labels.flatten(), reduction="sum")
    without, _ = ours(tokens, labels, positions, ids)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    assert abs(without - loss) > 1e-3
    shares = [float((module.dropout(torch.ones(2, 12, module.in_features), keys) == 0).float().mean())
              for module in ours.modules() if isinstance(module, LoraLinear)]  # fmt: skip
    assert all(0.1 < share < 0.4 for share in shares)
    assert len(set(shares)) > len(shares) / 2, "each place draws for itself"


class _Drawn(torch.nn.Module):
    def __init__(self, dropout: Any, keys: torch.Tensor) -> None:
        super().__init__()
        self.dropout, self.drawn = [dropout], keys

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dropped: torch.Tensor = self.dropout[0](x, self.drawn)
        return dropped


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (AdapterConfig("lora", targets=["q_porj"]), ("adapter.targets = 'q_porj'", "nearest q_proj")),
        (AdapterConfig("lora", targets=["*.norm"]), ("adapter.targets = '*.norm'", "names a linear")),
        (AdapterConfig("lora", also_train=["*.bais"]), ("adapter.also_train = '*.bais'", "scripts/plan.py")),
        (AdapterConfig("lora", dora=True, dropout=0.1, targets=["lm_head"]), ("adapter.dropout = 0.1", "lm_head")),
    ],
)
def test_what_matches_nothing_is_named(adapter: AdapterConfig, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as raised:
        family_of(MODEL, adapter)
    assert len(raised.value.problems) == 1
    for word in words:
        assert word in str(raised.value)


def test_also_train_and_frozen_meet_in_the_plan() -> None:
    """Frozen comes before everything: A alone frozen is LoRA-FA (arXiv:2308.03303)."""
    adapter = AdapterConfig("lora", also_train=["*norm.weight", "lm_head.weight"])
    plan = family_of(replace(MODEL, frozen=["*.lora_A"]), adapter).plan
    assert plan.rule("model.layers.0.self_attn.q_proj.lora_B").trainable
    assert plan.rule("model.layers.1.input_layernorm.weight").trainable
    assert plan.rule("lm_head.weight").trainable
    assert not plan.rule("model.layers.0.self_attn.q_proj.lora_A").trainable
    assert not plan.rule("model.layers.0.self_attn.q_proj.weight").trainable
    assert not plan.rule("model.embed_tokens.weight").trainable
