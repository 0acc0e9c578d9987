"""One step on packed documents, in a rank, held against transformers on each document alone (test_packed.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from tests.distributed.matrix_worker import FIRST, INITIAL, bring_up, compare_first_moments, initial, one_step
from trainer.backends.base import Backend
from trainer.batch import IGNORED_LABEL, StepBatch
from trainer.config.schema import Config
from trainer.data.corpus import Corpus, prepare_corpus
from trainer.data.packing import collate, padding_sample
from trainer.data.packings import Packing
from trainer.rules.derived import Derived

ROWS = 8
"""Of a step, by all ranks: the samples, and rows of padding."""


def first_step(layout: str, reference: str, backend: str = "native") -> dict[str, Any]:
    """Loss and targets of one step on all documents of the corpus, and the worst first moment, by ``reference``."""
    made, config, derived = bring_up(layout, "fp32", backend)
    try:
        corpus = prepare_corpus(config.data, config.model.vocab)
        line = one_step(made, config, derived, _everything(made, config, derived, corpus), 0)
        worst = compare_first_moments(made, Path(reference) / FIRST)
        return {"loss": line["loss"], "targets": line["target_tokens"], "gradients": worst}
    finally:
        made.close()


def _everything(backend: Backend, config: Config, derived: Derived, corpus: Corpus) -> StepBatch:
    samples = Packing("best_fit").samples(corpus.train[0], config.data.seq_len, document_mask=True)
    rows = [samples[i] for i in range(len(samples))]
    assert ROWS // 2 < len(rows) < ROWS, "the last row is padding"
    rows += [padding_sample(config.data.seq_len)] * (ROWS - len(rows))
    share, rank = ROWS // derived.dp, backend.mesh.coordinate("dp")
    own = rows[rank * share : (rank + 1) * share]
    size = config.train.microbatch
    groups = [collate(own[i : i + size]) for i in range(0, share, size)]
    return StepBatch(groups, sum(int((row.labels != IGNORED_LABEL).sum()) for row in own), {})


def documents_alone(folder: str) -> dict[str, Any]:
    """Loss per token by transformers, one document at a time, and by its gradients the first moments of AdamW."""
    from transformers import LlamaConfig, LlamaForCausalLM

    made, config, _ = bring_up("one", "fp32")
    path, model = Path(folder), config.model
    path.mkdir()
    save_file(initial(made), path / INITIAL)
    made.close()
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=model.vocab,
            hidden_size=model.hidden,
            intermediate_size=model.mlp,
            num_hidden_layers=model.layers,
            num_attention_heads=model.heads,
            num_key_value_heads=model.kv_heads,
            rms_norm_eps=model.norm_eps,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
        )
    )
    masters = {name[7:]: t for name, t in load_file(path / INITIAL).items() if name.startswith("master ")}
    missing, unexpected = theirs.load_state_dict(masters, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])  # tied
    tokens = prepare_corpus(config.data, model.vocab).train[0]
    total, targets = torch.zeros(()), 0
    for index in range(tokens.documents):
        ids = torch.from_numpy(tokens.document(index))[None]
        total = total + F.cross_entropy(theirs(ids[:, :-1]).logits[0], ids[0, 1:], reduction="sum")
        targets += ids.shape[1] - 1
    (total / targets).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    norm = torch.stack([grad.norm() for grad in gradients.values()]).norm()
    scale = (1 - config.optim.beta1) * min(1.0, config.optim.clip_norm / norm.item())
    save_file({f"exp_avg.{name}": grad * scale for name, grad in gradients.items()}, path / FIRST)
    return {"loss": float(total) / targets, "targets": targets, "documents": tokens.documents}
