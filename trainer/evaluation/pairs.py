"""A context and what follows it, as ids: cut where EleutherAI's harness cuts them (lm-eval 0.4.13, TemplateLM)."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.errors import DataError, Problem
from trainer.evaluation.scoring import Row
from trainer.generation.words import Words

SHOWN = 60


@dataclass(frozen=True)
class Pair:
    """context, continuation: ids; neither is empty. own: the continuation had no token of its own in the whole text,
    and was encoded alone. The harness ends there with an assertion.
    """

    context: list[int]
    continuation: list[int]
    own: bool = False

    def row(self, window: int) -> tuple[Row, bool]:
        """For a model of so many tokens; whether the context was cut, from its left, to fit. Raises DataError where the
        continuation alone does not.
        """
        if len(self.continuation) > window:
            rule = f"what is scored fits into the model's window of {window:,} tokens"
            raise DataError(Problem("continuation", f"{len(self.continuation):,} tokens", rule, "shorten it"))
        tokens = [*self.context, *self.continuation]
        return Row(tokens[-(window + 1) :], len(self.continuation)), len(tokens) > window + 1


class Cutter:
    """Of one tokenizer. prefix: the id that stands before a text that has nothing before it: BOS, else the end of text.

    It has to be asked for with ``required``: a tokenizer may name neither.
    """

    def __init__(self, words: Words) -> None:
        self._words = words
        self.prefix = prefix_of(words)
        self._spelt = None if self.prefix is None else words.inner.id_to_token(self.prefix)

    def required(self) -> int:
        """The prefix. Raises DataError where there is none."""
        if self.prefix is None:
            rule = "the tokenizer names a token that begins or ends a text: an empty context needs one before it"
            raise DataError(Problem("context", "", rule, "write a context, or name bos_token in tokenizer_config.json"))
        return self.prefix

    def encode(self, text: str) -> list[int]:
        """Ids, with the tokens that the tokenizer puts around a text unless the text spells the first of them."""
        return self._words.encode(text, special=self._spelt is None or not text.startswith(self._spelt))

    def pair(self, context: str, continuation: str) -> Pair:
        """White space at the end of a context goes to the continuation, because words begin with it in most
        vocabularies. Raises DataError for a continuation that has no token in any way.
        """
        if not context:
            ids = self._alone(continuation)
            if (prefix := self.required()) == ids[0] and len(ids) > 1:
                return Pair(ids[:1], ids[1:])
            return Pair([prefix], ids)
        bare = context.rstrip()
        continuation = context[len(bare) :] + continuation
        # A context of white space alone is none to the harness either: it begins with what the tokenizer puts there.
        before = self.encode(bare)
        after = self.encode(bare + continuation)[len(before) :]
        own = not after
        return Pair(before or [self.required()], self._alone(continuation) if own else after, own)

    def _alone(self, text: str) -> list[int]:
        if ids := self._words.encode(text, special=False):
            return ids
        rule = "what is scored has a token; the tokenizer drops all of it"
        raise DataError(Problem("continuation", text[:SHOWN], rule, "write a text that it knows"))


def prefix_of(words: Words) -> int | None:
    """BOS where the tokenizer names it, else its end of text, as in the harness."""
    for role in ("bos_token", "eos_token"):
        if role in words.special and (found := words.inner.token_to_id(words.special[role])) is not None:
            return int(found)
    return words.ends[0] if words.ends else None
