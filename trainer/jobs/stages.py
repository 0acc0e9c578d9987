"""What each stage of a job does, on a desk (desk.py) and a registry. Begun by two hosts, it does the same once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from trainer.errors import ConfigError, ExitCode, Problem
from trainer.jobs.decide import cancelled
from trainer.jobs.desk import GONE, OVER, Desk
from trainer.jobs.events import CANCELLED, DONE, PUBLISHED, REJECTED, UNCHANGED, Occurrence, after, elapsed
from trainer.jobs.gates import CHAMPION, REGRESSION, Verdict, judge
from trainer.jobs.ledger import Ledger
from trainer.jobs.log import Conflict
from trainer.jobs.registry.versions import Registry
from trainer.jobs.schedule import label
from trainer.jobs.start import begin_from, version_of
from trainer.jobs.work import Again, Broken, Done, Ends, Job, Lost, Outcome, Running, Skipped, Submitted

BEST = "champion"
"""The alias that occurrences start from and are compared with, whichever one they move."""
ALIASES = (BEST, "challenger")
GIVEN_UP = 1
"""Exit code of what nobody knows any more."""
PATIENCE = timedelta(hours=1)
"""How long a scheduler may not answer, or a machine alone know what runs there, before it is given up."""
DECIDED_BY_DATA = (PUBLISHED, REJECTED)
"""Ends that the same data and recipe would come to again."""


@dataclass(frozen=True)
class Stages:
    """The real work; see ``trainer.jobs.work.Work``."""

    desk: Desk
    ledger: Ledger
    registry: Callable[[Job], Registry]

    def begin(self, job: Job, stage: str, one: Occurrence, now: datetime) -> Outcome:
        """A short stage whole; a long one is submitted, or found where it is."""
        short = {
            "prepare": self._prepare,
            "preflight": self._preflight,
            "gate": self._gate,
            "publish": self._publish,
            "notify": self._notify,
        }
        if stage in short:
            return short[stage](job, one, now)
        if stage == "precompile" and not one.record("prepare")["compiles"]:
            return Skipped("this backend compiles nothing ahead")
        if stage == "evaluate" and not job.config.sets and not job.config.gates:
            return Skipped("there are no sets and no gates")
        name = name_of(one, stage)
        return Submitted(self.desk.find(job, one, stage, name) or self.desk.submit(job, one, stage, name))

    def poll(self, job: Job, stage: str, one: Occurrence, now: datetime) -> Outcome:
        """Whether it has ended, and within its limits."""
        found = self.desk.condition(job, one, stage)
        submitted = one.stages[stage]
        if found.state == GONE and submitted.lost is None:
            return Lost(found.reason)
        if found.state == GONE:
            if elapsed(submitted.lost, now) < PATIENCE.total_seconds():
                return Running(found.reason)
            return Broken(GIVEN_UP, f"nobody has known {submitted.id} for {PATIENCE}: {found.reason}")
        if submitted.lost is not None:
            return Lost(f"{found.state} {found.reason}".strip(), again=True)
        if found.state != OVER:
            return self._within(job, stage, one, now) or Running(f"{found.state} {found.reason}".strip())
        if found.code:
            return Broken(found.code, found.reason or f"ended with {found.code}")
        return Done(self.desk.results(job, one, stage))

    def cancel(self, job: Job, stage: str, one: Occurrence) -> None:
        """Of what is submitted, even by who has vanished before it was written down: its name is known."""
        if one.stages[stage].attempt:
            self.desk.cancel(job, one, stage)

    def fingerprint(self, job: Job) -> str:
        """Of the data as they are now."""
        return self.desk.fingerprint(job)

    def _prepare(self, job: Job, one: Occurrence, now: datetime) -> Outcome:
        """What is to be trained, on what, from where; or that there is nothing new."""
        found = self.desk.resolve(job)
        limits = job.config.limits
        if limits.steps is not None and found.steps > limits.steps:
            raise ConfigError(
                Problem("limits.steps", limits.steps, f"the recipe trains {found.steps}", "set train.steps")
            )
        if limits.money is not None and found.money_per_hour is None:
            rule = "a limit of money needs a price"
            raise ConfigError(Problem("limits.money", limits.money, rule, "set launcher.price_per_node_hour=..."))
        registry = self.registry(job)
        alias = registry.alias(BEST)
        version = version_of(job.config.start, alias)
        start = begin_from(job.config.start, found.technique, version, registry.record(version) if version else None)
        record = {
            "key": f"{one.slot} {found.data[:16]} {found.recipe[:16]}",
            "fingerprint": found.data,
            "recipe": found.recipe,
            "technique": dict(found.technique),
            "start": start,
            "money_per_hour": found.money_per_hour,
            "compiles": found.compiles,
            "runs": found.runs,
            "asked": {"name": job.config.recipe, "overrides": list(job.config.overrides)},
            "task": found.task,
        }
        if one.due.get("trigger") != "hand" and (before := self._same(job, found.data, found.recipe)):
            why = f"no new data: data and recipe are those of {before[0]}, which was {before[1]}"
            return Ends(UNCHANGED, 0, why, record)
        return Done(record, start["why"])

    def _same(self, job: Job, data: str, recipe: str) -> tuple[str, str] | None:
        """The occurrence that has decided about this data and this recipe last, and how it ended."""
        for slot, known in reversed(self.ledger.decided(job.name).items()):
            if known["end"] in DECIDED_BY_DATA:
                return (slot, known["end"]) if (known["fingerprint"], known["recipe"]) == (data, recipe) else None
        return None

    def looked(self, job: Job, now: datetime) -> Mapping[str, Any]:
        """What prepare and preflight would find if an occurrence began now; nothing is kept. Raises RunError."""
        due = {"type": "due", "trigger": "hand", "time": now.isoformat(), "slot": now.isoformat()}
        one = after(Occurrence(job.name, f"{label(now)}-check"), due)
        prepared = self._prepare(job, one, now)
        assert isinstance(prepared, Done)  # a person's wish is never "no new data"
        one = after(one, {"type": DONE, "stage": "prepare", "record": prepared.record, "time": now.isoformat()})
        return {**prepared.record, **self.desk.check(job, one)}

    def _preflight(self, job: Job, one: Occurrence, now: datetime) -> Outcome:
        return Done(self.desk.check(job, one))

    def _within(self, job: Job, stage: str, one: Occurrence, now: datetime) -> Outcome | None:
        """A failure where training has used more than it may; it is cancelled then."""
        if stage != "train":
            return None
        limits, train = job.config.limits, one.stages["train"]
        minutes = (train.spent + elapsed(train.submitted, now)) / 60
        price = one.record("prepare")["money_per_hour"]
        money = None if price is None else price * minutes / 60
        for name, used, limit in (("minutes", minutes, limits.minutes), ("money", money, limits.money)):
            if limit is not None and used is not None and used > limit:
                self.desk.cancel(job, one, stage)
                return Broken(int(ExitCode.CONFIG), f"limits.{name} = {limit:g} is used up ({used:.4g})")
        return None

    def _gate(self, job: Job, one: Occurrence, now: datetime) -> Outcome:
        """The verdicts, on the champion as it is now: publishing is bound to the same entry of its log."""
        registry = self.registry(job)
        alias, moved = (registry.alias(name) for name in (BEST, job.config.publish.alias))
        scores = one.record("evaluate")
        if job.config.gates and scores.get("champion_version") != alias.version:
            return Again(("evaluate",), f"the champion is {alias.version} by now: scored on it again")
        verdicts = judge(job.config.gates, scores.get("candidate", {}), scores.get("champion"))
        record = {"champion": alias.version, "number": moved.number, "verdicts": [v.record() for v in verdicts]}
        parent = one.record("prepare")["start"]["version"]
        if parent in alias.withdrawn:
            return Ends(REJECTED, int(ExitCode.GATE), f"it started from {parent}, which was rolled back", record)
        if why := refusal(verdicts):
            return Ends(REJECTED, int(ExitCode.GATE), why, record)
        return Done(record, "; ".join(v.why for v in verdicts))

    def _publish(self, job: Job, one: Occurrence, now: datetime) -> Outcome:
        """A whole version first, and then the alias; nobody else has moved it since the gates, or they look again."""
        registry, to = self.registry(job), job.config.publish
        version, gate = f"{job.name}-{one.slot}", one.record("gate")
        occurrence = f"{job.name} {one.slot}"
        if one.cancelled_by and occurrence not in registry.alias(to.alias).moved_by:
            return Ends(CANCELLED, 0, cancelled(one).why)
        record = registry.add(version, self.desk.exported(job, one), lineage(job, one))
        why = one.stages["gate"].reason or "there are no gates"
        if occurrence not in registry.alias(to.alias).moved_by:
            try:
                registry.promote(to.alias, version, gate["number"], now.isoformat(), occurrence, why, occurrence)
            except Conflict:
                if occurrence not in registry.alias(to.alias).moved_by:
                    return Again(("evaluate", "gate"), f"{to.alias} has moved since the gates: they look again")
        registry.link(to.alias)
        told = f"{version} is {to.alias}: {why}"
        return Ends(
            PUBLISHED, 0, told, {"version": version, "files": len(record["files"]), "place": registry.place(version)}
        )

    def _notify(self, job: Job, one: Occurrence, now: datetime) -> Outcome:
        mirrored = ""
        if one.end == PUBLISHED:
            mirrored = self.desk.mirror(job, job.config.publish.alias)
            self._tidy(job, one)
        if one.end not in job.config.notify.ends:
            return Skipped("; ".join(filter(None, (mirrored, f"notify.ends does not name {one.end}"))))
        return Done({"told": self.desk.tell(job, one)}, mirrored)

    def _tidy(self, job: Job, one: Occurrence) -> None:
        """Delete versions and runs beyond what retention keeps; never what an alias names or would go back to, nor what
        this job starts from by its name."""
        registry = self.registry(job)
        aliases = [registry.alias(name) for name in ALIASES]
        kept = {version for alias in aliases for version in (alias.version, alias.before)}
        kept.add(job.config.start.model)
        versions = registry.versions()
        for version in versions[: -job.config.retention.versions]:
            if version not in kept:
                registry.remove(version)
        self.desk.clean(job, one)


def name_of(one: Occurrence, stage: str) -> str:
    """Under which a stage's attempt is submitted: the same for whoever takes over."""
    return f"{one.job}-{one.slot}-{stage}-{one.stages[stage].attempt}".replace("_", "-").lower()


def refusal(verdicts: list[Verdict]) -> str:
    """Why a candidate does not become the champion; empty where it may. A tie in everything keeps the champion."""
    if failed := [v for v in verdicts if not v.passed]:
        return "; ".join(f"gate {v.gate}: {v.why}" for v in failed)
    compared = [v for v in verdicts if v.kind in (CHAMPION, REGRESSION) and v.bound is not None]
    if compared and all(v.value == v.bound for v in compared):
        return "a tie keeps the champion: " + "; ".join(f"gate {v.gate}: {v.why}" for v in compared)
    return ""


def lineage(job: Job, one: Occurrence) -> Mapping[str, Any]:
    """Where a version comes from, for its record."""
    prepared = one.record("prepare")
    return {
        "job": job.name,
        "slot": one.slot,
        "parent": prepared["start"]["version"],
        "base": prepared["start"].get("base") or one.record("train").get("base"),
        "technique": prepared["technique"],
        "data": prepared["fingerprint"],
        "recipe": {**prepared.get("asked", {"name": job.config.recipe}), "hash": prepared["recipe"]},
        "run": one.record("train"),
        "evaluation": one.record("evaluate"),
        "gate": one.record("gate"),
    }
