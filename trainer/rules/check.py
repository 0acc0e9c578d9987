"""All the rules that a configuration must keep, checked at once and before anything heavy starts. No torch.

Each rule yields a Problem with its key, value, rule and remedy. Add a rule beside its kin and a row to
tests/unit/test_validate.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

from trainer.config.arithmetic import head_dim
from trainer.config.compose import all_keys, flatten, nearest_key
from trainer.config.plugins import problem_of
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.files import is_directory_name
from trainer.redact import HIDDEN, redact
from trainer.rules.derived import backend_name, model_parallel_size, total_steps
from trainer.rules.layout import layouts
from trainer.rules.neuron import neuron, neuron_machine
from trainer.run.world import World
from trainer.trainium.topology import CORES_OF_A_NODE
from trainer.trainium.torchrun import torchrun

CHOICES = {
    "model.rope_scaling.kind": ("none", "linear", "llama3"),
    "data.tokenizer.kind": ("train_bpe", "file"),
    "optim.name": ("adamw",),
    "schedule.kind": ("cosine", "wsd", "linear", "constant", "multistep"),
    "precision.mode": ("fp32", "bf16_mixed", "bf16"),
    "precision.cpu_fallback": (None, "fp32", "bf16_mixed", "bf16"),
    "logging.progress": ("auto", "bar", "lines", "off"),
    "logging.wandb.mode": ("off", "auto", "online", "offline"),
    "backend.name": ("auto", "native", "neuron", "fake"),
    "reliability.nonfinite": ("stop", "skip"),
}
SOURCE_KINDS = ("files", "python_stdlib", "huggingface", "indexed", "plugin")
DOCUMENT_UNITS = ("file", "paragraph", "line")

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
    "model.init_std",
    "model.loss_chunk_tokens",
    "data.seq_len",
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
    "reliability.nonfinite_limit",
    "reliability.grace_seconds",
)
POSITIVE_WHEN_SET = ("train.tokens", "train.steps", "train.stop_after_steps", "model.head_dim", "backend.world")
NOT_NEGATIVE = (
    "optim.weight_decay",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "evaluation.every_steps",
    "evaluation.sample_tokens",
    "evaluation.sample_temperature",
    "data.prefetch",
)
SHARES = (
    ("data.heldout_fraction", 0.0, 0.5),
    ("schedule.warmup_fraction", 0.0, 1.0),
    ("schedule.min_ratio", 0.0, 1.0),
    ("schedule.decay_fraction", 0.0, 1.0),
)


def validate(config: Config, world: World, rules: Iterable[Rule] | None = None) -> None:
    """Check every rule, or those given. Raises ConfigError with all problems at once."""
    problems = [problem for rule in (RULES if rules is None else rules) for problem in rule(config, world)]
    if problems:
        raise ConfigError(problems)


def lookup(config: Config, key: str) -> Any:
    """The value under a dotted key."""
    return reduce(getattr, key.split("."), config)


def choices(config: Config, world: World) -> Iterator[Problem]:
    """Names out of a closed set."""
    for key, allowed in CHOICES.items():
        if (value := lookup(config, key)) not in allowed:
            names = ", ".join("null" if name is None else name for name in allowed)
            yield Problem(key, value, f"one of: {names}", f"set {key} to one of them")


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
    for key, low, high in SHARES:
        if not low <= (value := lookup(config, key)) <= high:
            yield Problem(key, value, f"between {low:g} and {high:g}", f"set {key} within it")
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
        yield Problem(
            "data.seq_len",
            config.data.seq_len,
            f"at most model.max_positions ({m.max_positions})",
            "shorten data.seq_len, or raise model.max_positions (and set model.rope_scaling)",
        )


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


def batch(config: Config, world: World) -> Iterator[Problem]:
    """The global batch must split evenly into samples, ranks and microbatches."""
    per_step, seq, micro = config.train.tokens_per_step, config.data.seq_len, config.train.microbatch
    if min(per_step, seq, micro, model_parallel_size(config)) <= 0:
        return
    if per_step % seq:
        near = max(seq, round(per_step / seq) * seq)
        yield Problem("train.tokens_per_step", per_step, f"a multiple of data.seq_len ({seq})", f"use {near}")
        return
    dp, left_over = divmod(world.size, model_parallel_size(config))
    samples = per_step // seq
    if dp and not left_over and samples % (micro * dp):
        fits = [n for n in range(1, samples + 1) if samples % (n * dp) == 0]
        remedy = (
            f"train.microbatch={max(n for n in fits if n <= micro or n == fits[0])}"
            if fits
            else f"train.tokens_per_step={seq * micro * dp}, or a number of processes that divides {samples}"
        )
        yield Problem(
            "train.microbatch",
            micro,
            f"microbatch x data-parallel size ({dp}) divides the {samples} samples of a step",
            remedy,
        )


def layout(config: Config, world: World) -> Iterator[Problem]:
    """The parallel axes against the number of processes."""
    size = model_parallel_size(config)
    if size > 0 and world.size % size:
        yield Problem(
            "parallel",
            f"tp {config.parallel.tp} x pp {config.parallel.pp} x cp {config.parallel.cp}",
            f"their product ({size}) divides the number of processes ({world.size})",
            command_line(config, world),
        )


def command_line(config: Config, world: World) -> str:
    """How to start this configuration with the smallest number of processes that fits it."""
    size, recipe = model_parallel_size(config), f"scripts/train.py recipe={config.recipe}"
    if backend_name(config, world) == "fake":
        return f"backend.world={max(size, world.size // size * size)}, or another multiple of {size}"
    if backend_name(config, world) != "neuron":
        return f"torchrun --standalone --nproc_per_node {size} {recipe} ... (and your overrides)"
    nodes = math.lcm(size, CORES_OF_A_NODE) // CORES_OF_A_NODE
    launch = " ".join(argument.text for argument in torchrun(nodes, config.recipe or "run"))
    command = f"{launch} {recipe} ... (and your overrides)"
    if nodes == 1:
        return command
    return f"on each of {nodes} nodes or a multiple: {command}; HOST: the first node's address"


def tensor_parallel(config: Config, world: World) -> Iterator[Problem]:
    """Dims that the tensor-parallel ranks cut evenly. Heads need not divide: they are padded and replicated."""
    tp = config.parallel.tp
    if tp <= 1:
        return
    for key, what in (("model.mlp", "the feed-forward's width"), ("model.vocab", "rows of the embedding and the head")):
        size = lookup(config, key)
        if size > 0 and size % tp:
            legal = max(n for n in range(1, min(tp, size + 1)) if size % n == 0)
            remedy = f"parallel.tp={legal}, or {key}={-(-size // tp) * tp}"
            yield Problem(key, size, f"divided by parallel.tp ({tp}), which cuts {what}", remedy)


def rehearsal(config: Config, world: World) -> Iterator[Problem]:
    """backend=fake: one process pretends to be a rank of a world. Called with that world."""
    if config.backend.name != "fake":
        return
    if (world.launched or 1) > 1:
        rule = f"one process pretends all of them, and there are {world.launched}"
        yield Problem(
            "backend.name", "fake", rule, f"leave out torchrun: python scripts/train.py recipe={config.recipe} ..."
        )
    if config.optim._target_ is not None:
        rule = "unset for a rehearsal: an optimizer of yours acts on values, and its tensors have none"
        yield Problem("optim._target_", config.optim._target_, rule, "leave it out; adamw keeps as much state or more")
    rank = config.backend.rank
    if rank is not None and not 0 <= rank < world.size:
        rule = f"a rank of the pretended world: 0 to {world.size - 1}"
        yield Problem("backend.rank", rank, rule, "choose one of them, a larger backend.world, or leave it out")


def recipe(config: Config, world: World) -> Iterator[Problem]:
    """The kind of training exists, and the run's name is a directory name."""
    tasks = sorted(p.stem for p in (Path(__file__).parents[2] / "recipes").glob("[a-z]*.py"))
    if config.task not in tasks:
        yield Problem("task", config.task, f"a module of recipes/: {', '.join(tasks)}", "set task to one of them")
    name = config.run.name
    if name is not None and not is_directory_name(name):
        yield Problem("run.name", name, "a plain directory name of at most 200 bytes", "set a short run.name")
    if not 0 <= config.seed < 2**63:
        yield Problem("seed", config.seed, "0 <= seed < 2**63", "use a smaller number")
    for key in ("run.root", "data.cache_dir"):
        if not str(lookup(config, key)).strip():
            yield Problem(key, lookup(config, key), "names a directory", f"set {key}, or leave it out")
    for key in config.resume.allow:
        if key not in ("data", *all_keys()):
            yield Problem("resume.allow", key, "keys of the configuration", f"did you mean {nearest_key(key)}?")


def plugins(config: Config, world: World) -> Iterator[Problem]:
    """A user's own code is named completely and can be found; importing it comes later."""
    targets = {"optim._target_": config.optim._target_}
    for source in config.data.sources:
        key = f"data.sources[{source.name}]"
        targets[f"{key}._target_"] = source._target_
        if (source.kind == "plugin") != (source._target_ is not None):
            rule = f"plugin if and only if _target_ is set (now {source._target_})"
            yield Problem(f"{key}.kind", source.kind, rule, "{kind: plugin, _target_: package.module.callable}")
    for key, target in targets.items():
        if target is not None and (problem := problem_of(key, target)) is not None:
            yield problem
    if config.optim.options and config.optim._target_ is None:
        remedy = "set optim._target_, or the values of optim itself"
        yield Problem("optim.options", config.optim.options, "used only with optim._target_", remedy)


def tracker(config: Config, world: World) -> Iterator[Problem]:
    """W&B online needs an account."""
    if config.logging.wandb.mode == "online" and not world.wandb_account:
        rule = "needs an account: WANDB_API_KEY in the environment, or `wandb login` once"
        yield Problem("logging.wandb.mode", "online", rule, "provide one, or logging.wandb.mode=auto (offline without)")


def secrets(config: Config, world: World) -> Iterator[Problem]:
    """No value is a secret: config.yaml and the trackers keep every value."""
    for key, value in flatten(asdict(config)).items():
        if redact({key: value}) != {key: value}:
            rule = "holds no secret: the run's config.yaml and its trackers would keep it"
            yield Problem(key, HIDDEN, rule, "take it out: libraries read their environment variables themselves")


def sources(config: Config, world: World) -> Iterator[Problem]:
    """Sources are said completely. Whether they can be read is for trainer.data (exit 4)."""
    if not config.data.sources:
        yield Problem(
            "data.sources", [], "at least one source", "data=python_stdlib, or data.sources=[{paths: [my/*.txt]}]"
        )
    names = [source.name for source in config.data.sources]
    if len(set(names)) != len(names):
        yield Problem("data.sources", names, "names are unique", "give each source a name of its own")
    for source in config.data.sources:
        key = f"data.sources[{source.name}]"
        if source.kind not in SOURCE_KINDS:
            yield Problem(f"{key}.kind", source.kind, f"one of: {', '.join(SOURCE_KINDS)}", "set it to one of them")
        elif source.kind not in ("python_stdlib", "plugin") and not source.paths:
            yield Problem(f"{key}.paths", [], "names at least one file, glob or data set", "set paths: [...]")
        elif not all(path.strip() for path in source.paths):
            yield Problem(f"{key}.paths", source.paths, "no path is empty", "use . for this directory, if you mean it")
        if source.document_unit not in DOCUMENT_UNITS:
            yield Problem(
                f"{key}.document_unit", source.document_unit, f"one of: {', '.join(DOCUMENT_UNITS)}", "set it to one"
            )
        if not (math.isfinite(source.weight) and source.weight > 0):
            yield Problem(f"{key}.weight", source.weight, "a finite number above 0", "drop the source to leave it out")


def tokenizer(config: Config, world: World) -> Iterator[Problem]:
    """The tokenizer is said completely and fits the model and the sources."""
    tokenizer = config.data.tokenizer
    for source in config.data.sources:
        if source.kind == "indexed" and tokenizer.kind != "file":
            rule = f"file, because data.sources[{source.name}] holds token ids already"
            remedy = "set data.tokenizer.path to the tokenizer that made the files"
            yield Problem("data.tokenizer.kind", tokenizer.kind, rule, remedy)
    if tokenizer.kind != "file" and tokenizer.path:
        rule = f"used only by kind=file, and data.tokenizer.kind is {tokenizer.kind}"
        yield Problem("data.tokenizer.path", tokenizer.path, rule, "add data.tokenizer.kind=file")
    if tokenizer.kind == "file" and not tokenizer.path:
        yield Problem(
            "data.tokenizer.path", tokenizer.path, "needed by kind=file", "name a tokenizer.json or its directory"
        )
    if tokenizer.kind == "train_bpe":
        if tokenizer.vocab < 257:
            yield Problem("data.tokenizer.vocab", tokenizer.vocab, "256 bytes and the end-of-text token fit", "use 512")
        if tokenizer.vocab > config.model.vocab:
            yield Problem(
                "data.tokenizer.vocab",
                tokenizer.vocab,
                f"at most model.vocab ({config.model.vocab})",
                f"set model.vocab={tokenizer.vocab}",
            )


Rule = Callable[[Config, World], Iterator[Problem]]
RULES: tuple[Rule, ...] = (
    choices,
    ranges,
    model,
    length,
    batch,
    layout,
    tensor_parallel,
    layouts,
    neuron,
    neuron_machine,
    rehearsal,
    recipe,
    plugins,
    tracker,
    secrets,
    sources,
    tokenizer,
)
ABOUT_THIS_LAUNCH: tuple[Rule, ...] = (batch, layout, neuron_machine, rehearsal)
"""Rules about the processes and the machine at hand, rather than the configuration alone."""
