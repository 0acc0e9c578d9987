"""Whole runs that begin with weights of Hugging Face's layout, or of another run of ours: model.init_from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from recipes.parts import make_loader
from tests import harness
from trainer.batch import IGNORED_LABEL
from trainer.checkpoint.index import read_index
from trainer.checkpoint.slices import fill
from trainer.checkpoint.state import TrainState
from trainer.config.compose import to_config
from trainer.data.corpus import prepare_corpus
from trainer.parallel.boxes import Placed, whole_box
from trainer.rules.derived import derive
from trainer.run.world import World

pytestmark = pytest.mark.slow

CORPUS = "data.sources=[{paths: [corpus]}]"
SHORT = [
    *("recipe=tiny", CORPUS, "precision=fp32", "data.seq_len=64", "data.heldout_fraction=0.1"),
    *("train.tokens=null", "train.steps=3", "train.tokens_per_step=512", "train.microbatch=2"),
    *("schedule=constant", "optim.lr=1e-3", "checkpoint.every_steps=0", "evaluation.every_steps=0"),
    *("logging.every_steps=1", "data.document_mask=false"),
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus; a random Llama that transformers saved; a tokenizer beside it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    cwd = tmp_path_factory.mktemp("init")
    harness.write_corpus(cwd / "corpus")
    torch.manual_seed(3)
    config = LlamaConfig(
        **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 320},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-6},
        initializer_range=0.2,  # far from uniform predictions: another model's loss would differ in the first digit
        rope_theta=50000.0,
    )
    LlamaForCausalLM(config).save_pretrained(cwd / "llama", max_shard_size="100KB")
    _learn_tokenizer(cwd)
    return cwd


def _learn_tokenizer(cwd: Path) -> None:
    from trainer.data.tokenizer import train_bpe

    texts = (path.read_text() for path in sorted((cwd / "corpus").iterdir()))
    train_bpe(texts, 300).save(cwd / "llama" / "tokenizer.json")


@pytest.fixture(scope="module")
def trained(workspace: Path) -> tuple[Path, str]:
    """Three steps from transformers' directory, on two processes; the run, and what it printed."""
    done = harness.train(workspace, [*SHORT, "model.init_from=llama", "run.name=first", "parallel.zero=3"], processes=2)
    assert done.code == 0, done.output
    return workspace / "runs" / "first", done.output


def test_the_first_loss_is_transformers(
    workspace: Path, trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    monkeypatch.chdir(workspace)
    run, output = trained
    assert "dimensions     from llama: llama, 2 layers, hidden 64, 4 heads (2 of keys and values), mlp 96" in output
    assert "21 in float32; from step 0" in output
    assert "tokenizer      llama/tokenizer.json: 300 ids; 20 rows have no id" in output
    config = to_config(
        {key: value for key, value in yaml.safe_load((run / "config.yaml").read_text()).items() if key != "hydra"}
    )
    loader = make_loader(config, derive(config, World()), prepare_corpus(config.data, 320), 0, TrainState())
    batches = next(iter(loader)).microbatches
    loader.close()
    theirs = LlamaForCausalLM.from_pretrained(workspace / "llama", dtype=torch.float32)
    losses = []
    with torch.no_grad():
        for batch in batches:
            logits = theirs(batch.tokens, use_cache=False).logits
            labels = batch.labels.flatten()
            losses.append(F.cross_entropy(logits.flatten(0, 1), labels, reduction="none")[labels != IGNORED_LABEL])
    expected = torch.cat(losses).mean().item()
    (first, *_) = harness.records(run)
    assert expected > math.log(320), "random weights of this size are worse than uniform predictions"
    assert first["loss"] == pytest.approx(expected, abs=1e-4)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    index = read_index(checkpoint / "model")
    found = {name: torch.empty(stored.shape, dtype=getattr(torch, stored.dtype)) for name, stored in index.items()}
    placed = {name: Placed(t, (whole_box(name, tuple(t.shape)),), tuple(t.shape)) for name, t in found.items()}
    fill(checkpoint / "model", index, placed)
    return found


def test_a_run_begins_where_another_ended(workspace: Path, trained: tuple[Path, str]) -> None:
    """Another layout, no optimizer state, step 0; and without a step trained, the weights are the other run's."""
    still = [*SHORT, "model.init_from=runs/first", "run.name=second", "optim.lr=1e-30", "optim.weight_decay=0"]
    done = harness.train(workspace, [*still, "parallel.tp=2", "train.steps=1"], processes=2)
    assert done.code == 0, done.output
    assert "dimensions     from runs/first/checkpoints/step-00000003: llama, 2 layers" in done.output
    assert "starting second at step 0" in done.output
    before = weights(workspace / "runs/first/checkpoints/step-00000003")
    after = weights(workspace / "runs/second/checkpoints/step-00000001")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = harness.train(workspace, [*still, "parallel.tp=2", "train.steps=1"], processes=2)
    assert again.code == 0
    assert "is complete" in again.output
    assert (
        "the run has begun, and model.init_from (runs/first/checkpoints/step-00000003) is not read again"
        in again.output
    )


@pytest.mark.long
def test_a_resume_needs_the_directory_no_longer(workspace: Path, trained: tuple[Path, str]) -> None:
    directory, gone = workspace / "llama", workspace / "gone"
    arguments = [*SHORT, "model.init_from=llama", "run.name=parts"]
    arguments += ["data.tokenizer.kind=file", "data.tokenizer.path=tokenizer.json"]
    (workspace / "tokenizer.json").write_bytes((directory / "tokenizer.json").read_bytes())
    done = harness.train(workspace, [*arguments, "train.stop_after_steps=2"])
    assert done.code == 0, done.output
    directory.rename(gone)
    try:
        done = harness.train(workspace, arguments)
    finally:
        gone.rename(directory)
    assert done.code == 0, done.output
    assert "resuming parts from step 2" in done.output
    straight = harness.records(trained[0])
    harness.assert_same_curve(straight, harness.records(workspace / "runs" / "parts"))


@pytest.mark.long
def test_a_vocabulary_grows_and_the_saved_configuration_says_so(workspace: Path) -> None:
    done = harness.train(workspace, [*SHORT, "model.init_from=llama", "model.vocab=384", "run.name=grown"])
    assert done.code == 0, done.output
    assert "320 rows grow to 384" in done.output
    run = workspace / "runs" / "grown"
    assert weights(run / "checkpoints/step-00000003")["lm_head.weight"].shape == (384, 64)
    again = ["--config-path", str(run), "--config-name", "config", "run.name=grown_again"]
    done = harness.train(workspace, again)
    assert done.code == 0, done.output
    first, second = (harness.records(workspace / "runs" / name) for name in ("grown", "grown_again"))
    assert [step["loss"] for step in first] == [step["loss"] for step in second]


def test_mistakes_end_with_code_3(workspace: Path, trained: tuple[Path, str]) -> None:
    done = harness.train(workspace, [*SHORT, "model.init_from=llama", "model.hidden=128", "run.name=no"])
    assert done.code == 3
    assert "model.hidden = 128" in done.output
    assert "64, as llama says" in done.output
    other = ["model.init_from=runs/first", "run.name=no", "data.tokenizer.kind=train_bpe", "data.tokenizer.vocab=310"]
    done = harness.train(workspace, [*SHORT, *other, "data.tokenizer.path=null"])
    assert done.code == 3
    assert "other ids mean nothing to its weights" in done.output
    assert not (workspace / "runs/no/checkpoints").exists()


@pytest.mark.long
def test_ranks_that_see_other_weights_are_found(workspace: Path) -> None:
    """Each rank has a directory of its own, as nodes have; one was saved in another way."""
    from transformers import LlamaForCausalLM

    for rank in range(2):
        (workspace / f"node-{rank}").mkdir()
    (workspace / "node-0/llama").symlink_to(workspace / "llama")
    LlamaForCausalLM.from_pretrained(workspace / "llama").save_pretrained(workspace / "node-1/llama")
    for name in ("config.json", "tokenizer.json"):
        (workspace / "node-1/llama" / name).write_bytes((workspace / "llama" / name).read_bytes())
    done = harness.train(
        workspace, [*SHORT, "model.init_from=node-${oc.env:RANK}/llama", "run.name=apart"], processes=2
    )
    assert done.code != 0
    assert "weights of model.init_from" in done.output
    assert "1 problem" in done.output, "a path may differ between nodes"
    assert json.loads((workspace / "runs/apart/exit.json").read_text())["code"] == 3
