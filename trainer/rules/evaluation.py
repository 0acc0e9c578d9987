"""What a run is scored on while it trains. Whether the files can be read is for trainer.data (exit 4)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainer.config.groups.evaluation import EvaluationSetConfig
from trainer.config.groups.job import JobSetConfig
from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.rules.text import units
from trainer.run.world import World

HELDOUT = "heldout"
"""The name of the held-out text among the sets."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
TEXT = {"loss": False, "bits_per_byte": False}
CHOICES = {"acc": True, "acc_norm": True, "acc_bytes": True, "acc_tokens": True}
EXACT = {"exact_match": True}
METRICS = {**TEXT, **CHOICES, **EXACT}
"""Whether more of a metric is better."""
OF_KIND = {"text": TEXT, "tasks": {**CHOICES, **EXACT}}


def evaluation(config: Config, world: World) -> Iterator[Problem]:
    """Sets are said completely, and there is something that can be best."""
    sets = config.evaluation.sets
    for index, one in enumerate(sets):
        yield from _set(f"evaluation.sets.{index}", one)
    names = [one.name for one in sets]
    if len({HELDOUT, *names}) <= len(names):
        rule = f"names are unique, and none is {HELDOUT}, the text that data.heldout_fraction keeps"
        yield Problem("evaluation.sets", names, rule, "give each set a name of its own")
    if sets and not config.evaluation.every_steps:
        rule = "above 0: there are evaluation.sets, and nothing would be scored on them"
        yield Problem("evaluation.every_steps", 0, rule, "set it, or evaluation.sets=[]")
    if config.evaluation.best is not None:
        yield from _best(config, config.evaluation.best)
    elif config.evaluation.patience is not None:
        rule = "unset without evaluation.best, which says what is waited for"
        yield Problem("evaluation.patience", config.evaluation.patience, rule, "evaluation.best=heldout/loss, say")


def _set(key: str, one: EvaluationSetConfig) -> Iterator[Problem]:
    yield from named_files(key, one)
    yield from units(key, one)


def named_files(key: str, one: EvaluationSetConfig | JobSetConfig) -> Iterator[Problem]:
    """What holds of every set: a name, a kind, and the files that this kind takes."""
    if not NAME.fullmatch(one.name):
        rule = "letters, digits, . _ -, a letter or digit first: records and evaluation.best name it"
        yield Problem(f"{key}.name", one.name, rule, f"{key}.name=wiki, say")
    if one.kind not in OF_KIND:
        yield Problem(f"{key}.kind", one.kind, f"one of: {', '.join(OF_KIND)}", "set it to one of them")
    elif not one.paths or not all(path.strip() for path in one.paths):
        yield Problem(f"{key}.paths", one.paths, "names at least one file, and no path is empty", "set paths: [...]")
    elif one.kind == "tasks" and len(one.paths) > 1:
        yield Problem(f"{key}.paths", one.paths, "one file of tasks a set", "make each a set with its own name")
    if one.kind == "tasks" and one.chat is not None:
        yield Problem(f"{key}.chat", one.chat, "used only by kind=text", "leave it out: tasks say what is asked")


def _best(config: Config, best: str) -> Iterator[Problem]:
    name, _, metric = best.rpartition("/")
    kinds = {one.name: one.kind for one in config.evaluation.sets}
    if config.data.heldout_fraction:
        kinds[HELDOUT] = "text"
    if not config.evaluation.every_steps:
        rule = "unset without evaluations (evaluation.every_steps=0)"
        yield Problem("evaluation.best", best, rule, "evaluation.best=null, or evaluate")
    elif name not in kinds:
        found = f"the sets are {', '.join(sorted(kinds))}" if kinds else "there are none"
        first = HELDOUT if HELDOUT in kinds or not kinds else min(kinds)
        remedy = f"evaluation.best={first}/{next(iter(OF_KIND.get(kinds.get(first, 'text'), METRICS)))}"
        remedy += "" if kinds else ", with data.heldout_fraction above 0; or evaluation.best=null"
        yield Problem("evaluation.best", best, f"SET/METRIC, of a set of this run; {found}", remedy)
    elif metric not in (known := OF_KIND.get(kinds[name], METRICS)):
        rule = f"SET/METRIC; {name} has {', '.join(known)}"
        yield Problem("evaluation.best", best, rule, f"evaluation.best={name}/{next(iter(known))}")
