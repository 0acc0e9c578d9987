"""Job files: a directory of YAML, each read against the schema, with every mistake of all of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer.commands.jobs.plain import plain
from trainer.config.compose import schema_node
from trainer.config.groups.job import JobConfig
from trainer.config.mistakes import problems_in
from trainer.errors import ConfigError, Problem
from trainer.jobs.rules import NAME, rules
from trainer.jobs.work import Job


def load(directory: Path) -> list[Job]:
    """All jobs, by name. Raises ConfigError with the mistakes of all files."""
    jobs, problems = read(directory)
    if problems:
        raise ConfigError(problems)
    return jobs


def read(directory: Path) -> tuple[list[Job], list[Problem]]:
    """Jobs whose files are right, by name, and the mistakes of the others. Raises ConfigError without a directory."""
    if not directory.is_dir():
        raise ConfigError(Problem("--jobs", str(directory), "is a directory of job files", "give one, or make it"))
    jobs: list[Job] = []
    problems: list[Problem] = []
    for path in sorted(directory.glob("*.yml")):
        problems.append(Problem(str(path), path.name, "is named JOB.yaml, or nobody reads it", "rename the file"))
    files = sorted(directory.glob("*.yaml"))
    for path in files:
        found = _read(path)
        wrong = [_in_file(path, problem) for problem in rules(found)] if isinstance(found, Job) else found
        problems += wrong
        if isinstance(found, Job) and not wrong:
            jobs.append(found)
    names = {path.stem for path in files}
    problems += [_no_such(job, names) for job in jobs if job.config.schedule.after not in (None, *names)]
    problems += list(_circles(jobs))
    return jobs, problems


def named(jobs: Sequence[Job], name: str) -> Job:
    """Raises ConfigError with the names that there are."""
    for job in jobs:
        if job.name == name:
            return job
    known = ", ".join(job.name for job in jobs) or "there are none"
    raise ConfigError(Problem("JOB", name, "names a job file", f"one of: {known}"))


def _read(path: Path) -> Job | list[Problem]:
    if not NAME.fullmatch(path.stem):
        rule = "a job's name has small letters, digits and single dashes, 24 at most"
        return [Problem(str(path), path.stem, rule, "rename the file")]
    try:
        values = plain(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        return [Problem(str(path), path.name, f"is a file of YAML: {what}", "mend it")]
    if not isinstance(values, dict):
        return [Problem(str(path), values, "holds keys and values", "begin with recipe: ...")]
    if wrong := [_in_file(path, problem) for problem in problems_in(values, JobConfig, root=JobConfig)]:
        return wrong
    try:
        config = OmegaConf.to_object(OmegaConf.merge(schema_node(JobConfig), values))
    except OmegaConfBaseException as error:
        what = str(error).splitlines()[0]
        return [Problem(str(path), path.name, f"holds what its keys take: {what}", "docs/jobs.md lists the keys")]
    assert isinstance(config, JobConfig)
    return Job(path.stem, config)


def _in_file(path: Path, problem: Problem) -> Problem:
    remedy = "docs/job_keys.md lists the keys" if "schema.py" in problem.remedy else problem.remedy
    return Problem(f"{path}: {problem.key}", problem.value, problem.rule, remedy)


def _no_such(job: Job, names: set[str]) -> Problem:
    known = ", ".join(sorted(names - {job.name})) or "there is no other"
    return Problem(f"{job.name}: schedule.after", job.config.schedule.after, "names another job", f"one of: {known}")


def _circles(jobs: Sequence[Job]) -> Iterator[Problem]:
    """Jobs that wait for each other would wait for ever."""
    follows = {job.name: job.config.schedule.after for job in jobs}
    for name in follows:
        seen, now = [name], follows.get(name)
        while now is not None and now not in seen:
            seen.append(now)
            now = follows.get(now)
        if now == name:
            path = " after ".join([*seen, name])
            yield Problem(f"{name}: schedule.after", seen[-1], f"no job waits for itself: {path}", "take one away")
