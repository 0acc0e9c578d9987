"""Job files as people write them wrong: each mistake is one problem, under its key, with the file's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.commands.jobs.load import load, named, read
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
        (GOOD.replace('*"', '*", begins: "0001-01-01"'), "schedule.begins"),
        (GOOD.replace('*"', '*", begins: "2026-11-30T00:00+02:00"'), "schedule.begins"),
        (GOOD.replace('*"', '*", deadline_minutes: .nan'), "schedule.deadline_minutes"),
        (GOOD.replace('*"', '*", deadline_minutes: 1e300'), "schedule.deadline_minutes"),
        (GOOD + "overrides: [++run.name=x]", "overrides.0"),
        (GOOD + "overrides: ['=3']", "overrides.0"),
        (GOOD + "retries: {delay_minutes: .inf}", "retries.delay_minutes"),
        (GOOD + 'retries: {codes: {"12": 5000}}', "retries.codes.12"),
        (GOOD + 'retries: {codes: {"012": 3}}', "retries.codes.012"),
        (GOOD + 'retries: {codes: {"12": "???"}}', "retries.codes"),
        (GOOD + "limits: {money: .inf}", "limits.money"),
        (GOOD + "sets: [{name: ../x, paths: [a]}]", "sets.0.name"),
        (GOOD + "sets: [{name: size_gb, paths: [a]}]", "sets.0.name"),
        (GOOD + "sets: [{name: a, paths: ['']}]", "sets.0.paths"),
        (GOOD + "sets: [{name: a, kind: tasks, paths: [a, b]}]", "sets.0.paths"),
        (GOOD + "sets: [{name: a, paths: [a], seq_len: 0}]", "sets.0.seq_len"),
        (GOOD + "sets: [{name: a, paths: [a], chat: whatever}]", "sets.0.chat"),
        (GOOD + SETS + "gates: [{name: g, set: frozen, margin: .nan}]", "gates.0.margin"),
        (GOOD + SETS + "gates: [{name: g, set: frozen, kind: absolute, limit: .inf}]", "gates.0.limit"),
        (GOOD + SETS + "gates: [{name: g, set: frozen, kind: absolute, limit: 2, margin: 1}]", "gates.0.margin"),
        (GOOD + SETS + "gates: [{name: g, set: frozen, kind: size, limit: 1}]", "gates.0.set"),
        (GOOD + "gates: [{name: g, kind: size, limit: -1}]", "gates.0.limit"),
        (GOOD + "publish: {model: ../x}", "publish.model"),
        (GOOD + 'publish: {registry: ""}', "publish.registry"),
        (GOOD + "publish: {registry: /}", "publish.registry"),
        (GOOD + 'publish: {registry: "s3://"}', "publish.registry"),
        (GOOD + "publish: {registry: gs://bucket/models}", "publish.registry"),
        (GOOD + "start: {model: ../../x}", "start.model"),
        (GOOD + 'notify: {command: [""]}', "notify.command"),
        (GOOD + "notify: {webhook_variable: https://hooks.example.com/abc}", "notify.webhook_variable"),
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


TWICE = GOOD + "gates: [{name: g, kind: size, limit: 1}]\ngates: []\n"  # a gate would be gone, and nobody told


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2",
        "- a\n- b\n",
        "\x00",
        "just words",
        "",
        "a: &a {b: *a}",
        "&a [*a]",
        "a: " + "[" * 3000,
        TWICE,
        GOOD + "sets: {0: {name: a, paths: [x]}}",
    ],
)
def test_what_is_no_file_of_keys_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(jobs_in(tmp_path, job=text))
    assert "job.yaml" in raised.value.problems[0].key


@pytest.mark.parametrize("name", ["Nightly", "a_b", "-a", "a--b", "x" * 25, "a.b"])
def test_a_name_that_a_scheduler_would_refuse_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="rename the file"):
        load(jobs_in(tmp_path, **{name: GOOD}))


def test_an_address_that_stands_in_a_file_is_not_printed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(jobs_in(tmp_path, job=GOOD + "notify: {webhook_variable: https://hooks.example.com/abc}"))
    assert "hooks.example.com" not in str(raised.value)


def test_what_stands_in_a_file_is_text(tmp_path: Path) -> None:
    text = GOOD.replace('*"', '*", begins: 2026-11-30')
    text += "overrides: ['data.cache_dir=${oc.env:NOWHERE}']\nretries: {codes: {12: 7}}\n"
    text += r"notify: {command: [sh, -c, 'echo ${HOME} \${X} $\{']}" + "\n"
    config = load(jobs_in(tmp_path, job=text))[0].config
    assert config.schedule.begins == "2026-11-30"
    assert config.overrides == ["data.cache_dir=${oc.env:NOWHERE}"]
    assert config.notify.command[-1] == r"echo ${HOME} \${X} $\{"
    assert config.retries.codes["12"] == 7


def test_a_file_that_nobody_would_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "nightly.yml").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"is named JOB\.yaml"):
        load(tmp_path)


def test_mistakes_of_all_files_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(jobs_in(tmp_path, one="recipe: tiny", two="schedule: {new_data: true}", three=GOOD))
    assert len(raised.value.problems) == 2


def test_good_files_are_read_beside_bad_ones(tmp_path: Path) -> None:
    files = {"bad": "recipe: tiny", "good": GOOD, "later": GOOD.replace('cron: "0 2 * * *"', "after: bad")}
    jobs, problems = read(jobs_in(tmp_path, **files))
    assert [job.name for job in jobs] == ["good", "later"]
    assert [Path(problem.key.split(": ")[0]).stem for problem in problems] == ["bad"]


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
