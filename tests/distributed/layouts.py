"""Layouts by name, and the configuration that trains one under the layout contract (docs/numerics.md).

A name says everything: ``dp2-tp2-sp-pp2-zb-zero1-full-every2-padded``. Its parts, in any order:

dpN tpN ppN cpN       sizes of the axes             sp      sequence parallelism
interleaved, zb       two stages a rank (else 1F1B) cutsA.B layers of the stages (else balanced by cost)
zeroN                 stage of ZeRO                 selective, full, everyN: recomputation
microN                samples of a microbatch
blocksN               the neuron backend's attention goes by blocks of N, for these samples are shorter than its own

Last, a model (else a small tied one):

padded                one whose heads no number of ranks divides
qknorm                a family of a user's own: QK norm, LayerNorm with biases (tests/qk_norm.py)
dropout               the same with dropout
rowbias               another such family: a bias behind attention's last matrix (tests/row_bias.py)
frozen                half of it is not trained: the embedding, and the layers that a pipeline's first stage has
mixed                 the padded one, of whose every block a half is not trained
biased                the padded one as Llama with all biases
multiquery            the padded one as Falcon 7B: one key-value head, parallel blocks with one LayerNorm, GELU, tied
parallel              as Falcon 40B: grouped heads, parallel blocks with two norms, and biases everywhere
learned               as GPT-2: learned positions, LayerNorm, GELU, biases, tied
post                  the padded one as OLMo 2: norms behind blocks, and over all heads of queries and keys
window                as Qwen3: a sliding window in the later layers, norms of heads, YaRN
mistral               as Mistral: a sliding window in every layer
lora                  the padded one with biases everywhere, with LoRA on all linears, head and embedding, dropout, and
                      the norms trained as well
dora                  with DoRA on all linears and on the embedding, and norms and head trained as well
tiedlora              the tied one with LoRA on all linears, and on both sides of the tied pair
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.backend import BackendConfig
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.config.groups.evaluation import EvaluationConfig
from trainer.config.groups.model import ModelConfig, RopeScalingConfig
from trainer.config.groups.optim import OptimConfig
from trainer.config.groups.parallel import ParallelConfig
from trainer.config.groups.precision import PrecisionConfig
from trainer.config.groups.schedule import ScheduleConfig
from trainer.config.groups.train import TrainConfig
from trainer.config.schema import Config

STEPS = 20
TIED = ModelConfig(hidden=64, layers=5, heads=4, kv_heads=2, mlp=96, vocab=512, tied=True, loss_chunk_tokens=24)
"""Five layers, which no number of stages divides; the loss meets a last chunk that is not full."""
PADDED = replace(TIED, family="qwen2", hidden=72, heads=9, kv_heads=3, tied=False, qkv_bias=True)
"""On 2 ranks a head is held twice; on 4 there is padding besides."""
OWN = replace(TIED, family="tests.qk_norm:family")
ROW_BIAS = replace(TIED, family="tests.row_bias:family")
DROPOUT = replace(OWN, dropout=0.1)
FROZEN = replace(TIED, tied=False, frozen=["model.embed_tokens.weight", "model.layers.[01].*"])
MIXED = replace(PADDED, frozen=["*.q_proj.weight", "*.k_proj.*", "*.gate_proj.*", "*.input_layernorm.*"])
BIASED = replace(PADDED, family="llama", o_bias=True, mlp_bias=True)
FALCON = replace(TIED, family="falcon", norm="layer", activation="gelu")
MULTIQUERY = replace(FALCON, block="parallel_one_norm", hidden=72, heads=9, kv_heads=1)
PARALLEL = replace(FALCON, block="parallel", qkv_bias=True, o_bias=True, mlp_bias=True)
GPT2 = replace(PARALLEL, family="gpt2", block="pre", activation="gelu_tanh")
LEARNED = replace(GPT2, kv_heads=4, position="learned", max_positions=64)
POST = replace(PADDED, family="olmo2", block="post", qk_norm="all", qkv_bias=False)
YARN = RopeScalingConfig("yarn", factor=4.0, original_max_positions=32)
QWEN3 = replace(TIED, family="qwen3", qk_norm="head", head_dim=32)
WINDOW = replace(QWEN3, sliding_window=24, full_attention_layers=2, rope_scaling=YARN)
MISTRAL = replace(TIED, family="mistral", tied=False, sliding_window=20)
MODELS = {
    "": TIED,
    "padded": PADDED,
    "qknorm": OWN,
    "rowbias": ROW_BIAS,
    "dropout": DROPOUT,
    "frozen": FROZEN,
    "mixed": MIXED,
    "biased": BIASED,
    "multiquery": MULTIQUERY,
    "parallel": PARALLEL,
    "learned": LEARNED,
    "post": POST,
    "window": WINDOW,
    "mistral": MISTRAL,
    "lora": BIASED,
    "dora": replace(TIED, tied=False),
    "tiedlora": TIED,
}
LORA = AdapterConfig(
    kind="lora",
    rank=6,
    alpha=4.0,
    dropout=0.1,
    rslora=True,
    lr_ratio=4.0,
    targets=["all-linear", "lm_head", "embed_tokens"],
    also_train=["*norm.weight"],
)
DORA = AdapterConfig(
    kind="lora",
    rank=4,
    alpha=16.0,
    dora=True,
    lr_ratio=4.0,
    targets=["all-linear", "embed_tokens"],
    also_train=["*norm.weight", "lm_head.weight"],
)
TIED_LORA = AdapterConfig(kind="lora", rank=4, targets=["all-linear", "lm_head", "embed_tokens"])
ADAPTERS = {"lora": LORA, "dora": DORA, "tiedlora": TIED_LORA}
SCHEDULES = {"interleaved": "interleaved_1f1b", "zb": "interleaved_zero_bubble"}


@dataclass(frozen=True)
class Layout:
    """How ranks share the work, of which model."""

    name: str
    dp: int
    parallel: ParallelConfig
    model: str
    """Which of MODELS."""
    microbatch: int
    """Samples of a microbatch."""
    block: int | None = None
    """Keys of a block of attention."""

    @property
    def processes(self) -> int:
        """Ranks of all axes."""
        return self.dp * self.parallel.tp * self.parallel.pp * self.parallel.cp

    @property
    def reference(self) -> str:
        """The layout of one process with the same model."""
        return f"one-{self.model}" if self.model else "one"


def parse(name: str) -> Layout:
    """The layout that a name says."""
    dp, model, parallel, microbatch, block = 1, "", ParallelConfig(), 0, None
    for part in name.split("-"):
        word, number = re.fullmatch(r"([a-z]+)([\d.]*)", part).groups()  # type: ignore[union-attr]
        if word == "dp":
            dp = int(number)
        elif word in ("tp", "pp", "cp", "zero"):
            parallel = replace(parallel, **{word: int(number)})
        elif word == "sp":
            parallel = replace(parallel, sp=True)
        elif word in SCHEDULES:
            parallel = replace(
                parallel, pipeline=replace(parallel.pipeline, schedule=SCHEDULES[word], virtual_stages=2)
            )
        elif word == "cuts":
            cuts = [int(count) for count in number.split(".")]
            parallel = replace(parallel, pipeline=replace(parallel.pipeline, cuts=cuts))
        elif word in ("selective", "full"):
            parallel = replace(parallel, recompute=word)
        elif word == "micro":
            microbatch = int(number)
        elif word == "blocks":
            block = int(number)
        elif word == "every":
            parallel = replace(parallel, recompute_every=int(number))
        elif word in MODELS:
            model = word
        else:
            assert part == "one", f"no part of a layout is called {part}"
    return Layout(name, dp, parallel, model, microbatch or (2 if dp == 1 else 1), block)


def configuration(layout: Layout, precision: str, backend: str = "native") -> Config:
    """Eight samples of 64 tokens a step; paths are relative to the test's own directory.

    Two or more microbatches a rank, and not the same ones everywhere: how samples are put together must not matter.
    """
    return Config(
        seed=1234,
        backend=BackendConfig(name=backend),
        train=TrainConfig(steps=STEPS, tokens_per_step=512, microbatch=layout.microbatch),
        model=MODELS[layout.model],
        adapter=ADAPTERS.get(layout.model, AdapterConfig()),
        data=DataConfig(
            sources=[SourceConfig(paths=["corpus"])],
            tokenizer=TokenizerConfig(vocab=512),
            seq_len=64,
            heldout_fraction=0.1,
            cache_dir="cache",
            prefetch=0,
        ),
        parallel=layout.parallel,
        optim=OptimConfig(lr=1e-3, clip_norm=1.0),
        schedule=ScheduleConfig(kind="constant", warmup_steps=5),
        precision=PrecisionConfig(mode=precision, cpu_fallback=None),
        evaluation=EvaluationConfig(windows=6),
    )
