"""What may be said in a job file. Nothing is looked for: whether a model is there, its stages find out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from trainer.config.groups.job import JobConfig, JobGateConfig
from trainer.errors import Problem
from trainer.jobs.events import ENDS
from trainer.jobs.gates import ABSOLUTE, CHAMPION, HIGHER_IS_BETTER, KINDS, LATENCY, ON_SETS, REGRESSION, SIZE
from trainer.jobs.schedule import fault_of, zone_of
from trainer.jobs.work import Job

NAME = re.compile(r"(?=.{1,24}$)[a-z0-9]+(-[a-z0-9]+)*")
"""Room is left for a slot and a stage, in names that Kubernetes takes."""
MLFLOW_NAME = re.compile(r"[^'\"/:\s][^'\"/:\n]*")
RESERVED = ("run.name=", "recipe=")
CATCH_UP, OTHERWISE, ADAPTER = ("latest", "all", "none"), ("recipe", "refuse"), ("continue", "merge")


def rules(job: Job) -> Iterator[Problem]:
    """A problem for each thing that cannot be meant."""
    config = job.config
    if not config.recipe:
        yield Problem("recipe", config.recipe, "names a recipe", "recipe: smollm2_lora, say")
    for index, override in enumerate(config.overrides):
        if "=" not in override:
            yield Problem(
                f"overrides.{index}", override, "is an override, key=value", "write it as on the command line"
            )
        elif override.startswith(RESERVED):
            rule = "the job sets this itself: each occurrence has a run of its own"
            yield Problem(f"overrides.{index}", override, rule, "take it away; the recipe is recipe:")
    if config.publish.mlflow is not None and not MLFLOW_NAME.fullmatch(config.publish.mlflow):
        rule = "is a name that MLflow takes: no quotes, slashes and colons"
        yield Problem("publish.mlflow", config.publish.mlflow, rule, "assistant, say")
    yield from _schedule(config)
    yield from _choices(config)
    yield from _numbers(config)
    yield from _gates(config)


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
        yield Problem("schedule.begins", schedule.begins, "is a day", '"2026-11-30", say')
    if schedule.deadline_minutes is not None and schedule.deadline_minutes <= 0:
        yield Problem("schedule.deadline_minutes", schedule.deadline_minutes, "is above 0", "give more, or none")


def _choices(config: JobConfig) -> Iterator[Problem]:
    for key, value, known in (
        ("schedule.catch_up", config.schedule.catch_up, CATCH_UP),
        ("start.otherwise", config.start.otherwise, OTHERWISE),
        ("start.adapter", config.start.adapter, ADAPTER),
        *((f"sets.{i}.kind", one.kind, ("text", "tasks")) for i, one in enumerate(config.sets)),
        *((f"gates.{i}.kind", one.kind, KINDS) for i, one in enumerate(config.gates)),
        *((f"gates.{i}.metric", one.metric, tuple(HIGHER_IS_BETTER)) for i, one in enumerate(config.gates)),
        *((f"notify.ends.{i}", one, ENDS) for i, one in enumerate(config.notify.ends)),
        ("publish.alias", config.publish.alias, ("champion", "challenger")),
        ("publish.dtype", config.publish.dtype or "float32", ("float32", "bfloat16", "float16")),
    ):
        if value not in known:
            yield Problem(key, value, f"is one of {', '.join(known)}", f"{known[0]}, say")


def _numbers(config: JobConfig) -> Iterator[Problem]:
    retries, limits = config.retries, config.limits
    for key, number, least in (
        *((f"retries.codes.{code}", count, 0) for code, count in retries.codes.items()),
        ("retries.delay_minutes", retries.delay_minutes, 0),
        ("retries.longest_delay_minutes", retries.longest_delay_minutes, 0),
        ("retention.versions", config.retention.versions, 1),
        ("retention.runs", config.retention.runs, 1),
        ("limits.steps", limits.steps, 1),
    ):
        if number is not None and not number >= least:
            yield Problem(key, number, f"is {least} or more", f"{least}, say")
    for key, limit in (("limits.minutes", limits.minutes), ("limits.money", limits.money)):
        if limit is not None and not limit > 0:
            yield Problem(key, limit, "is above 0", "give more, or none")
    for code in retries.codes:
        if code not in ("other", "storage") and not code.isdecimal():
            yield Problem(f"retries.codes.{code}", code, "is an exit code, other or storage", '"12": 3, say')


def _gates(config: JobConfig) -> Iterator[Problem]:
    sets = {one.name: one for one in config.sets}
    for index, one in enumerate(config.sets):
        if not one.name or sum(other.name == one.name for other in config.sets) > 1:
            yield Problem(f"sets.{index}.name", one.name, "is a name of its own", "give each set another name")
        if not one.paths:
            yield Problem(f"sets.{index}.paths", one.paths, "names files", "paths: [frozen.jsonl]")
    for index, gate in enumerate(config.gates):
        if not gate.name or sum(other.name == gate.name for other in config.gates) > 1:
            yield Problem(f"gates.{index}.name", gate.name, "is a name of its own", "give each gate another name")
        if gate.kind in ON_SETS and gate.set not in sets:
            known = ", ".join(sets) or "there is no set"
            yield Problem(f"gates.{index}.set", gate.set, "names one of sets", f"one of: {known}")
        yield from _bound(index, gate)


def _bound(index: int, gate: JobGateConfig) -> Iterator[Problem]:
    if gate.kind in (ABSOLUTE, SIZE, LATENCY) and gate.limit is None:
        yield Problem(f"gates.{index}.limit", None, f"kind={gate.kind} is held against a number", "limit: 2.0, say")
    if gate.kind in (CHAMPION, REGRESSION) and gate.limit is not None:
        rule = f"kind={gate.kind} is held against the champion"
        yield Problem(f"gates.{index}.limit", gate.limit, rule, "give a margin, or kind: absolute")
    if gate.margin < 0:
        yield Problem(
            f"gates.{index}.margin", gate.margin, "is 0 or more", "kind: regression lets it be worse by so much"
        )


def _is_day(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
