"""Every rule of validate.py, reached from a valid configuration by one change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.config.groups.evaluation import EvaluationConfig
from trainer.config.groups.evaluation import EvaluationSetConfig as SetConfig
from trainer.config.groups.model import RopeScalingConfig
from trainer.config.groups.train import TrainConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError
from trainer.evaluation.choices import MEASURES
from trainer.rules.check import validate
from trainer.rules.derived import derive
from trainer.rules.evaluation import CHOICES
from trainer.rules.quantities import pretended
from trainer.run.world import World

VALID = Config(
    recipe="tiny",
    train=TrainConfig(steps=100, tokens_per_step=8192, microbatch=4),
    data=DataConfig(sources=[SourceConfig(kind="python_stdlib")]),
)
ONE = World(cpu_bf16=True)


def changed(config: Any, key: str, value: Any) -> Any:
    """A frozen configuration with the value under a dotted key replaced."""
    head, _, rest = key.partition(".")
    return replace(config, **{head: changed(getattr(config, head), rest, value) if rest else value})


BAD: list[tuple[str, Any, str, str]] = [
    # key, value, key that the problem names, words of its rule or remedy
    ("optim.lr", 0.0, "optim.lr", "above 0"),
    ("optim.lr", float("nan"), "optim.lr", "finite"),
    ("optim.lr", float("inf"), "optim.lr", "finite"),
    ("optim.beta2", 1.0, "optim.beta2", "beta < 1"),
    ("optim.weight_decay", -0.1, "optim.weight_decay", "0 or more"),
    ("optim.name", "lion", "optim.name", "adamw"),
    ("optim.clip_norm", 0.0, "optim.clip_norm", "above 0"),
    ("schedule.kind", "cosin", "schedule.kind", "cosine"),
    ("schedule.warmup_steps", 101, "schedule.warmup_steps", "100 steps"),
    ("schedule.warmup_fraction", 1.5, "schedule.warmup_fraction", "between 0 and 1"),
    ("precision.mode", "fp8", "precision.mode", "bf16_mixed"),
    ("precision.mode", "fp16", "precision.mode", "--dtype float16 to scripts/export_hf.py"),
    ("checkpoint.export_hf", "always", "checkpoint.export_hf", "null, last, every"),
    ("backend.name", "cuda", "backend.name", "native"),
    ("backend.name", "neuron", "backend.name", "Trainium"),
    ("rehearsal.world", 0, "rehearsal.world", "above 0"),
    ("model.heads", 3, "model.heads", "divides model.hidden"),
    ("model.kv_heads", 3, "model.kv_heads", "[1, 2, 4]"),
    ("model.head_dim", 33, "model.head_dim", "even"),
    ("model.hidden", 0, "model.hidden", "above 0"),
    ("model.qk_norm", "head", "model.qk_norm", "model.family=qwen3"),
    ("model.qkv_bias", True, "model.o_bias", "model.family=qwen2"),
    ("model.sliding_window", 128, "model.sliding_window", "model.family=mistral"),
    ("model.activation", "gelu", "model.activation", "docs/extending.md"),
    ("model.rope_scaling.kind", "lama3", "model.rope_scaling.kind", "llama3"),
    ("data.tokenizer.max_unknown", 1.5, "data.tokenizer.max_unknown", "between 0 and 1"),
    ("data.seq_len", 4096, "data.seq_len", "model.max_positions"),
    ("data.seq_len", 500, "train.tokens_per_step", "multiple of data.seq_len"),
    ("train.microbatch", 3, "train.microbatch", "divides the 16 samples"),
    ("train.tokens", 10**6, "train.steps", "exactly one"),
    ("train.steps", None, "train.steps", "exactly one"),
    ("train.stop_after_steps", 0, "train.stop_after_steps", "above 0"),
    ("parallel.tp", 2, "parallel", "divides the number of processes"),
    ("data.sources", [], "data.sources", "at least one"),
    ("data.sources", [SourceConfig(kind="csv", paths=["x"])], "data.sources.0.kind", "python_stdlib"),
    ("data.sources", [SourceConfig(kind="files")], "data.sources.0.paths", "at least one file"),
    ("data.sources", [SourceConfig(kind="python_stdlib")] * 2, "data.sources", "unique"),
    ("evaluation.sets", [SetConfig("wiki")], "evaluation.sets.0.paths", "at least one file"),
    ("evaluation.sets", [SetConfig("a/b", paths=["x"])], "evaluation.sets.0.name", "letters, digits"),
    ("evaluation.sets", [SetConfig("heldout", paths=["x"])], "evaluation.sets", "data.heldout_fraction"),
    ("evaluation.sets", [SetConfig("a", paths=["x"]), SetConfig("a", paths=["y"])], "evaluation.sets", "unique"),
    ("evaluation.sets", [SetConfig("a", "quiz", ["x"])], "evaluation.sets.0.kind", "text, tasks"),
    ("evaluation.sets", [SetConfig("a", "tasks", ["x", "y"])], "evaluation.sets.0.paths", "its own name"),
    ("evaluation.sets", [SetConfig("a", paths=["s3://b/x"])], "evaluation.sets.0.paths", "remote"),
    ("evaluation.sets", [SetConfig("a", paths=["x"], document_unit="page")], "evaluation.sets.0.document_unit", "line"),
    ("evaluation.best", "loss", "evaluation.best", "evaluation.best=heldout/loss"),
    ("evaluation.best", "quiz/acc", "evaluation.best", "the sets are heldout"),
    ("evaluation.best", "heldout/acc", "evaluation.best", "loss, bits_per_byte"),
    ("evaluation.patience", 3, "evaluation.patience", "evaluation.best=heldout/loss"),
    ("evaluation.patience", 0, "evaluation.patience", "above 0"),
    ("task", "finetune", "model.init_from", "task=pretrain"),
    ("adapter.kind", "lora", "adapter.kind", "model.init_from="),
    ("adapter.kind", "dora", "adapter.kind", "DoRA is adapter.dora"),
    ("adapter.dora", True, "adapter.dora", "adapter=lora"),
    ("adapter.also_train", ["*norm*"], "adapter.also_train", "adapter=lora"),
    ("adapter.init_from", "somewhere", "adapter.init_from", "adapter=lora"),
    ("data.sources", [SourceConfig(paths=["x"], format="xml")], "data.sources.0.format", "parquet"),
    ("evaluation.sets", [SetConfig("a", paths=["x"], format="xml")], "evaluation.sets.0.format", "parquet"),
    ("data.bad_documents", "ignore", "data.bad_documents", "stop"),
    ("data.sources", [SourceConfig(kind="python_stdlib", weight=0.0)], "data.sources.0.weight", "above 0"),
    ("data.sources", [SourceConfig(kind="indexed", paths=["x"])], "data.tokenizer.kind", "token ids"),
    (
        "model.rope_scaling",
        RopeScalingConfig(kind="llama3", low_freq_factor=4.0),
        "model.rope_scaling.high_freq_factor",
        "above",
    ),
    ("data.tokenizer", TokenizerConfig(kind="file"), "data.tokenizer.path", "tokenizer.json"),
    ("data.tokenizer.vocab", 100, "data.tokenizer.vocab", "256 bytes"),
    ("data.tokenizer.vocab", 9999, "data.tokenizer.vocab", "model.vocab=9999"),
    ("data.heldout_fraction", 0.9, "data.heldout_fraction", "between 0 and 0.5"),
    ("data.heldout_documents", 10_001, "data.heldout_documents", "between 1 and 10000"),
    ("data.packing", "bfd", "data.packing", "contiguous, best_fit"),
    ("data.long_documents", "cut", "data.long_documents", "split, truncate, drop"),
    ("data.long_documents", "drop", "data.long_documents", "add data.packing=best_fit, or set it to split"),
    ("data.heldout_documents", 0, "data.heldout_documents", "between 1 and 10000"),
    ("data.prefetch", -1, "data.prefetch", "0 or more"),
    ("checkpoint.every_steps", -5, "checkpoint.every_steps", "0 or more"),
    ("reliability.nonfinite", "ignore", "reliability.nonfinite", "skip"),
    ("logging.progress", "fancy", "logging.progress", "lines"),
    ("task", "dance", "task", "pretrain"),
    ("data.tokenizer.path", "mine.json", "data.tokenizer.path", "kind=file"),
    ("run.root", "s3://bucket/runs", "run.root", "a local or mounted directory"),
    ("run.root", " ", "run.root", "names a directory"),
    ("run.root", "~nobody-of-this-name/runs", "run.root", "./~nobody-of-this-name/runs"),
    ("data.cache_dir", "gs://bucket/cache", "data.cache_dir", "a local or mounted directory"),
    ("data.sources", [SourceConfig(paths=["x", "gs://b/*.txt"])], "data.sources.0.paths", "remote paths are not read"),
    ("data.sources", [SourceConfig(kind="huggingface", paths=["s3://b/x"])], "data.sources.0.paths", "are not read"),
    ("data.sources", [SourceConfig(paths=["s3://b*/x"])], "data.sources.0.paths", "names a bucket"),
    ("data.sources", [SourceConfig(paths=["s3://bucket"])], "data.sources.0.paths", "names a bucket"),
    ("data.tokenizer.path", "s3://b/tokenizer.json", "data.tokenizer.path", "remote"),
    ("data.cache_dir", "s3://b/cache", "data.cache_dir", "a local or mounted directory"),
    ("data.cache_gb", 0.0, "data.cache_gb", "above 0"),
    ("data.tokenizer", TokenizerConfig(kind="file", path="https://h/t"), "data.tokenizer.path", "remote paths"),
    ("data.sources", [SourceConfig(paths=[""])], "data.sources.0.paths", "empty"),
    ("data.cache_dir", "", "data.cache_dir", "names a directory"),
    ("resume.allow", ["optim.lrr"], "resume.allow", "optim.lr"),
    ("seed", 2**63, "seed", "2**63"),
    ("run.name", "x" * 300, "run.name", "200 bytes"),
    ("run.name", "a/b", "run.name", "plain directory name"),
]


def test_the_valid_configuration_is_valid() -> None:
    validate(VALID, ONE)


@pytest.mark.parametrize(("key", "value", "named", "words"), BAD)
def test_one_mistake_is_one_problem_with_its_remedy(key: str, value: Any, named: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate(changed(VALID, key, value), ONE)
    found = [problem for problem in raised.value.problems if problem.key == named]
    assert found, raised.value.report()
    assert len(raised.value.problems) <= 2, "one mistake may break a second rule, not more"
    assert any(words in problem.rule + problem.remedy for problem in found)
    assert all(problem.rule and problem.remedy for problem in raised.value.problems)
    assert raised.value.code == 3


def test_all_problems_are_reported_at_once() -> None:
    bad = changed(changed(changed(VALID, "optim.lr", -1.0), "model.heads", 3), "schedule.kind", "x")
    with pytest.raises(ConfigError) as raised:
        validate(bad, ONE)
    assert {p.key for p in raised.value.problems} >= {"optim.lr", "model.heads", "schedule.kind"}
    assert all(f"{i}. " in raised.value.report() for i in range(1, len(raised.value.problems) + 1))


def test_milestones_must_rise() -> None:
    bad = changed(changed(VALID, "schedule.kind", "multistep"), "schedule.milestones", [0.9, 0.8])
    with pytest.raises(ConfigError, match="milestones"):
        validate(bad, ONE)


@pytest.mark.parametrize(
    ("processes", "microbatch", "accumulation"), [(1, 4, 4), (2, 4, 2), (4, 4, 1), (1, 16, 1), (4, 1, 4)]
)
def test_accumulation_makes_up_the_global_batch(processes: int, microbatch: int, accumulation: int) -> None:
    config = changed(VALID, "train.microbatch", microbatch)
    world = replace(ONE, size=processes)
    validate(config, world)
    derived = derive(config, world)
    assert (derived.dp, derived.samples_per_step, derived.accumulation) == (processes, 16, accumulation)
    assert any(line.startswith("accumulation") and "16 samples" in line for line in derived.reasons)


def test_length_and_warm_up_are_derived() -> None:
    config = replace(VALID, train=replace(VALID.train, steps=None, tokens=8192 * 50 + 1))
    derived = derive(config, ONE)
    assert derived.steps == 51
    assert derived.warmup_steps == 1
    assert derive(changed(config, "schedule.warmup_fraction", 0.2), ONE).warmup_steps == 10
    assert derive(changed(config, "schedule.warmup_steps", 7), ONE).warmup_steps == 7


def test_a_cpu_without_bf16_falls_back_and_says_so() -> None:
    old = World(cpu_bf16=False)
    derived = derive(VALID, old)
    assert derived.precision == "fp32"
    assert any("no BF16 instructions" in line for line in derived.reasons)
    assert derive(changed(VALID, "precision.cpu_fallback", None), old).precision == "bf16_mixed"
    assert derive(VALID, ONE).precision == "bf16_mixed"


def test_trainium_is_used_where_it_is() -> None:
    there = replace(ONE, trainium=True)
    validate(VALID, there)
    assert derive(VALID, there).backend == "neuron"
    assert derive(VALID, ONE).backend == "native"
    validate(changed(VALID, "backend.name", "native"), replace(ONE, trainium=True))


def fake(**changes: Any) -> tuple[Config, World]:
    """The valid configuration as a rehearsal, and the world that it pretends."""
    config = changed(VALID, "backend.name", "fake")
    for key, value in changes.items():
        config = changed(config, key.replace("_", ".", 1), value)
    return config, pretended(config, replace(ONE, cpu_bf16=False))


@pytest.mark.parametrize(
    ("changes", "size", "dp"),
    [
        ({}, 1, 1),
        ({"rehearsal_world": 4}, 4, 4),
        # 16 samples in microbatches of 4 do not divide among the 16 copies on a node, in microbatches of 1 they do.
        ({"parallel_tp": 2}, 2, 1),
        ({"parallel_tp": 2, "train_microbatch": 1}, 32, 16),
        ({"parallel_tp": 8}, 32, 4),
        ({"parallel_tp": 64}, 64, 1),
        ({"parallel_tp": 16, "rehearsal_world": 64, "train_microbatch": 4}, 64, 4),
    ],
)
def test_a_rehearsal_is_judged_in_the_world_it_pretends(changes: dict[str, Any], size: int, dp: int) -> None:
    config, world = fake(**changes)
    assert (world.size, world.rank, world.launched) == (size, 0, 1)
    validate(config, world)
    derived = derive(config, world)
    assert (derived.backend, derived.dp, derived.precision) == ("fake", dp, "bf16_mixed"), "nothing falls back"


@pytest.mark.parametrize(
    ("changes", "named", "words"),
    [
        ({"rehearsal_rank": 4, "rehearsal_world": 4}, "rehearsal.rank", "0 to 3"),
        ({"rehearsal_rank": -1}, "rehearsal.rank", "0 to 0"),
        ({"optim_name": "torch.optim:SGD"}, "optim.name", "for a rehearsal"),
        ({"rehearsal_world": 7}, "train.microbatch", "divides the 16 samples"),
        ({"rehearsal_world": 6, "parallel_tp": 4}, "parallel", "rehearsal.world=4"),
    ],
)
def test_a_rehearsal_that_cannot_be_says_why(changes: dict[str, Any], named: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate(*fake(**changes))
    (problem,) = raised.value.problems
    assert problem.key == named
    assert words in problem.rule + problem.remedy


def test_a_rehearsal_needs_one_process() -> None:
    config, _ = fake()
    with pytest.raises(ConfigError, match="one process pretends all"):
        validate(config, pretended(config, replace(ONE, size=2, rank=1)))


def test_documents_that_share_a_sample_are_masked() -> None:
    packed = changed(VALID, "data.packing", "best_fit")
    validate(packed, ONE)
    with pytest.raises(ConfigError) as caught:
        validate(changed(packed, "data.document_mask", False), ONE)
    (problem,) = caught.value.problems
    assert problem.key == "data.document_mask"
    assert "attend to each other" in problem.rule


def test_sets_without_evaluations_are_refused() -> None:
    off = EvaluationConfig(every_steps=0, sets=[SetConfig("a", paths=["x"])], best="a/loss")
    with pytest.raises(ConfigError) as raised:
        validate(replace(VALID, evaluation=off), ONE)
    assert {problem.key for problem in raised.value.problems} == {"evaluation.every_steps", "evaluation.best"}


def test_without_held_out_text_nothing_of_it_is_recommended() -> None:
    without = replace(VALID, data=replace(VALID.data, heldout_fraction=0.0))
    for sets, remedy in (([], "evaluation.best=null"), ([SetConfig("q", "tasks", ["x"])], "evaluation.best=q/acc")):
        with pytest.raises(ConfigError, match=f"remedy: .*{remedy}"):
            validate(replace(without, evaluation=EvaluationConfig(best="heldout/loss", sets=sets)), ONE)
    validate(replace(without, evaluation=EvaluationConfig(best="q/acc", sets=sets)), ONE)


def test_metrics_are_those_that_are_measured() -> None:
    assert tuple(CHOICES) == MEASURES
    on = replace(VALID, evaluation=EvaluationConfig(sets=[SetConfig("q", "tasks", ["x"])], best="q/exact_match"))
    validate(on, ONE)
