"""What a model that trains is scored on: held-out text, the sets of the configuration, and a sample of its text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from trainer.backends.base import Backend, GoOn, always
from trainer.config.groups.evaluation import EvaluationConfig
from trainer.observe.records import EvaluationRecord, SetRecord
from trainer.training.sampling import sample_tokens
from trainer.training.scoring import Scorer, TextScorer

Begin = Callable[[str, bool], GoOn]
"""Begins a part of an evaluation, by its name: what is asked before each microbatch of it. True: data-parallel ranks
meet within one."""


def unhurried(part: str, together: bool) -> GoOn:
    """Nothing ends it."""
    return always


class Speaks(Protocol):
    """What evaluation needs of a tokenizer."""

    eod: int

    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Evaluator:
    """Scores held-out text, with a sample beside it, and then each set.

    heldout: None where nothing is held out. scorers: of evaluation.sets.
    """

    config: EvaluationConfig
    heldout: TextScorer | None
    scorers: Sequence[Scorer]
    tokenizer: Speaks
    seq_len: int
    seed: int

    def evaluate(
        self, backend: Backend, step: int, tokens: int, begin: Begin = unhurried
    ) -> Iterator[EvaluationRecord | SetRecord | None]:
        """A record of each; None, and no more, where what ``begin`` gave has ended one. Collective."""
        if self.heldout is not None:
            found = self._heldout(self.heldout, backend, step, tokens, begin)
            yield found
            if found is None:
                return
        for scorer in self.scorers:
            start = time.perf_counter()
            metrics = scorer.score(backend, begin(scorer.name, scorer.together))
            if metrics is None:
                yield None
                return
            yield SetRecord(step, tokens, scorer.name, dict(metrics), time.perf_counter() - start)

    def _heldout(
        self, heldout: TextScorer, backend: Backend, step: int, tokens: int, begin: Begin
    ) -> EvaluationRecord | None:
        start = time.perf_counter()
        metrics = heldout.score(backend, begin("", heldout.together))
        if metrics is None:
            return None
        return EvaluationRecord(
            step=step,
            tokens=tokens,
            heldout_loss=metrics["loss"],
            bits_per_byte=metrics["bits_per_byte"],
            zlib_bits_per_byte=metrics["zlib_bits_per_byte"],
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
