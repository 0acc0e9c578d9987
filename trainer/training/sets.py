"""The evaluation sets of a run, read before the model is built: text as tokens, tasks as items."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.config.groups.data import SourceConfig
from trainer.config.groups.evaluation import EvaluationSetConfig
from trainer.config.schema import Config
from trainer.data.corpus import Corpus, prepare_text
from trainer.data.paths import typed_keys
from trainer.data.progress import Report
from trainer.data.stream import TokenStream
from trainer.data.tokenizer import Tokenizer
from trainer.errors import ConfigError, DataError, Problem, RunError
from trainer.evaluation.choices import ChoiceRows, rows_of
from trainer.evaluation.exact import named, prompts_of, requests_of
from trainer.evaluation.tasks import Task, read_tasks
from trainer.generation.words import Words, read_words

GROUP = "evaluation.sets"


@dataclass(frozen=True)
class TextSet:
    """Documents end to end. fingerprint: of their tokens. bytes: of their text; None where they are not known."""

    name: str
    tokens: TokenStream
    fingerprint: str
    bytes: int | None


@dataclass(frozen=True)
class ChoiceSet:
    """Multiple choice. scored: rows of all choices, in order."""

    name: str
    task: Task
    scored: ChoiceRows
    fingerprint: str


@dataclass(frozen=True)
class ExactSet:
    """Exact match. prompts: ids, cut to leave room for an answer."""

    name: str
    task: Task
    prompts: list[list[int]]
    words: Words
    fingerprint: str


EvaluationSet = TextSet | ChoiceSet | ExactSet


def read_sets(config: Config, corpus: Corpus, pipeline_of_losses: bool, report: Report | None) -> list[EvaluationSet]:
    """Those of evaluation.sets, in order. pipeline_of_losses: the backend's pipeline has no logits to go on from.

    Raises DataError for files, ConfigError for what this run cannot be scored on; the problems of all sets.
    """
    errors: list[RunError] = []
    sets: list[EvaluationSet] = []
    for index, one in enumerate(config.evaluation.sets):
        try:
            with _keys(index, one):
                found = _read(config, corpus.tokenizer, one, report)
            if isinstance(found, ExactSet) and pipeline_of_losses:
                raise ConfigError(_no_logits(index, one))
            sets.append(found)
        except (ConfigError, DataError) as error:
            errors.append(error)
    if errors:
        kind = DataError if any(isinstance(error, DataError) for error in errors) else ConfigError
        raise kind(problem for error in errors for problem in error.problems)
    if config.evaluation.best is not None:
        _refuse_best(config.evaluation.best, sets)
    return sets


@contextmanager
def _keys(index: int, one: EvaluationSetConfig) -> Iterator[None]:
    """Of a source's problems, and of a task file's, which know neither the list nor the place in it."""
    try:
        names = [""] * index + [one.name]
        with typed_keys(names, GROUP, "set"):
            yield
    except DataError as error:
        raise DataError(
            p if p.key.startswith(GROUP) else replace(p, rule=f"{p.rule} ({GROUP}.{index}, set {one.name})")
            for p in error.problems
        ) from None


def _read(config: Config, tokenizer: Tokenizer, one: EvaluationSetConfig, report: Report | None) -> EvaluationSet:
    if one.kind == "text":
        source = SourceConfig(
            name=one.name,
            paths=one.paths,
            format=one.format,
            chat=one.chat,
            text_field=one.text_field,
            document_unit=one.document_unit,
        )
        tokens, fingerprint, size = prepare_text(source, tokenizer, config.data, report)
        return TextSet(one.name, tokens, fingerprint, size)
    path = str(Path(one.paths[0]).expanduser())
    (task,) = read_tasks([path])
    assert tokenizer.file is not None, "a corpus reads its tokenizer from a file"
    words, _ = read_words(tokenizer.file, tokenizer.eod_token)
    fingerprint = hashlib.blake2b(f"{task.digest}{tokenizer.fingerprint}".encode(), digest_size=12).hexdigest()
    if task.choices:
        return ChoiceSet(one.name, task, rows_of(task, words, config.data.seq_len), fingerprint)
    with named(task):
        prompts, _ = prompts_of(words, requests_of(task), config.data.seq_len)
    return ExactSet(one.name, task, prompts, words, fingerprint)


def _no_logits(index: int, one: EvaluationSetConfig) -> Problem:
    rule = "no exact match with parallel.pp on backend=neuron: its pipeline returns the loss, and answers need logits"
    return Problem(f"{GROUP}.{index}.paths", one.paths, rule, "leave it to scripts/eval.py, on a checkpoint of the run")


def _refuse_best(best: str, sets: list[EvaluationSet]) -> None:
    """A file says only itself of which kind its tasks are."""
    name, _, metric = best.rpartition("/")
    found = next((one for one in sets if one.name == name), None)
    if isinstance(found, ChoiceSet | ExactSet) and (metric == "exact_match") != isinstance(found, ExactSet):
        usual = "exact_match" if isinstance(found, ExactSet) else "acc"
        rule = f"a metric of {name}, whose tasks are {'exact match' if usual == 'exact_match' else 'multiple choice'}"
        raise ConfigError(Problem("evaluation.best", best, rule, f"evaluation.best={name}/{usual}"))
