"""What may be said in a job file. Nothing is looked for: whether a model is there, its stages find out."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime

from trainer.config.groups.job import JobConfig, JobGateConfig, JobSetConfig
from trainer.errors import Problem
from trainer.files import is_directory_name
from trainer.jobs.events import ENDS
from trainer.jobs.gates import ABSOLUTE, HIGHER_IS_BETTER, KINDS, LATENCY, OF_KIND, OF_MODEL, ON_SETS, SIZE
from trainer.jobs.registry.versions import KEY
from trainer.jobs.schedule import fault_of, zone_of
from trainer.jobs.work import Job
from trainer.rules.evaluation import named_files
from trainer.rules.places import place
from trainer.rules.text import CHAT

NAME = re.compile(r"(?=.{1,24}$)[a-z0-9]+(-[a-z0-9]+)*")
"""Room is left for a slot and a stage, in names that Kubernetes takes."""
MLFLOW_NAME = re.compile(r"[^'\"/:\s][^'\"/:\n]*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESERVED = ("run.name=", "recipe=")
MOST_TRIES, YEAR = 1000, 365 * 24 * 60
EARLIEST, LATEST = 2000, 2199
CATCH_UP, OTHERWISE, ADAPTER = ("latest", "all", "none"), ("recipe", "refuse"), ("continue", "merge")


def rules(job: Job) -> Iterator[Problem]:
    """A problem for each thing that cannot be meant."""
    config = job.config
    if not config.recipe:
        yield Problem("recipe", config.recipe, "names a recipe", "recipe: smollm2_lora, say")
    for index, override in enumerate(config.overrides):
        if not override.partition("=")[0].strip("+~ ") or "=" not in override:
            yield Problem(
                f"overrides.{index}", override, "is an override, key=value", "write it as on the command line"
            )
        elif override.lstrip("+~ ").startswith(RESERVED):
            rule = "the job sets this itself: each occurrence has a run of its own"
            yield Problem(f"overrides.{index}", override, rule, "take it away; the recipe is recipe:")
    yield from _schedule(config)
    yield from _choices(config)
    yield from _numbers(config)
    yield from _gates(config)
    yield from _places(config)
    yield from _notify(config)


def _schedule(config: JobConfig) -> Iterator[Problem]:
    schedule = config.schedule
    given = [name for name in ("cron", "after") if getattr(schedule, name) is not None]
    given += ["new_data"] if schedule.new_data else []
    if len(given) != 1:
        said = ", ".join(given) or None
        yield Problem("schedule", said, "says exactly one of cron, after, new_data", 'cron: "0 2 * * *", say')
    if schedule.cron is not None and (fault := fault_of(schedule.cron)) is not None:
        yield Problem("schedule.cron", schedule.cron, fault, 'every night at two: "0 2 * * *"')
    if zone_of(schedule.time_zone) is None:
        rule = "is a time zone of the IANA's database"
        yield Problem("schedule.time_zone", schedule.time_zone, rule, "Europe/Berlin, America/New_York or UTC, say")
    if schedule.begins is not None and not _is_day(schedule.begins):
        rule = f"is a day of the years {EARLIEST} to {LATEST}, on the wall clock of schedule.time_zone"
        yield Problem("schedule.begins", schedule.begins, rule, "2026-11-30, say")


def _choices(config: JobConfig) -> Iterator[Problem]:
    for key, value, known in (
        ("schedule.catch_up", config.schedule.catch_up, CATCH_UP),
        ("start.otherwise", config.start.otherwise, OTHERWISE),
        ("start.adapter", config.start.adapter, ADAPTER),
        *((f"sets.{i}.chat", one.chat or CHAT[0], CHAT) for i, one in enumerate(config.sets)),
        *((f"gates.{i}.kind", one.kind, KINDS) for i, one in enumerate(config.gates)),
        *((f"gates.{i}.metric", one.metric, tuple(HIGHER_IS_BETTER)) for i, one in enumerate(config.gates)),
        *((f"notify.ends.{i}", one, ENDS) for i, one in enumerate(config.notify.ends)),
        ("publish.alias", config.publish.alias, ("champion", "challenger")),
        ("publish.dtype", config.publish.dtype or "float32", ("float32", "bfloat16", "float16")),
    ):
        if value not in known:
            yield Problem(key, value, f"is one of {', '.join(known)}", f"{known[0]}, say")


def _numbers(config: JobConfig) -> Iterator[Problem]:
    retries, limits, schedule = config.retries, config.limits, config.schedule
    for key, number, least, most in (
        *((f"retries.codes.{code}", count, 0, MOST_TRIES) for code, count in retries.codes.items()),
        ("retries.delay_minutes", retries.delay_minutes, 0, YEAR),
        ("retries.longest_delay_minutes", retries.longest_delay_minutes, 0, YEAR),
        ("retention.versions", config.retention.versions, 1, math.inf),
        ("retention.runs", config.retention.runs, 1, math.inf),
        ("limits.steps", limits.steps, 1, math.inf),
        *((f"sets.{i}.seq_len", one.seq_len, 1, math.inf) for i, one in enumerate(config.sets)),
    ):
        if number is not None and not least <= number <= most:
            rule = f"is {least} or more" if most == math.inf else f"is {least} to {most:,}"
            yield Problem(key, number, rule, f"{least}, say")
    for key, limit, most in (
        ("schedule.deadline_minutes", schedule.deadline_minutes, YEAR),
        ("limits.minutes", limits.minutes, sys.float_info.max),
        ("limits.money", limits.money, sys.float_info.max),
    ):
        if limit is not None and not 0 < limit <= most:
            rule = "is above 0, and a year of minutes at most" if most == YEAR else "is a number above 0"
            yield Problem(key, limit, rule, "give another, or leave it out for none")
    for code in retries.codes:
        if code not in ("other", "storage") and not (code.isdecimal() and code == str(int(code))):
            yield Problem(f"retries.codes.{code}", code, "is an exit code, other or storage", '"12": 3, say')


def _gates(config: JobConfig) -> Iterator[Problem]:
    sets = {one.name: one for one in config.sets}
    for index, one in enumerate(config.sets):
        if one.name in OF_MODEL or sum(other.name == one.name for other in config.sets) > 1:
            rule = f"is a name of its own, and not {' or '.join(OF_MODEL)}"
            yield Problem(f"sets.{index}.name", one.name, rule, "give each set another name")
        yield from named_files(f"sets.{index}", one)
    for index, gate in enumerate(config.gates):
        if not gate.name or sum(other.name == gate.name for other in config.gates) > 1:
            yield Problem(f"gates.{index}.name", gate.name, "is a name of its own", "give each gate another name")
        yield from _set_of(index, gate, sets)
        yield from _bound(index, gate)


def _set_of(index: int, gate: JobGateConfig, sets: Mapping[str, JobSetConfig]) -> Iterator[Problem]:
    """The gate's set is there, and has its metric: otherwise every candidate would be refused, after its training."""
    key = f"gates.{index}"
    if gate.kind not in ON_SETS:
        if gate.kind in KINDS and gate.set:
            yield Problem(f"{key}.set", gate.set, f"kind={gate.kind} looks at no set", "leave it out, or name a kind")
    elif gate.set not in sets:
        known = ", ".join(sets) or "there is no set"
        yield Problem(f"{key}.set", gate.set, "names one of sets", f"one of: {known}")
    elif gate.metric in HIGHER_IS_BETTER and gate.metric != OF_KIND.get(kind := sets[gate.set].kind, gate.metric):
        rule = f"is what {gate.set} has: a set of kind={kind} has {OF_KIND[kind]}"
        yield Problem(f"{key}.metric", gate.metric, rule, f"metric: {OF_KIND[kind]}")


def _bound(index: int, gate: JobGateConfig) -> Iterator[Problem]:
    key = f"gates.{index}"
    if gate.kind in (ABSOLUTE, SIZE, LATENCY):
        if gate.limit is None or not math.isfinite(gate.limit):
            rule = f"kind={gate.kind} is held against a number"
            yield Problem(f"{key}.limit", gate.limit, rule, "limit: 2.0, say")
        elif gate.limit <= 0 and gate.kind != ABSOLUTE:
            yield Problem(f"{key}.limit", gate.limit, "is above 0: every model has more", "limit: 2.0, say")
        if gate.margin:
            rule = f"kind={gate.kind} is held against a limit, without a margin"
            yield Problem(f"{key}.margin", gate.margin, rule, "put it into the limit")
    elif gate.limit is not None:
        rule = f"kind={gate.kind} is held against the champion"
        yield Problem(f"{key}.limit", gate.limit, rule, "give a margin, or kind: absolute")
    if not 0 <= gate.margin < math.inf:
        rule = "is a number of 0 or more"
        yield Problem(f"{key}.margin", gate.margin, rule, "kind: regression lets it be worse by so much")


def _places(config: JobConfig) -> Iterator[Problem]:
    """Names that become directories' stay inside of those that they are put into."""
    publish, start = config.publish, config.start
    for key, name, rule in (
        ("publish.model", publish.model or "model", "is a name, which becomes a directory's"),
        ("start.model", start.model, "is champion, recipe or the name of a version"),
    ):
        if not is_directory_name(name):
            yield Problem(key, name, rule, "write it without slashes and spaces around it")
    yield from place(KEY, publish.registry)
    if publish.mlflow is not None and not MLFLOW_NAME.fullmatch(publish.mlflow):
        rule = "is a name that MLflow takes: no quotes, slashes and colons"
        yield Problem("publish.mlflow", publish.mlflow, rule, "assistant, say")


def _notify(config: JobConfig) -> Iterator[Problem]:
    command, variable = config.notify.command, config.notify.webhook_variable
    if command and (not command[0].strip() or any("\0" in part for part in command)):
        yield Problem("notify.command", command, "is a program and its arguments", "[/usr/local/bin/tell, nightly]")
    if variable is not None and not VARIABLE.fullmatch(variable):
        rule = "is the name of an environment variable; the address itself is a secret, and stands in no file"
        yield Problem("notify.webhook_variable", "(something else)", rule, "webhook_variable: TEAM_WEBHOOK, say")


def _is_day(text: str) -> bool:
    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        return False
    return day.tzinfo is None and EARLIEST <= day.year <= LATEST
