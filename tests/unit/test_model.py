"""The model against Hugging Face transformers, and its loss against PyTorch's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.batch import IGNORED_LABEL, Batch
from trainer.commands.entry import register_schema
from trainer.config.arithmetic import flops_per_token, parameters
from trainer.config.compose import to_config
from trainer.config.diagnose import CONF
from trainer.config.groups.model import ModelConfig, RopeScalingConfig
from trainer.models.attention import document_mask
from trainer.models.decoder import CausalLM
from trainer.models.loss import summed_cross_entropy

LINEAR = RopeScalingConfig(kind="linear", factor=4.0)
LLAMA3 = RopeScalingConfig(kind="llama3", factor=8.0, original_max_positions=32)
HEADS = {"4 heads": (4, 4, None), "4 heads, 2 key-value": (4, 2, None), "9 heads of 16, 3 key-value": (9, 3, 16)}
SCALINGS = {"no scaling": RopeScalingConfig(), "linear": LINEAR, "llama3": LLAMA3}
VARIANTS = {
    f"{heads}, {'tied' if tied else 'untied'}, {scaling}": ModelConfig(
        heads=HEADS[heads][0],
        kv_heads=HEADS[heads][1],
        head_dim=HEADS[heads][2],
        tied=tied,
        rope_scaling=SCALINGS[scaling],
        rope_theta=500000.0 if scaling == "llama3" else 10000.0,
    )
    for heads in HEADS
    for tied in (False, True)
    for scaling in SCALINGS
} | {"biased": ModelConfig(heads=4, kv_heads=1, qkv_bias=True)}
PLAIN = VARIANTS["4 heads, untied, no scaling"]
GROUPED_TIED = VARIANTS["4 heads, 2 key-value, tied, no scaling"]


def small(config: ModelConfig) -> ModelConfig:
    # transformers wants the heads to divide the width, also where their size is given.
    return replace(
        config,
        hidden=72 if config.heads == 9 else 64,
        layers=2,
        mlp=96,
        vocab=128,
        max_positions=256,
        loss_chunk_tokens=24,
    )


def pair(config: ModelConfig) -> tuple[CausalLM, LlamaForCausalLM]:
    """Our model and transformers' with the same random weights, FP32."""
    rope: dict[str, object] = {"rope_type": "default"}
    scaling = config.rope_scaling
    if scaling.kind == "linear":
        rope = {"rope_type": "linear", "factor": scaling.factor}
    elif scaling.kind == "llama3":
        rope = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions,
        }
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab,
            hidden_size=config.hidden,
            intermediate_size=config.mlp,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim or config.hidden // config.heads,
            rms_norm_eps=config.norm_eps,
            max_position_embeddings=config.max_positions,
            tie_word_embeddings=config.tied,
            attention_bias=config.qkv_bias,
            rope_parameters={**rope, "rope_theta": config.rope_theta},
            initializer_range=0.2,
        )
    )
    theirs.set_attn_implementation("sdpa")
    ours = CausalLM(config)
    ours.materialised()
    state = {k: v for k, v in theirs.state_dict().items() if not k.endswith("o_proj.bias")}
    for name, bias in theirs.named_parameters():
        if name.endswith("o_proj.bias"):  # Llama's attention_bias covers the output too; ours (Qwen's) does not
            torch.nn.init.zeros_(bias)
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert not missing
    return ours, theirs


def documents(config: ModelConfig) -> Batch:
    """Two samples of uneven documents, the second with padding."""
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(0, config.vocab, (2, 48), generator=generator)
    labels = torch.randint(0, config.vocab, (2, 48), generator=generator)
    lengths = [[20, 28], [5, 30, 7]]
    positions, ids = torch.zeros_like(tokens), torch.full_like(tokens, -1)
    for row, row_lengths in enumerate(lengths):
        start = 0
        for document, length in enumerate(row_lengths):
            positions[row, start : start + length] = torch.arange(length)
            ids[row, start : start + length] = document
            start += length
            labels[row, start - 1] = IGNORED_LABEL
        labels[row, start:] = IGNORED_LABEL
    return Batch.undrawn(tokens, labels, positions, ids)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_loss_and_every_gradient_equal_transformers(name: str) -> None:
    config = small(VARIANTS[name])
    ours, theirs = pair(config)
    batch = documents(config)
    mask = document_mask(batch.document_ids)
    expected = theirs(batch.tokens, position_ids=batch.positions, attention_mask=mask).logits
    live = batch.document_ids >= 0
    actual = ours.logits(batch.tokens, batch.positions, batch.document_ids)
    assert relative(actual[live], expected[live]) <= 1e-5

    reference = F.cross_entropy(
        expected.reshape(-1, config.vocab), batch.labels.reshape(-1), ignore_index=IGNORED_LABEL, reduction="sum"
    )
    loss, targets = ours(*batch)
    assert targets.item() == (batch.labels != IGNORED_LABEL).sum().item()
    assert relative(loss, reference) <= 1e-6
    reference.backward()
    (loss * 0.5).backward()
    their_gradients = {k: p.grad for k, p in theirs.named_parameters() if not k.endswith("o_proj.bias")}
    assert dict(ours.named_parameters()).keys() == their_gradients.keys()
    for key, parameter in ours.named_parameters():
        assert relative(2 * parameter.grad, their_gradients[key]) <= 1e-5, key


def test_document_mask_is_causal_and_stays_inside_documents() -> None:
    ids = torch.tensor([[0, 0, 1, 1, -1]])
    mask = document_mask(ids)[0, 0]
    for query in range(5):
        for key in range(5):
            assert mask[query, key].item() == (key <= query and bool(ids[0, query] == ids[0, key]))
    assert mask.any(dim=-1).all(), "an empty softmax row would be NaN"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [7, 64, 1000])
def test_chunked_loss_equals_plain_cross_entropy(dtype: torch.dtype, chunk: int) -> None:
    torch.manual_seed(3)
    hidden = torch.randn(100, 32).to(dtype).requires_grad_()
    head = (torch.randn(50, 32) * 0.3).to(dtype).requires_grad_()
    labels = torch.randint(0, 50, (100,))
    labels[::3] = IGNORED_LABEL
    plain_hidden, plain_head = (t.detach().double().requires_grad_() for t in (hidden, head))
    expected = F.cross_entropy(plain_hidden @ plain_head.T, labels, ignore_index=IGNORED_LABEL, reduction="sum")
    expected.backward()
    loss = summed_cross_entropy(hidden, head, labels, chunk)
    loss.backward()
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    assert loss.dtype == torch.float32
    assert relative(loss.double(), expected) <= tolerance
    assert relative(hidden.grad.double(), plain_hidden.grad) <= tolerance
    assert relative(head.grad.double(), plain_head.grad) <= tolerance


def test_loss_never_holds_the_logits_of_the_whole_batch() -> None:
    """The largest tensor that the loss makes is a chunk of logits, not [tokens, vocab]."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0
        products = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            self.products += "mm" in func.__name__
            for value in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(value, torch.Tensor):
                    self.elements = max(self.elements, value.numel())
            return out

    hidden = torch.randn(1024, 16, requires_grad=True)
    head = torch.randn(500, 16, requires_grad=True)
    labels = torch.randint(0, 500, (1024,))
    with Largest() as largest:
        summed_cross_entropy(hidden, head, labels, 64).backward()
    assert largest.elements == 64 * 500
    with torch.no_grad(), Largest() as largest:
        summed_cross_entropy(hidden, head, labels, 64)
    assert largest.products == 1024 / 64, "evaluation makes logits and no gradients"


def test_parameters_and_flops_equal_an_independent_count() -> None:
    for variant in VARIANTS.values():
        config = small(variant)
        ours, _ = pair(config)
        assert parameters(config) == sum(p.numel() for p in ours.parameters())
    from torch.utils.flop_counter import FlopCounterMode

    config = small(PLAIN)
    model = CausalLM(config).bfloat16()  # the counter knows mm, and not the in-place addmm_ of the FP32 loss
    model.materialised()
    batch = documents(config)
    with FlopCounterMode(display=False) as counter:
        loss, _ = model(*batch)
        loss.backward()
    # The counter takes full attention; the closed form takes the causal half.
    attention = 12 * config.layers * config.hidden * 48
    counted = counter.get_total_flops() / batch.tokens.numel()
    attention_counted = sum(v for k, v in counter.get_flop_counts()["Global"].items() if "attention" in str(k))
    assert counted - attention_counted / batch.tokens.numel() == pytest.approx(
        flops_per_token(config, 48) - attention / 2, rel=1e-6
    )


def megatron(layers: int, hidden: int) -> int:
    """arXiv:2104.04473, section 5.1: 12 l h^2 (1 + 13/(12 h) + (V + s)/(12 l h)), without the final norm's 2 h."""
    return 12 * layers * hidden**2 + 13 * layers * hidden + (51200 + 2048) * hidden + 2 * hidden


@pytest.mark.parametrize(
    ("name", "published"),
    # Bytes of the published checkpoints' indices over 2 (BF16); LLaMA 65B: as counted by its quantisers; Falcon's have
    # the tied embedding twice; Qwen3 and OLMo 2: total of the safetensors headers, as the hub gives it.
    [
        ("smollm2_135m", 134_515_008),
        ("deepseek7b", 6_910_365_696),
        ("deepseek67b", 134_850_002_944 // 2),
        ("llama65b", 65_285_660_672),
        ("llama3_8b", 16_060_522_496 // 2),
        ("llama3_70b", 141_107_412_992 // 2),
        ("llama2_7b", 13_476_831_232 // 2),
        ("r1_distill_llama_8b", 16_060_522_496 // 2),
        ("r1_distill_qwen_7b", 15_231_233_024 // 2),
        ("qwen3_8b", 8_190_735_360),
        ("mistral_7b", 14_483_464_192 // 2),
        ("falcon7b", 7_217_189_760 - 65024 * 4544),
        ("falcon40b", 83_671_941_120 // 2 - 65024 * 8192),
        ("gpt2", 124_439_808),
        ("gpt3_6b7", megatron(32, 4096)),
        ("gpt3_23b", megatron(28, 8192)),
        ("gpt3_175b", megatron(96, 12288)),
        ("olmo2_7b", 7_298_617_344),
    ],
)
def test_published_models_have_their_published_size(name: str, published: int) -> None:
    config = shipped(name)
    assert parameters(config) == published
    assert config.published_parameters in (None, published)
    with torch.device("meta"):
        assert sum(p.numel() for p in CausalLM(config).parameters()) == published


def shipped(name: str) -> ModelConfig:
    """conf/model's."""
    register_schema()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        return to_config(compose("train", [f"model={name}"])).model


def test_every_shipped_model_is_in_the_table() -> None:
    mark = next(m for m in test_published_models_have_their_published_size.pytestmark if m.name == "parametrize")
    names = {path.stem for path in (CONF / "model").glob("*.yaml")}
    assert names == {"tiny", *(name for name, _ in mark.args[1])}


def test_bf16_keeps_statistics_and_tables_in_fp32() -> None:
    config = small(GROUPED_TIED)
    model = CausalLM(config).bfloat16()
    model.materialised()
    cosines, _ = model.model.rotary(torch.arange(8).unsqueeze(0))
    assert cosines.dtype == torch.float32
    loss, _ = model(*documents(config))
    assert loss.dtype == torch.float32
    x = torch.randn(4, 64).bfloat16() * 100
    norm = model.model.norm
    torch.nn.init.normal_(norm.weight)
    exact = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + config.norm_eps)
    torch.testing.assert_close(norm(x).float(), exact * norm.weight.float(), rtol=2**-7, atol=0)
