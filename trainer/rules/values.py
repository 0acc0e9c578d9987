"""Single values: names out of a closed set, numbers in their ranges, dimensions that agree, the length of training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from typing import Any

from trainer.config.arithmetic import head_dim
from trainer.config.groups.precision import HALF
from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.rules.quantities import total_steps
from trainer.run.world import World

CHOICES = {
    "model.norm": ("rms", "layer"),
    "model.block": ("pre", "post", "parallel", "parallel_one_norm"),
    "model.activation": ("swiglu", "gelu", "gelu_tanh"),
    "model.position": ("rotary", "learned"),
    "model.qk_norm": ("none", "head", "all"),
    "model.rope_scaling.kind": ("none", "linear", "dynamic", "llama3", "yarn"),
    "data.packing": ("contiguous", "best_fit"),
    "data.long_documents": ("split", "truncate", "drop"),
    "data.train_on": ("assistant", "last", "all"),
    "data.tokenizer.kind": ("train_bpe", "file"),
    "schedule.kind": ("cosine", "wsd", "linear", "constant", "multistep"),
    "precision.mode": ("fp32", "bf16_mixed", "bf16"),
    "precision.cpu_fallback": (None, "fp32", "bf16_mixed", "bf16"),
    "logging.progress": ("auto", "bar", "lines", "off"),
    "logging.wandb.mode": ("off", "auto", "online", "offline"),
    "reliability.nonfinite": ("stop", "skip"),
    "checkpoint.mode": ("auto", "async", "sync"),
    "checkpoint.export_hf": (None, "last", "every"),
}
POSITIVE = (
    "train.tokens_per_step",
    "train.microbatch",
    "model.hidden",
    "model.layers",
    "model.heads",
    "model.kv_heads",
    "model.mlp",
    "model.vocab",
    "model.max_positions",
    "model.norm_eps",
    "model.rope_theta",
    "model.rope_scaling.factor",
    "model.rope_scaling.low_freq_factor",
    "model.rope_scaling.high_freq_factor",
    "model.rope_scaling.original_max_positions",
    "model.rope_scaling.beta_fast",
    "model.rope_scaling.beta_slow",
    "model.init_std",
    "model.loss_chunk_tokens",
    "data.seq_len",
    "data.cache_gb",
    "parallel.tp",
    "parallel.pp",
    "parallel.cp",
    "parallel.recompute_every",
    "parallel.pipeline.virtual_stages",
    "optim.lr",
    "optim.eps",
    "optim.clip_norm",
    "schedule.factor",
    "evaluation.windows",
    "logging.every_steps",
    "backend.timeout_seconds",
    "launcher.nodes",
    "reliability.nonfinite_limit",
    "reliability.grace_seconds",
    "reliability.setup_seconds",
    "reliability.data_seconds",
    "reliability.save_seconds",
    "checkpoint.assumed_bytes_per_second",
)
POSITIVE_WHEN_SET = (
    "train.tokens",
    "train.steps",
    "train.stop_after_steps",
    "model.head_dim",
    "model.sliding_window",
    "data.max_epochs",
    "evaluation.patience",
    "model.rope_scaling.attention_factor",
    "rehearsal.world",
    "parallel.cores",
    "launcher.processes",
    "launcher.slurm.at_once",
    "launcher.limit_minutes",
    "launcher.price_per_node_hour",
)
NOT_NEGATIVE = (
    "optim.weight_decay",
    "checkpoint.every_steps",
    "checkpoint.every_minutes",
    "checkpoint.keep",
    "checkpoint.keep_every",
    "reliability.audit_steps",
    "evaluation.every_steps",
    "evaluation.sample_tokens",
    "evaluation.sample_temperature",
    "data.prefetch",
    "model.full_attention_layers",
    "launcher.slurm.retries",
)
REMEDIES = {("precision.mode", "fp16"): HALF}
"""For values that people ask for, and that there is another way to."""
BETWEEN = (
    ("data.heldout_fraction", 0.0, 0.5),
    ("data.tokenizer.max_unknown", 0.0, 1.0),
    ("data.heldout_documents", 1, 10_000),
    ("schedule.warmup_fraction", 0.0, 1.0),
    ("schedule.min_ratio", 0.0, 1.0),
    ("schedule.decay_fraction", 0.0, 1.0),
)


def lookup(config: Config, key: str) -> Any:
    """The value under a dotted key."""
    return reduce(getattr, key.split("."), config)


def choices(config: Config, world: World) -> Iterator[Problem]:
    """Names out of a closed set."""
    for key, allowed in CHOICES.items():
        if (value := lookup(config, key)) not in allowed:
            names = ", ".join("null" if name is None else name for name in allowed)
            yield Problem(key, value, f"one of: {names}", REMEDIES.get((key, value), f"set {key} to one of them"))


def ranges(config: Config, world: World) -> Iterator[Problem]:
    """Numbers in their ranges; NaN and infinity are in none."""
    for key in POSITIVE:
        if not (math.isfinite(value := lookup(config, key)) and value > 0):
            yield Problem(key, value, "a finite number above 0", f"set {key} above 0")
    for key in POSITIVE_WHEN_SET:
        if (value := lookup(config, key)) is not None and value <= 0:
            yield Problem(key, value, "above 0, or null", f"set {key} above 0, or leave it out")
    for key in NOT_NEGATIVE:
        if not (math.isfinite(value := lookup(config, key)) and value >= 0):
            yield Problem(key, value, "a finite number, 0 or more", f"set {key} to 0 or more")
    for key, low, high in BETWEEN:
        if not low <= (value := lookup(config, key)) <= high:
            yield Problem(key, value, f"between {low:g} and {high:g}", f"set {key} within it")
    if not 0 <= (value := config.model.dropout) < 1:
        yield Problem("model.dropout", value, "0 <= dropout < 1", "0.1 is usual; 0 drops nothing")
    for key in ("optim.beta1", "optim.beta2"):
        if not 0 <= (value := lookup(config, key)) < 1:
            yield Problem(key, value, "0 <= beta < 1", "0.9 and 0.95 are usual for language models")


def model(config: Config, world: World) -> Iterator[Problem]:
    """Dimensions that must divide or agree."""
    m = config.model
    if min(m.hidden, m.heads, m.kv_heads) <= 0:
        return
    if m.head_dim is None and m.hidden % m.heads:
        yield Problem(
            "model.heads", m.heads, f"divides model.hidden ({m.hidden})", "change heads, or set model.head_dim"
        )
    elif head_dim(m) % 2:
        yield Problem("model.head_dim", head_dim(m), "even: the rotary embedding turns pairs", "use an even head size")
    if m.heads % m.kv_heads:
        divisors = [n for n in range(1, m.heads + 1) if m.heads % n == 0]
        yield Problem("model.kv_heads", m.kv_heads, f"divides model.heads ({m.heads})", f"use one of {divisors}")
    scaling = m.rope_scaling
    if scaling.kind == "llama3" and scaling.high_freq_factor <= scaling.low_freq_factor:
        yield Problem(
            "model.rope_scaling.high_freq_factor",
            scaling.high_freq_factor,
            f"above model.rope_scaling.low_freq_factor ({scaling.low_freq_factor:g})",
            "Llama 3.1 uses 4 and 1",
        )
    if config.data.seq_len > m.max_positions:
        remedy = f"data.seq_len={m.max_positions}, or less"
        if m.init_from is None:  # which says the positions itself
            remedy += "; or raise model.max_positions (and set model.rope_scaling)"
        rule = f"at most model.max_positions ({m.max_positions})"
        yield Problem("data.seq_len", config.data.seq_len, rule, remedy)


def length(config: Config, world: World) -> Iterator[Problem]:
    """Length of training: one way to say it, and room for the warm-up."""
    train, schedule = config.train, config.schedule
    if (train.steps is None) == (train.tokens is None):
        yield Problem(
            "train.steps",
            train.steps,
            f"exactly one of train.steps and train.tokens (now {train.tokens}) is set",
            "train.tokens=null to use steps, train.steps=null to use tokens",
        )
        return
    if (train.steps or train.tokens or 0) <= 0 or train.tokens_per_step <= 0:
        return
    if schedule.warmup_steps is not None and not 0 <= schedule.warmup_steps <= total_steps(config):
        yield Problem(
            "schedule.warmup_steps",
            schedule.warmup_steps,
            f"between 0 and the {total_steps(config)} steps of training",
            "lower it, or unset it and use schedule.warmup_fraction",
        )
    stones = schedule.milestones
    if schedule.kind == "multistep" and (sorted(stones) != stones or not all(0 < s < 1 for s in stones)):
        yield Problem(
            "schedule.milestones", stones, "rising shares of training between 0 and 1", "DeepSeek used [0.8, 0.9]"
        )
