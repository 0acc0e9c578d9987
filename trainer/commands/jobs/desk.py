"""The real desk of scheduled jobs: configurations by Hydra, data by their fingerprints, stages by a launcher."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.commands.jobs import notify, sets
from trainer.config.keys import flatten
from trainer.config.schema import OUTSIDE_TRAJECTORY, Config
from trainer.errors import ConfigError, DataError, Problem
from trainer.files import read_json, write_json
from trainer.jobs.desk import ALIVE, GONE, OVER, PENDING, Condition, Resolved
from trainer.jobs.events import Occurrence
from trainer.jobs.registry import mirror
from trainer.jobs.registry.fetch import fetched
from trainer.jobs.registry.versions import Registry
from trainer.jobs.work import Job
from trainer.launchers.asking import launcher_problems, request_of
from trainer.launchers.base import State
from trainer.launchers.inputs import beside_the_volume
from trainer.launchers.making import launcher_of
from trainer.launchers.request import Request
from trainer.launchers.submission import Submission, read_submission, write_submission
from trainer.run.directory import RESULT, run_path
from trainer.run.exit_json import EXIT

if TYPE_CHECKING:
    from trainer.commands.jobs.compose import Composed

STATES = {State.PENDING: PENDING, State.RUNNING: ALIVE, State.ENDED: OVER, State.UNKNOWN: GONE}
PLAN, RESULTS, CANDIDATE = "plan.json", "results.json", "candidate"
START = ("model.init_from", "adapter.init_from")
PRETRAIN, FINETUNE = "pretrain", "finetune"
TECHNIQUE = ("kind", "rank", "alpha", "rslora", "dora", "targets", "also_train")
NOT_OF_THE_CURVE = (*OUTSIDE_TRAJECTORY, *START, "run", "launcher", "data.sources")
"""Left out of a recipe's hash: the data have a fingerprint, and weights are another each time."""


@dataclass(frozen=True)
class RealDesk:
    """See ``trainer.jobs.desk.Desk``. registry: of a job. scripts: the directory of this project's scripts."""

    registry: Callable[[Job], Registry]
    scripts: Path = Path("scripts")

    def fingerprint(self, job: Job) -> str:
        """Of every source, by name and content."""
        return data_of(composed(self._overrides(job)).config)

    def resolve(self, job: Job) -> Resolved:
        """The composed training in figures."""
        found = composed(self._overrides(job))
        config = found.config
        price = config.launcher.price_per_node_hour
        return Resolved(
            recipe=recipe_of(config),
            data=data_of(config),
            technique=technique_of(config),
            steps=config.train.steps or 0,
            money_per_hour=None if price is None else price * config.launcher.nodes,
            compiles=config.backend.name == "neuron",
            runs=config.run.root,
            task=config.task,
        )

    def check(self, job: Job, occurrence: Occurrence) -> Mapping[str, Any]:
        """The training with its start weights, as the launcher would get it; the sets are there."""
        if job.config.publish.mlflow is not None and (fault := mirror.fault()) is not None:
            raise ConfigError(fault)
        found = self.training(job, occurrence)
        request = self._request(job, occurrence, found, "train", "preflight")
        if problems := launcher_problems(launcher_of(found.config.launcher), request):
            raise ConfigError(problems)
        read = [(f"sets.{index}.paths", path) for index, one in enumerate(job.config.sets) for path in one.paths]
        kept = ("publish.registry", job.config.publish.registry)
        if problems := list(beside_the_volume(found.config.launcher, [*read, kept])):
            raise ConfigError(problems)
        sets.check(job.config.sets)
        room = shutil.disk_usage(_existing(run_path(found.config))).free
        return {"free_gib": round(room / 2**30, 1), "run": str(run_path(found.config))}

    def submit(self, job: Job, occurrence: Occurrence, stage: str, name: str) -> str:
        """Write down what is asked for, and ask for it."""
        found = self.training(job, occurrence)
        request = self._request(job, occurrence, found, stage, name)
        request.directory.mkdir(parents=True, exist_ok=True)
        if stage in ("evaluate", "export"):
            write_json(request.directory / PLAN, self._plan(job, occurrence, found, stage, request.directory))
        submission = Submission(request, self._launcher(found.config, stage))
        write_submission(submission)
        id = launcher_of(submission.launcher).submit(request)
        write_submission(replace(submission, id=id))
        return id

    def find(self, job: Job, occurrence: Occurrence, stage: str, name: str) -> str | None:
        """By the launcher, whatever was written down."""
        submission = read_submission(directory_of(occurrence, stage))
        return None if submission is None else launcher_of(submission.launcher).find(name)

    def condition(self, job: Job, occurrence: Occurrence, stage: str) -> Condition:
        """As the launcher has it."""
        submission = read_submission(directory_of(occurrence, stage))
        if submission is None:
            return Condition(GONE, None, "its records are gone")
        status = launcher_of(submission.launcher).status(occurrence.stages[stage].id, submission.request)
        code = status.code if status.code is not None or status.state is not State.ENDED else 1
        why = status.reason
        if code:
            said = problems_of(run_of(occurrence) if stage == "train" else directory_of(occurrence, stage))
            told = f"jobs.py logs {job.name} {occurrence.slot} --stage {stage} tells why"
            why = f"{why}; {said or told}"
        return Condition(STATES[status.state], code, why)

    def cancel(self, job: Job, occurrence: Occurrence, stage: str) -> None:
        """By its id, or by its name where nobody has written an id down."""
        submission = read_submission(directory_of(occurrence, stage)) if occurrence.record("prepare") else None
        if submission is None:
            return
        launcher = launcher_of(submission.launcher)
        id = occurrence.stages[stage].id or launcher.find(submission.request.name)
        if id:
            launcher.cancel(id)

    def results(self, job: Job, occurrence: Occurrence, stage: str) -> Mapping[str, Any]:
        """Of a training its result; of the others what they have written."""
        if stage == "precompile":
            return {}
        if stage == "train":
            run = run_of(occurrence)
            result: Mapping[str, Any] = {"run": str(run), **self._read(run / RESULT)}
            return result
        return self._read(directory_of(occurrence, stage) / RESULTS)

    def exported(self, job: Job, occurrence: Occurrence) -> Path:
        """What evaluate has exported and scored, and export has added to."""
        return run_of(occurrence) / CANDIDATE

    def tell(self, job: Job, occurrence: Occurrence) -> str:
        """By webhook and command."""
        return notify.tell(job, occurrence)

    def mirror(self, job: Job, alias: str) -> str:
        """By MLflow, where the job names a model there."""
        name = job.config.publish.mlflow
        return mirror.mirror(name, self.registry(job), alias) if name is not None else ""

    def clean(self, job: Job, occurrence: Occurrence) -> None:
        """Runs of this job beyond retention.runs lose their directories; what was published is in the registry."""
        mine = re.compile(rf"{re.escape(job.name)}-\d{{8}}t\d{{6}}z(-[a-z]+)*")
        above = run_of(occurrence).parent
        runs = sorted(path for path in above.iterdir() if mine.fullmatch(path.name) and not path.is_symlink())
        for path in runs[: -job.config.retention.runs]:
            shutil.rmtree(path, ignore_errors=True)

    def training(self, job: Job, occurrence: Occurrence) -> Composed:
        """The occurrence's own: its run, and the weights that prepare has chosen."""
        prepared = occurrence.record("prepare")
        start = self._start(job, prepared.get("start", {}))
        if start and prepared["task"] == PRETRAIN:
            start.append(f"task={FINETUNE}")  # which says what is trained, and that all but weights begins anew
        overrides = self._overrides(job, prepared.get("start", {}))
        return composed([*overrides, *start, f"run.name={run_name(occurrence)}"])

    def _overrides(self, job: Job, start: Mapping[str, Any] = {}) -> list[str]:
        """Of the recipe; without start weights where the occurrence has others."""
        others = START if start.get("weights") == "model" else START[1:] if start.get("weights") == "adapter" else ()
        kept = [one for one in job.config.overrides if one.partition("=")[0] not in others]
        return [f"recipe={job.config.recipe}", *kept]

    def _start(self, job: Job, start: Mapping[str, Any]) -> list[str]:
        if not start.get("version"):
            return []
        place = fetched(self.registry(job), start["version"])
        key = "adapter.init_from" if start["weights"] == "adapter" else "model.init_from"
        return [f"{key}={place}/{start['weights']}"]

    def _launcher(self, config: Config, stage: str) -> Any:
        """What needs one process takes one node."""
        launcher = config.launcher
        return launcher if stage == "train" else replace(launcher, nodes=1, processes=1)

    def _request(self, job: Job, occurrence: Occurrence, found: Composed, stage: str, name: str) -> Request:
        directory = directory_of(occurrence, stage)
        if stage == "train":
            command = (str(self.scripts / "train.py"), *found.overrides)
            return request_of(found.config, found.world, name, directory, command)
        script = "precompile.py" if stage == "precompile" else "jobs.py"
        command = (str(self.scripts / script), stage, str(directory / PLAN))
        if stage == "precompile":
            command = (str(self.scripts / script), *found.overrides)
        request = request_of(found.config, found.world, name, directory, command)
        return replace(request, nodes=1, processes=0, run=None)

    def _plan(
        self, job: Job, occurrence: Occurrence, found: Composed, stage: str, directory: Path
    ) -> Mapping[str, Any]:
        """What the stage's command needs to know."""
        registry = self.registry(job)
        champion = registry.alias("champion").version
        return {
            "run": str(run_path(found.config).absolute()),
            "candidate": str((run_path(found.config) / CANDIDATE).absolute()),
            "base": found.config.model.init_from,
            "adapter": found.config.adapter.kind != "none",
            "dtype": job.config.publish.dtype,
            "champion_version": champion,
            "champion": f"{fetched(registry, champion)}/model" if champion else None,
            "sets": [asdict(one) for one in job.config.sets],
            "latency": any(gate.kind == "latency" for gate in job.config.gates),
            "results": str(directory / RESULTS),
            "python": found.config.launcher.python or sys.executable,
        }

    def _read(self, path: Path) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = read_json(path)
        except (OSError, ValueError) as error:
            raise DataError(Problem("results", str(path), f"can be read ({error})", "run the stage again")) from None
        return found


def run_name(occurrence: Occurrence) -> str:
    """Of an occurrence's run: all its attempts go on with one."""
    return f"{occurrence.job}-{occurrence.slot}"


def run_of(occurrence: Occurrence) -> Path:
    """Its directory, as prepare has found it."""
    return Path(occurrence.record("prepare")["runs"], run_name(occurrence))


def problems_of(run: Path) -> str:
    """What the run's exit.json says is to be mended; empty where it says nothing."""
    try:
        problems = read_json(run / EXIT)["problems"]
        return "; ".join(f"{p['key']} = {p['value']}: {p['rule']}; {p['remedy']}" for p in problems)
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def directory_of(occurrence: Occurrence, stage: str) -> Path:
    """Where an attempt of a stage is kept."""
    return (run_of(occurrence) / "launch" / f"{stage}-{max(1, occurrence.stages[stage].attempt)}").absolute()


def composed(overrides: Sequence[str]) -> Composed:
    """Hydra takes half a second to import: a tick without anything to compose does without."""
    from trainer.commands.jobs.compose import composed as compose

    return compose(overrides)


def data_of(config: Config) -> str:
    """Over the fingerprints of the sources, by name."""
    from trainer.data.known import known_fingerprint  # brings pyarrow, which no idle tick needs

    cache = Path(config.data.cache_dir)
    found = {one.name: [known_fingerprint(one, cache), one.weight, one.chat] for one in config.data.sources}
    return _hash(found)


def recipe_of(config: Config) -> str:
    """Over what makes the loss curve, but for data and start weights."""
    leaves = flatten(asdict(config))
    return _hash({key: value for key, value in leaves.items() if not key.startswith(NOT_OF_THE_CURVE)})


def technique_of(config: Config) -> Mapping[str, Any]:
    """What decides whether an adapter may go on."""
    if config.adapter.kind == "none":
        return {"kind": "full"}
    return {name: getattr(config.adapter, name) for name in TECHNIQUE}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.absolute().parent
    return path
