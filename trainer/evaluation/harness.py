"""A model of ours for EleutherAI's harness (lm-eval; the extra ``eval`` installs it).

Only this module imports lm_eval. What the harness asks for, its own HFLM answers alike (test_harness.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from trainer.data.chat.template import ChatTemplate
from trainer.errors import ConfigError, Problem
from trainer.evaluation.exact import Request, continue_all
from trainer.evaluation.pairs import Cutter
from trainer.evaluation.scoring import Row, score
from trainer.generation.opened import Opened
from trainer.generation.settings import Limits, Sampling

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

NEW_TOKENS = 256
"""Where a task asks for no number; HFLM's."""
KNOWN = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty"}


class TrainerLM(LM):
    """To be given to ``lm_eval.simple_evaluate(model=...)``; under torchrun by every rank, with the same tasks."""

    def __init__(self, opened: Opened, batch: int = 8) -> None:
        """batch: requests that are read together. Raises ConfigError for a model without a tokenizer."""
        super().__init__()
        if opened.words is None:
            rule = "has a tokenizer (tokenizer.json)"
            raise ConfigError(Problem("MODEL", opened.source.given, rule, "save the model's fast tokenizer there"))
        self._opened, self._words, self._batch = opened, opened.words, batch
        self._cutter = Cutter(opened.words)

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of (context, continuation): log p, in nats, and whether greedy decoding would say it.

        Of an empty continuation, 0 and True. Raises DataError where one has no token, or fills more than the window.
        """
        asked = [request.args for request in requests]
        filled = [number for number, (_, continuation) in enumerate(asked) if continuation]
        rows = [self._cutter.pair(*asked[number]).row(self._opened.window)[0] for number in filled]
        found = [(0.0, True)] * len(asked)
        for number, one in zip(filled, score(self._opened, rows, self._batch), strict=True):
            found[number] = (-one.nats, one.greedy)
        for pair, answer in zip(asked, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", pair, answer)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of (text,): log p of all of it, in nats, in the harness's windows, behind the token that begins a text."""
        rows: list[Row] = []
        counts = []
        for request in requests:
            ids = self._cutter.encode(request.args[0])
            cut = get_rolling_token_windows(ids, self._cutter.required(), self._opened.window, 1)
            mine = [Row([*before, *after], len(after)) for before, after in map(make_disjoint_window, cut)]
            rows += mine
            counts.append(len(mine))
        scores = iter(score(self._opened, rows, self._batch))
        found = [-sum(next(scores).nats for _ in range(count)) for count in counts]
        for request, answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answer)
        return found

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Of (context, settings): the text before the first of ``until``.

        Raises DataError where max_gen_toks leaves no room for a context, ConfigError for a setting that is not known.
        """
        asked = [Request(context, *_settings(given)) for context, given in (request.args for request in requests)]
        said, _ = continue_all(self._opened, self._words, asked, self._batch)
        for request, text in zip(requests, said, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return said

    @property
    def tokenizer_name(self) -> str:
        """By which the harness keeps requests that it has built."""
        return str(self._opened.source.path.resolve()).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The tokenizer's, where one is asked for."""
        return (self._words.template or "") if chat_template else ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as text. Raises ConfigError where there is no template, or it raises.

        Without a generation prompt the last message is the assistant's, and goes on: the text ends with what it says.
        """
        if self._words.template is None:
            rule = "the tokenizer has a chat template (chat_template.jinja); this one has none"
            raise ConfigError(Problem("apply_chat_template", True, rule, "leave it out"))
        text = ChatTemplate(self._words.template, self._words.special)(chat_history, answer=add_generation_prompt)
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"].rstrip()
        return text[: text.rindex(last) + len(last)]


def _settings(given: Mapping[str, Any]) -> tuple[Limits, Sampling]:
    kwargs = dict(normalize_gen_kwargs(dict(given), NEW_TOKENS))
    if others := sorted(kwargs.keys() - KNOWN):
        rule = f"settings that are known here: {', '.join(sorted(KNOWN))}"
        raise ConfigError(Problem("generation_kwargs", ", ".join(others), rule, "leave them out of the task"))
    limits = Limits(kwargs["max_gen_toks"], tuple(one for one in kwargs["until"] if one))
    penalty = float(kwargs.get("repetition_penalty", 1.0))
    if not kwargs["do_sample"]:
        sampling = Sampling(penalty)
    else:
        temperature = float(kwargs.get("temperature") or 1.0)
        named = {name: kwargs[name] for name in ("top_k", "top_p", "min_p") if kwargs.get(name) is not None}
        sampling = Sampling(penalty, temperature, **named)
    if problems := [*limits.problems(), *sampling.problems()]:
        raise ConfigError(problems)
    return limits, sampling
