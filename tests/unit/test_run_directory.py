"""A run is known by its name: live, finished, unfinished, changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from tests import harness
from trainer.config.composable import composable_schema
from trainer.config.compose import to_config
from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.data import SourceConfig, TokenizerConfig
from trainer.config.groups.optim import OptimConfig
from trainer.config.groups.resume import ResumeConfig
from trainer.config.groups.run import RunConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError
from trainer.rules.names import recipe
from trainer.run.directory import RunDirectory, open_run, trim_metrics
from trainer.run.trajectory import differences
from trainer.run.world import World


def config(root: Path, **changes: object) -> Config:
    return replace(Config(recipe="tiny", run=RunConfig(root=str(root), name="a")), **changes)


def test_a_new_run_keeps_config_overrides_and_environment(tmp_path: Path) -> None:
    run = start(config(tmp_path), ["recipe=tiny", "optim.lr=1"])
    assert run.result is None
    saved = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert saved["optim"]["lr"] == OptimConfig().lr
    assert json.loads((tmp_path / "a" / "overrides.json").read_text()) == ["recipe=tiny", "optim.lr=1"]
    environment = json.loads((tmp_path / "a" / "environment.json").read_text())
    assert environment["packages"]["torch"].startswith("2.9")
    run.close()


def start(config: Config, overrides: list[str]) -> RunDirectory:
    """Open a run and begin it, as the recipe does once the weights are in place."""
    run = open_run(config)
    if run.result is None:
        run.begin(config, overrides, step=0)
    return run


def trained(root: Path) -> None:
    """Leave what a run leaves that has trained: a checkpoint makes a trajectory worth protecting."""
    (root / "a" / "checkpoints" / "step-00000001").mkdir(parents=True)


def test_the_same_run_may_go_on_and_a_changed_one_may_not(tmp_path: Path) -> None:
    start(config(tmp_path), []).close()
    start(config(tmp_path), []).close()
    watched = config(tmp_path)
    watched = replace(watched, logging=replace(watched.logging, every_steps=1))
    trained(tmp_path)
    start(watched, []).close()  # what is printed is no part of the trajectory
    changed = config(tmp_path, optim=OptimConfig(lr=7.0, beta1=0.5))
    before = (tmp_path / "a" / "config.yaml").read_text()
    with pytest.raises(ConfigError) as raised:
        start(changed, [])
    assert [problem.key for problem in raised.value.problems] == ["optim.beta1", "optim.lr"]
    assert "0.001" in raised.value.problems[1].rule
    assert "resume.allow=[optim.beta1,optim.lr]" in raised.value.problems[1].remedy
    assert (tmp_path / "a" / "config.yaml").read_text() == before, "a refusal overwrites nothing"
    start(replace(changed, resume=ResumeConfig(allow=["optim"])), []).close()


@pytest.mark.parametrize("adapter", [AdapterConfig(), AdapterConfig("lora", 8), AdapterConfig("lora", dora=True)])
def test_what_alters_the_tensors_of_adapters_is_not_offered_to_be_allowed(
    tmp_path: Path, adapter: AdapterConfig
) -> None:
    start(config(tmp_path, adapter=AdapterConfig("lora")), []).close()
    trained(tmp_path)
    with pytest.raises(ConfigError, match="its checkpoints hold") as raised:
        start(config(tmp_path, adapter=adapter, resume=ResumeConfig(allow=["adapter"])), [])
    assert [problem.remedy for problem in raised.value.problems] == ["restore it, or run.name=<another>"]


def test_a_first_start_that_failed_may_be_mended(tmp_path: Path) -> None:
    start(config(tmp_path), []).close()
    start(config(tmp_path, optim=OptimConfig(lr=7.0)), []).close()
    saved = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert saved["optim"]["lr"] == 7.0
    starts = (tmp_path / "a" / "launches.jsonl").read_text().splitlines()
    assert len(starts) == 2, "every start is on record"


def test_a_key_newer_than_the_run_holds_its_default(tmp_path: Path) -> None:
    start(config(tmp_path), []).close()
    trained(tmp_path)
    path = tmp_path / "a" / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    del saved["optim"]["eps"], saved["model"]["rope_scaling"]
    path.write_text(yaml.safe_dump(saved))
    start(config(tmp_path), []).close()
    with pytest.raises(ConfigError, match=r"optim\.eps"):
        start(config(tmp_path, optim=OptimConfig(eps=1e-5)), [])


def test_a_live_run_keeps_its_name(tmp_path: Path) -> None:
    code = (
        "import sys, time; from trainer.config.schema import *; from trainer.run.directory import open_run\n"
        f"run = open_run(Config(recipe='tiny', run=RunConfig(root={str(tmp_path)!r}, name='a')))\n"
        "print('open', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=harness.ROOT)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(ConfigError, match="no live run"):
            start(config(tmp_path), [])
    finally:
        holder.kill()
        holder.wait()
    start(config(tmp_path), []).close()  # kill -9 frees the name


def test_a_finished_run_says_so(tmp_path: Path) -> None:
    run = start(config(tmp_path), [])
    run.finish({"step": 5})
    run.close()
    trained(tmp_path)
    assert start(config(tmp_path), []).result == {"step": 5}
    with pytest.raises(ConfigError, match=r"optim\.lr"):
        start(config(tmp_path, optim=OptimConfig(lr=7.0)), [])
    longer = config(tmp_path, optim=OptimConfig(lr=7.0), resume=ResumeConfig(allow=["optim.lr"]))
    assert start(longer, []).result is None, "an allowed change goes on instead of printing the old result"


def test_a_broken_saved_configuration_is_refused(tmp_path: Path) -> None:
    start(config(tmp_path), []).close()
    trained(tmp_path)
    (tmp_path / "a" / "config.yaml").write_text("{ not yaml")
    with pytest.raises(ConfigError, match="can be read"):
        start(config(tmp_path), [])


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can be written"):
        start(config(tmp_path / "file"), [])


def test_metrics_after_the_checkpoint_are_trimmed(tmp_path: Path) -> None:
    lines = [json.dumps({"kind": "step", "step": step}) for step in range(1, 8)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind": "step", "st')
    trim_metrics(tmp_path, 4)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == lines[:4]


def test_an_evaluation_that_is_done_again_is_trimmed(tmp_path: Path) -> None:
    """The launch before saved the last step, and could not write the result: the next one evaluates again."""
    lines = [json.dumps({"kind": kind, "step": step}) for step in (2, 4) for kind in ("step", "evaluation")]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    trim_metrics(tmp_path, 4)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == lines, "a longer training goes on from step 4"
    trim_metrics(tmp_path, 4, evaluates_first=True)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == lines[:3]


def test_a_result_that_cannot_be_written_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    run = start(config(tmp_path), [])
    (tmp_path / "a" / "result.json").mkdir()
    with pytest.raises(ConfigError, match="takes the run's records"):
        run.finish({"step": 5})
    run.close()


def test_a_config_saved_under_old_keys_still_resumes(tmp_path: Path) -> None:
    """Each run before the rename has backend.world and backend.rank in its config.yaml, mostly null."""
    run = start(config(tmp_path), [])
    run.close()
    file = tmp_path / "a" / "config.yaml"
    saved = yaml.safe_load(file.read_text())
    del saved["rehearsal"], saved["parallel"]["cores"]
    saved["backend"] |= {"world": 512, "rank": None}
    saved["optim"]["_target_"] = None
    file.write_text(yaml.safe_dump(saved))
    assert differences(tmp_path / "a", config(tmp_path)) == []
    again = to_config(
        OmegaConf.merge(composable_schema(), {key: saved[key] for key in ("backend", "parallel", "model")})
    )
    assert (again.parallel.cores, again.rehearsal.rank, again.rehearsal.world) == (512, None, None)


def test_an_optimizer_saved_under_its_old_key_is_the_same_optimizer(tmp_path: Path) -> None:
    now = replace(config(tmp_path), optim=OptimConfig(name="torch.optim:SGD"))
    start(now, []).close()
    file = tmp_path / "a" / "config.yaml"
    saved = yaml.safe_load(file.read_text())
    saved["optim"] |= {"name": "adamw", "_target_": "torch.optim.SGD"}
    file.write_text(yaml.safe_dump(saved))
    assert differences(tmp_path / "a", now) == []


def test_a_key_that_no_version_had_is_refused_in_an_open_group() -> None:
    """backend is open to old keys when Hydra composes; a misspelling there is found all the same."""
    with pytest.raises(ConfigError, match=r"did you mean backend.name"):
        to_config(OmegaConf.merge(composable_schema(), {"backend": {"nmae": "native"}}))


def with_sources(config: Config, *sources: SourceConfig, allow: Sequence[str] = ()) -> Config:
    return replace(config, data=replace(config.data, sources=list(sources)), resume=ResumeConfig(allow=list(allow)))


def test_sources_are_compared_by_name_and_where_they_lie_is_nobodys_business(tmp_path: Path) -> None:
    a, b = SourceConfig(name="a", paths=["x"]), SourceConfig(name="b", paths=["y"], options={"count": 3})
    base = config(tmp_path)
    start(with_sources(base, a, b), []).close()
    trained(tmp_path)
    start(with_sources(base, replace(a, paths=["elsewhere", "x"]), b), []).close()
    moved = replace(base.data, tokenizer=TokenizerConfig(path="elsewhere"), sources=[a, b])
    start(replace(base, data=moved), []).close()
    changed = (replace(a, weight=2.0), replace(b, options={"count": 4}))
    with pytest.raises(ConfigError) as raised:
        start(with_sources(base, *changed), [])
    keys = ["data.sources.0.weight", "data.sources.1.options.count"]
    assert [problem.key for problem in raised.value.problems] == keys
    assert "was started with 3 (source b)" in raised.value.problems[1].rule
    assert f"'resume.allow=[{','.join(keys)}]'" in raised.value.problems[0].remedy
    assert differences(tmp_path / "a", with_sources(base, *changed))[0].before == 1.0, "a refusal writes nothing"
    for allow in (keys, ["data.sources"], ["data"]):
        allowed = with_sources(base, *changed, allow=allow)
        assert not list(recipe(replace(allowed, task="pretrain"), World())), "what the remedy says can be said"
        open_run(allowed).close()
    lines = open_run(with_sources(base, *changed, allow=keys))
    assert lines.begin(with_sources(base, *changed), [], step=1) == [
        "data.sources.0.weight: 1.0 -> 2.0 (source a)",
        "data.sources.1.options.count: 3 -> 4 (source b)",
    ]
    lines.close()


def test_the_order_of_sources_is_the_datas_and_their_names_are_fixed(tmp_path: Path) -> None:
    """Held-out windows and a tokenizer that is learnt follow the order; the names are what the cursor counts by."""
    a, b = SourceConfig(name="a", paths=["x"]), SourceConfig(name="b", paths=["y"])
    base = config(tmp_path)
    start(with_sources(base, a, b), []).close()
    trained(tmp_path)
    with pytest.raises(ConfigError) as raised:
        open_run(with_sources(base, b, a))
    assert [(problem.key, problem.value) for problem in raised.value.problems] == [("data.sources", ["b", "a"])]
    open_run(with_sources(base, b, a, allow=["data.sources"])).close()
    for names in ([a], [a, b, replace(a, name="c")], [a, replace(b, name="c")]):
        with pytest.raises(ConfigError, match="counted in samples of each source"):
            open_run(with_sources(base, *names, allow=["data", "data.sources"]))


def test_records_that_cannot_be_written_are_refused_before_anything_changes(tmp_path: Path) -> None:
    start(config(tmp_path), []).close()
    (tmp_path / "a" / "launches.jsonl").unlink()
    (tmp_path / "a" / "launches.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"launches\.jsonl is a file"):
        open_run(config(tmp_path))
