"""Job files as people write them wrong: each mistake is one problem, under its key, with the file's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.commands.jobs.load import load, named
from trainer.errors import ConfigError, ExitCode

GOOD = 'recipe: tiny\nschedule: {cron: "0 2 * * *"}\n'
SETS = "sets: [{name: frozen, paths: [a.txt]}]\n"


def jobs_in(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    return directory


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('schedule: {cron: "0 2 * * *"}', "recipe"),
        ("recipe: tiny", "schedule"),
        (GOOD.replace('cron: "0 2 * * *"', 'cron: "0 2 * * *", new_data: true'), "schedule"),
        (GOOD.replace("0 2 * * *", "0 25 * * *"), "schedule.cron"),
        (GOOD.replace("0 2 * * *", "0 0 30 2 *"), "schedule.cron"),
        (GOOD.replace('*"', '*", time_zone: CET+1'), "schedule.time_zone"),
        (GOOD.replace('*"', '*", begins: soon'), "schedule.begins"),
        (GOOD.replace('*"', '*", catch_up: some'), "schedule.catch_up"),
        (GOOD.replace('*"', '*", deadline_minutes: 0'), "schedule.deadline_minutes"),
        (GOOD.replace('cron: "0 2 * * *"', "after: nobody"), "schedule.after"),
        (GOOD.replace('cron: "0 2 * * *"', "after: job"), "schedule.after"),
        (GOOD + "overrides: [train.steps]", "overrides.0"),
        (GOOD + "overrides: [run.name=x]", "overrides.0"),
        (GOOD + "overrides: train.steps=3", "overrides"),
        (GOOD + "start: {otherwise: maybe}", "start.otherwise"),
        (GOOD + "start: {adapter: both}", "start.adapter"),
        (GOOD + "retries: {codes: {often: 2}}", "retries.codes.often"),
        (GOOD + 'retries: {codes: {"12": -1}}', "retries.codes.12"),
        (GOOD + "limits: {money: 0}", "limits.money"),
        (GOOD + "limits: {minutes: .nan}", "limits.minutes"),
        (GOOD + "limits: {steps: many}", "limits.steps"),
        (GOOD + "sets: [{name: a, paths: []}]", "sets.0.paths"),
        (GOOD + "sets: [{name: a, paths: [x]}, {name: b, kind: images, paths: [x]}]", "sets.1.kind"),
        (GOOD + SETS + "gates: [{name: g, set: other}]", "gates.0.set"),
        (GOOD + SETS + "gates: [{name: g, set: frozen, kind: best}]", "gates.0.kind"),
        (GOOD + SETS + "gates: [{name: g, set: frozen, metric: bleu}]", "gates.0.metric"),
        (GOOD + SETS + "gates: [{name: g, set: frozen, metric: accuracy}]", "gates.0.metric"),
        (GOOD + "sets: [{name: a, kind: tasks, paths: [x]}]\ngates: [{name: g, set: a}]", "gates.0.metric"),
        (GOOD + SETS + "gates: [{name: g, set: frozen, kind: absolute}]", "gates.0.limit"),
        (GOOD + SETS + "gates: [{name: g, set: frozen, limit: 3}]", "gates.0.limit"),
        (GOOD + SETS + "gates: [{name: g, set: frozen, margin: -0.1}]", "gates.0.margin"),
        (GOOD + SETS + "gates: [{set: frozen}]", "gates.0.name"),
        (GOOD + "publish: {alias: best}", "publish.alias"),
        (GOOD + "publish: {dtype: int4}", "publish.dtype"),
        (GOOD + "retention: {versions: 0}", "retention.versions"),
        (GOOD + "notify: {ends: [always]}", "notify.ends.0"),
        (GOOD + "webhook: https://example.com", "webhook"),
        (GOOD + "gates: {name: g}", "gates"),
    ],
)
def test_a_mistake_is_one_problem_under_its_key(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(jobs_in(tmp_path, job=text))
    assert raised.value.code == ExitCode.CONFIG
    (problem,) = raised.value.problems
    assert problem.key.split(": ")[-1].startswith(key)
    assert "job" in problem.key
    assert problem.remedy


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("override: [a=b]", "did you mean overrides?"),
        ("set: []", "did you mean sets?"),
        ("publish: {modle: a}", "did you mean publish.model?"),
        ("gates: [{nam: a}]", "did you mean gates.0.name?"),
        ("optim: {lr: 1}", "docs/job_keys.md lists the keys"),
    ],
)
def test_a_key_of_a_job_is_suggested_and_none_of_a_training(tmp_path: Path, text: str, meant: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(jobs_in(tmp_path, job=GOOD + text))
    assert [problem.remedy for problem in raised.value.problems] == [meant]


@pytest.mark.parametrize("text", ["[1, 2", "- a\n- b\n", "\x00", "just words", ""])
def test_what_is_no_file_of_keys_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(jobs_in(tmp_path, job=text))
    assert "job.yaml" in raised.value.problems[0].key


@pytest.mark.parametrize("name", ["Nightly", "a_b", "-a", "a--b", "x" * 25, "a.b"])
def test_a_name_that_a_scheduler_would_refuse_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="rename the file"):
        load(jobs_in(tmp_path, **{name: GOOD}))


def test_mistakes_of_all_files_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(jobs_in(tmp_path, one="recipe: tiny", two="schedule: {new_data: true}", three=GOOD))
    assert len(raised.value.problems) == 2


def test_jobs_in_a_circle_are_told_once_each(tmp_path: Path) -> None:
    files = {name: GOOD.replace('cron: "0 2 * * *"', f"after: {after}") for name, after in ("ab", "bc", "ca")}
    with pytest.raises(ConfigError, match="a after b after c after a"):
        load(jobs_in(tmp_path, **files))


def test_good_files_are_jobs(tmp_path: Path) -> None:
    jobs = load(jobs_in(tmp_path, night=GOOD + SETS, later="recipe: tiny\nschedule: {after: night}\n"))
    assert [job.name for job in jobs] == ["later", "night"]
    assert named(jobs, "night").config.sets[0].paths == ["a.txt"]
    assert named(jobs, "night").config.retries.codes["10"] == 20
    with pytest.raises(ConfigError, match="later, night"):
        named(jobs, "nigth")
    with pytest.raises(ConfigError, match="--jobs"):
        load(tmp_path / "nowhere")
