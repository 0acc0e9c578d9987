"""Held-out loss, in nats per token and in bits per byte, against zlib on the very same windows."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from trainer.backends.base import Backend, GoOn, always
from trainer.batch import Batch
from trainer.config.groups.evaluation import EvaluationConfig
from trainer.observe.records import EvaluationRecord
from trainer.training.sampling import sample_tokens


class Speaks(Protocol):
    """What evaluation needs of a tokenizer."""

    eod: int

    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Evaluator:
    """Scores fixed windows of held-out text.

    batches: this rank's windows, the same number and shape on every rank. target_bytes: bytes of text that all
    ranks' targets stand for; the model also predicts document ends, which cost nats and count no bytes.
    """

    config: EvaluationConfig
    batches: Sequence[Batch]
    target_bytes: int
    zlib_bits_per_byte: float
    tokenizer: Speaks
    seq_len: int
    seed: int

    def evaluate(self, backend: Backend, step: int, tokens: int, go_on: GoOn = always) -> EvaluationRecord | None:
        """Score all windows and print a sample; None where ``go_on`` has ended it. Collective."""
        start = time.perf_counter()
        if (found := backend.evaluate(self.batches, go_on)) is None:
            return None
        nats, targets = found
        return EvaluationRecord(
            step=step,
            tokens=tokens,
            heldout_loss=nats / max(1, targets),
            bits_per_byte=nats / math.log(2) / max(1, self.target_bytes),
            zlib_bits_per_byte=self.zlib_bits_per_byte,
            seconds=time.perf_counter() - start,
            sample=self.sample(backend, step),
        )

    def sample(self, backend: Backend, step: int) -> str:
        """The prompt and what the model makes of it, or nothing when none is wanted."""
        config = self.config
        if not config.sample_prompt or not config.sample_tokens:
            return ""
        prompt = self.tokenizer.encode_batch([config.sample_prompt])[0]
        drawn = sample_tokens(
            backend,
            prompt,
            config.sample_tokens,
            self.seq_len,
            config.sample_temperature,
            self.seed + step,
            self.tokenizer.eod,
        )
        return self.tokenizer.decode([*prompt, *drawn])
