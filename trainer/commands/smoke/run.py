"""Runs the smoke test from the first check to the page. Exit codes: 0 all passed, 14 a line failed, 3 no device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from trainer.commands.smoke import curve, graphs, machine, saved, sums
from trainer.commands.smoke.jobs import STEPS, Job, Outcome, Setting, jobs, run
from trainer.commands.smoke.page import FAIL, Line, failed, judged, render
from trainer.errors import ConfigError, ExitCode, Problem
from trainer.files import read_json, write_atomically
from trainer.trainium.host import Host, detect

PAGE = "page.md"
Run = Callable[[Job, Setting], Outcome]
Measure = Callable[[Setting], Mapping[str, float] | str]


def smoke(
    setting: Setting,
    golden: Path = curve.GOLDEN,
    found: Host | None = None,
    execute: Run = run,
    measure: Measure = sums.measure,
) -> int:
    """Run everything, print the page, save it in the setting's root, and return the exit code.

    found: the machine; None detects it, or in a dry run pretends one. Raises ConfigError where there is no device and
    the run is not dry, or where the root holds an older smoke test.
    """
    found = found or (machine.PRETENDED if setting.dry else detect())
    refuse(setting, found)
    curves = read_json(golden)["curves"]
    setting.root.mkdir(parents=True)
    title = "Dry run on CPU: nothing below is about Trainium" if setting.dry else "Trainium smoke test"
    lines = machine.lines(found)
    if setting.dry or not failed(lines):
        lines.append(sums.line(measure(setting)))
        lines += look_at(*execute_all(setting, execute), curves, setting)
    else:
        lines.append(Line("runs", FAIL, "not started", "devices, packages and driver as above"))
    page = render(title, lines)
    print(page, flush=True)
    write_atomically(setting.root / PAGE, page)
    return int(ExitCode.GATE if failed(lines) else ExitCode.DONE)


def refuse(setting: Setting, found: Host) -> None:
    """Raise ConfigError where the test cannot run: without a device, or with an older test's directories."""
    problems = []
    if not setting.dry and not found.devices:
        rule = "needs a trn1.32xlarge, and this machine has no Neuron device (/dev/neuron0)"
        remedy = "run it there (docs/trainium.md); make trn1-smoke DRY=1 runs the same jobs, small, on this CPU"
        problems.append(Problem("make trn1-smoke", None, rule, remedy))
    for path, why in (
        (setting.root, "its runs would be resumed instead of run"),
        (setting.cache, "nothing would compile"),
    ):
        if path.exists():
            problems.append(Problem("--root", str(path), f"does not exist yet: {why}", "name another directory"))
    if problems:
        raise ConfigError(problems)


def execute_all(setting: Setting, execute: Run) -> tuple[dict[str, Outcome], dict[str, set[str]]]:
    """Run the jobs one after the other. Returns each one's outcome, and the graphs in the cache after it."""
    outcomes: dict[str, Outcome] = {}
    cached: dict[str, set[str]] = {}
    for name, job in jobs(setting).items():
        print(f"running {name} on {setting.processes(job.cores)} processes ...", flush=True)
        outcomes[name] = execute(job, setting)
        cached[name] = graphs.compiled(setting.cache)
    return outcomes, cached


def look_at(
    outcomes: dict[str, Outcome],
    cached: dict[str, set[str]],
    curves: dict[str, dict[str, list[float]]],
    setting: Setting,
) -> Iterator[Line]:
    """All verdicts on the runs."""
    steps = {name: curve.read_steps(outcome.directory) for name, outcome in outcomes.items()}
    for name, outcome in outcomes.items():
        yield judged(f"{name} runs", outcome.code == 0, outcome.cause or "to its end", "exit 0")
    limits = curve.ON_CPU if setting.dry else curve.ON_DEVICE
    for name in ("tiny-8", "tiny-32"):
        yield curve.against_golden(f"{name} curve", outcomes[name].directory, curves, limits)
    yield graphs.line(cached["tiny-32"], cached["tiny-32-first-half"], setting.dry)
    yield curve.same_rest("resume: curve", steps["tiny-32"], steps["tiny-32-second-half"])
    last = f"checkpoints/step-{STEPS:08d}"
    straight, halves = (outcomes[name].directory / last for name in ("tiny-32", "tiny-32-second-half"))
    yield saved.same("resume: checkpoint", straight, halves)
    for name in ("7b-8", "7b-32"):
        yield curve.begins_right(f"{name} curve", outcomes[name].directory)
    for name in ("tiny-32", "7b-8", "7b-32"):
        yield curve.throughput(f"{name} speed", steps[name], setting.dry)
