"""How the next token is chosen and where a text ends, and what may be asked. No torch: a mistake costs no import."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from trainer.errors import Problem

LEAST = 1e-4
"""By which, and by whose inverse, any model's FP32 logits can be divided and multiplied, and stay finite."""


@dataclass(frozen=True)
class Sampling:
    """What happens to the logits of the next token, in this order, and how it is drawn."""

    repetition_penalty: float = 1.0
    """Logits of tokens that the text has, prompt included, over this where positive, times this where negative."""
    temperature: float = 0.0
    """Logits over this; 0: the most likely token, always."""
    top_k: int = 0
    """Only so many of the most likely tokens; 0: all."""
    top_p: float = 1.0
    """Only the most likely tokens that together have this probability."""
    min_p: float = 0.0
    """Only tokens with this share of the most likely one's probability."""
    seed: int = 0
    """With the number of the prompt and of the token it gives the draw."""

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def problems(self) -> Iterator[Problem]:
        """What may not be asked, by the command's options."""
        if not (self.temperature == 0 or LEAST <= self.temperature < math.inf):
            rule = f"0, or {LEAST:g} and more: logits over less than that are no numbers"
            yield Problem("--temperature", self.temperature, rule, "0 is greedy; 0.7 is usual")
        if self.top_k < 0:
            yield Problem("--top-k", self.top_k, "0 (all) or more", "leave it out, or give 50")
        if not 0 < self.top_p <= 1:
            yield Problem("--top-p", self.top_p, "above 0, at most 1 (all)", "leave it out, or give 0.95")
        if not 0 <= self.min_p <= 1:
            yield Problem("--min-p", self.min_p, "0 (all) to 1", "leave it out, or give 0.05")
        if not LEAST <= self.repetition_penalty <= 1 / LEAST:
            rule = f"{LEAST:g} to {1 / LEAST:g}; 1 is none"
            yield Problem("--repetition-penalty", self.repetition_penalty, rule, "give 1.1")
        if not 0 <= self.seed < 1 << 63:
            yield Problem("--seed", self.seed, "0 to 2**63 - 1", "give a smaller one")
        if self.greedy and (self.top_k, self.top_p, self.min_p) != (0, 1.0, 0.0):
            rule = "above 0 where --top-k, --top-p or --min-p choose among tokens: at 0 the most likely one is taken"
            yield Problem("--temperature", self.temperature, rule, "give --temperature 1, or leave these out")


GREEDY = Sampling()


@dataclass(frozen=True)
class Limits:
    """Where a text ends, besides the ids that end one."""

    new_tokens: int = 128
    """At most so many tokens behind the prompt."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""

    def problems(self) -> Iterator[Problem]:
        """What may not be asked, by the command's options."""
        if self.new_tokens < 1:
            yield Problem("--tokens", self.new_tokens, "1 or more", "give one, or leave it out")
        if "" in self.stop:
            yield Problem("--stop", "", "a text: every text has the empty one", "leave it out, or write one")
