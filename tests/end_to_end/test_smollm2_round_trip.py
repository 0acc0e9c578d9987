"""The real SmolLM2-135M: in from transformers' directory, 50 steps over a pipeline, out into transformers again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
import torch.nn.functional as F
import yaml

from tests import harness, smollm2
from trainer.config.compose import to_config
from trainer.data.corpus import prepare_corpus
from trainer.data.heldout import HeldoutWindows

pytestmark = [pytest.mark.slow, pytest.mark.long]

STEPS = 50
SHORT = [
    *(
        "recipe=smollm2_135m",
        "backend=native",
        "precision=fp32",
        "parallel.zero=0",
        "parallel.pp=2",
        "parallel.cores=4",
    ),
    *("data.sources=[{paths: [corpus]}]", "data.heldout_fraction=0.1", "data.seq_len=128"),
    *("train.tokens=null", f"train.steps={STEPS}", "train.tokens_per_step=512", "train.microbatch=1"),
    *("schedule=constant", "schedule.warmup_steps=10", "optim.lr=1e-4"),
    *("checkpoint.every_minutes=0", f"evaluation.every_steps={STEPS}", "evaluation.windows=16"),
    *("evaluation.sample_prompt=''", "logging.every_steps=1", "run.name=smollm2", "model.init_from=smollm2"),
]


def from_gguf(directory: Path) -> None:
    """What transformers makes of the GGUF file. Version 5 saves such a model only once it forgets that it was one."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    file = smollm2.gguf_file()
    model = LlamaForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(directory)


def heldout_loss(directory: Path, run: Path) -> float:
    """Of transformers, on the windows that the run was scored on."""
    from transformers import AutoModelForCausalLM

    values = yaml.safe_load((run / "config.yaml").read_text())
    config = to_config({key: value for key, value in values.items() if key != "hydra"})
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    corpus = prepare_corpus(config.data, model.config.vocab_size)
    windows = HeldoutWindows(
        corpus.heldout,
        corpus.tokenizer.token_bytes,
        config.data.seq_len,
        config.data.document_mask,
        config.evaluation.windows,
    )
    assert len(windows) == config.evaluation.windows
    losses = []
    with torch.no_grad():
        for batch in windows.batches(1, 0, 1):
            logits = model(input_ids=batch.tokens, use_cache=False).logits
            losses.append(F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="none"))
    return torch.cat(losses).double().mean().item()


@pytest.mark.timeout(1500)
def test_what_comes_out_is_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from_gguf(tmp_path / "smollm2")
    (tmp_path / "corpus").mkdir()
    for name, text in topics.items():
        (tmp_path / "corpus" / f"{name.replace('/', '-')}.txt").write_text(text)
    monkeypatch.chdir(tmp_path)

    done = harness.train(tmp_path, SHORT, processes=4, timeout=1200)
    assert done.code == 0, done.output
    run = tmp_path / "runs" / "smollm2"
    ours = json.loads((run / "result.json").read_text())["heldout_loss"]
    script = [sys.executable, str(harness.ROOT / "scripts" / "export_hf.py"), str(run), "out"]
    exported = subprocess.run(script, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert exported.returncode == 0, exported.stdout + exported.stderr

    before, after = heldout_loss(tmp_path / "smollm2", run), heldout_loss(tmp_path / "out", run)
    print(f"held-out loss: {before:.7f} before; after {STEPS} steps ours {ours:.7f}, transformers {after:.7f}")
    assert after == pytest.approx(ours, abs=1e-4)
    assert after < before - 0.01, "it has learnt"
    told, kept = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("smollm2", "out"))
    message = [{"role": "user", "content": "def f(x):"}]
    assert told.apply_chat_template(message, tokenize=False) == kept.apply_chat_template(message, tokenize=False)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.tie_word_embeddings
