"""Metrics that arrive two steps late, as on an XLA device, tell the same story as metrics that are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes import pretrain
from tests import harness
from trainer.backends.native.backend import NativeBackend
from trainer.config.groups.checkpoint import CheckpointConfig
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.config.groups.evaluation import EvaluationConfig
from trainer.config.groups.logging import LoggingConfig
from trainer.config.groups.model import ModelConfig
from trainer.config.groups.optim import OptimConfig
from trainer.config.groups.precision import PrecisionConfig
from trainer.config.groups.run import RunConfig
from trainer.config.groups.train import TrainConfig
from trainer.config.schema import Config
from trainer.errors import NonFiniteError
from trainer.rules.derived import derive
from trainer.run.world import World

pytestmark = pytest.mark.slow


def train(directory: Path, name: str, lr: float) -> Path:
    config = Config(
        recipe="tiny",
        run=RunConfig(root=str(directory / "runs"), name=name),
        train=TrainConfig(steps=9, tokens_per_step=256, microbatch=2),
        model=ModelConfig(hidden=32, layers=1, heads=2, kv_heads=2, mlp=48, vocab=300),
        data=DataConfig(
            sources=[SourceConfig(paths=[str(directory / "corpus")])],
            tokenizer=TokenizerConfig(vocab=300),
            seq_len=64,
            heldout_fraction=0.1,
            cache_dir=str(directory / "cache"),
        ),
        optim=OptimConfig(lr=lr),
        precision=PrecisionConfig(mode="fp32"),
        checkpoint=CheckpointConfig(every_steps=4, keep=0),
        evaluation=EvaluationConfig(every_steps=3, windows=4, sample_prompt=""),
        logging=LoggingConfig(progress="off"),
    )
    world = World()
    pretrain.run(config, derive(config, world), world, [])
    return Path(config.run.root) / name


def story(run: Path) -> list[tuple[object, ...]]:
    """Every record's facts, clocks left out, by kind and step."""
    kept = ("step", "loss", "grad_norm", "finite", "lr", "target_tokens", "tokens", "heldout_loss")
    kinds = ("step", "evaluation", "save")
    return [tuple(r.get(k) for k in kept) for kind in kinds for r in harness.records(run, kind)]


def test_late_metrics_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.write_corpus(tmp_path / "corpus")
    at_once = story(train(tmp_path, "at-once", 1e-3))
    monkeypatch.setattr(NativeBackend, "fetch_delay", 2)
    assert story(train(tmp_path, "late", 1e-3)) == at_once
    assert len(at_once) == 9 + 3 + 3


def test_nothing_is_saved_after_a_late_bad_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bad step is known only after the next ones ran; their save must not happen."""
    harness.write_corpus(tmp_path / "corpus")
    monkeypatch.setattr(NativeBackend, "fetch_delay", 2)
    with pytest.raises(NonFiniteError):
        train(tmp_path, "hot", 1e30)
    records = harness.records(tmp_path / "runs" / "hot")
    first_bad = next(r["step"] for r in records if not r["finite"])
    assert records[-1]["step"] == first_bad
    assert all(s["step"] < first_bad for s in harness.records(tmp_path / "runs" / "hot", "save"))
