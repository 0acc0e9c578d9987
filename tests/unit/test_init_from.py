"""What model.init_from does to a configuration: who gives way to whom, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import directories
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.commands.import_hf import import_directory
from trainer.commands.init_from import Given, resolve
from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.backend import BackendConfig
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.config.groups.model import ModelConfig
from trainer.config.groups.run import RunConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError
from trainer.parallel.boxes import Store
from trainer.rules.check import validate
from trainer.run.directory import config_yaml, open_run
from trainer.run.world import World
from trainer.training.trust import launch_facts

WORLD, NOTHING = World(cpu_bf16=True), Given(())
ENVIRONMENT = {"packages": {}, "python": "3.11"}


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directories.write(Path("model"))
    directories.write_tokenizer(Path("model"), 38)


def config(init_from: str | None = "model", tokenizer: TokenizerConfig | None = None, **model: Any) -> Config:
    data = DataConfig(sources=[SourceConfig(kind="python_stdlib")], tokenizer=tokenizer or TokenizerConfig())
    run = RunConfig(name="mine")
    return Config(recipe="tiny", run=run, data=data, model=ModelConfig(init_from=init_from, **model))


def test_conf_gives_way_and_it_is_said() -> None:
    found, lines = resolve(config(hidden=256, dropout=0.1, frozen=["model.norm.*"], sliding_window=64), NOTHING, WORLD)
    m = found.model
    assert (m.hidden, m.layers, m.heads, m.kv_heads, m.mlp, m.vocab, m.max_positions) == (16, 2, 4, 2, 24, 40, 128)
    assert m.sliding_window is None, "what the directory does not have, the recipe's model has not either"
    assert (m.dropout, m.frozen, m.name) == (0.1, ["model.norm.*"], "model"), "these speak of training"
    assert found.data.tokenizer == TokenizerConfig(kind="file", path="model/tokenizer.json")
    assert lines[0] == (
        "dimensions     from model: llama, 2 layers, hidden 16, 4 heads (2 of keys and values), mlp 24, vocabulary 40,"
        " 128 positions"
    )
    assert lines[1].startswith("               in place of conf's model.hidden 256, model.layers 4, model.kv_heads 4")
    assert lines[2] == "weights        21 tensors there, 21 in float32; from step 0, without optimizer state"
    assert lines[3] == "tokenizer      model/tokenizer.json: 38 ids; 2 rows have no id"
    validate(replace(found, train=replace(found.train, steps=10, tokens_per_step=512, microbatch=1), data=replace(
        found.data, seq_len=128)), WORLD)  # fmt: skip


def test_without_it_nothing_changes() -> None:
    assert resolve(config(None), NOTHING, WORLD) == (config(None), ())


def test_the_command_line_may_say_the_same_and_nothing_else() -> None:
    same = Given({"model.hidden", "model.rope_theta", "model.dropout", "optim.lr"})
    assert resolve(config(hidden=16, dropout=0.5), same, WORLD)[0].model.hidden == 16
    other = Given({"model.hidden", "model.rope_scaling.kind", "model.tied"})
    with pytest.raises(ConfigError) as raised:
        resolve(
            config(hidden=32, tied=True, rope_scaling=replace(ModelConfig().rope_scaling, kind="linear")), other, WORLD
        )
    assert [problem.key for problem in raised.value.problems] == [
        "model.hidden",
        "model.rope_scaling.kind",
        "model.tied",
    ]
    first = raised.value.problems[0]
    assert (first.value, first.remedy) == (32, "leave model.hidden out, or model.init_from")
    assert first.rule == "16, as model says, which model.init_from takes the dimensions from"


def test_a_larger_vocabulary_grows_and_a_smaller_one_is_refused() -> None:
    found, lines = resolve(config(vocab=64), Given({"model.vocab"}), WORLD)
    assert found.model.vocab == 64
    assert "vocabulary     40 rows grow to 64: each new one is the mean of the old" in lines
    assert resolve(config(vocab=64), NOTHING, WORLD)[0].model.vocab == 40, "conf's vocabulary gives way"
    with pytest.raises(ConfigError, match=r"model.vocab = 32\n.*rule: +40, as model says.*drop ids"):
        resolve(config(vocab=32), Given({"model.vocab"}), WORLD)


def test_the_saved_configuration_of_a_grown_run_says_the_same_again() -> None:
    found, _ = resolve(config(vocab=64), Given({"model.vocab"}), WORLD)
    assert resolve(found, Given((), resolved=True), WORLD)[0] == found


def test_more_ids_than_rows_are_refused_unless_the_vocabulary_grows() -> None:
    directories.write_tokenizer(Path("model"), 44)
    with pytest.raises(ConfigError, match=r"44 ids, 40 rows\n.*model.vocab=44 adds rows"):
        resolve(config(), NOTHING, WORLD)
    assert resolve(config(vocab=44), Given({"model.vocab"}), WORLD)[0].model.vocab == 44
    directories.write_tokenizer(Path("model"), 34)
    with pytest.raises(ConfigError, match=r"34 ids use less than 7/8 of the embedding's 40 rows"):
        resolve(config(), NOTHING, WORLD)
    Path("model/tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"its tokenizer.json gives each token an id"):
        resolve(config(), NOTHING, WORLD)


def test_the_users_tokenizer_stands() -> None:
    own = TokenizerConfig(kind="file", path="own.json")
    found, _ = resolve(config(tokenizer=own), Given({"data.tokenizer.path"}), WORLD)
    assert found.data.tokenizer == own
    found, _ = resolve(config(tokenizer=own), NOTHING, WORLD)
    assert found.data.tokenizer.path == "model/tokenizer.json", "a recipe's gives way"
    found, _ = resolve(config(tokenizer=TokenizerConfig(eod="w3")), Given({"data.tokenizer.eod"}), WORLD)
    assert found.data.tokenizer == TokenizerConfig(kind="file", path="model/tokenizer.json", eod="w3")
    Path("model/tokenizer.json").unlink()
    found, lines = resolve(config(tokenizer=own), NOTHING, WORLD)
    assert found.data.tokenizer == own
    assert "tokenizer      own.json: model has no tokenizer.json" in lines
    with pytest.raises(ConfigError, match=r"learnt anew"):
        resolve(config(), NOTHING, WORLD)
    chosen = Given({"data.tokenizer.vocab"})
    assert resolve(config(), chosen, WORLD)[0].data.tokenizer.kind == "train_bpe", "who says so, may"


def test_a_rehearsal_needs_no_directory() -> None:
    fake = replace(config("elsewhere", hidden=64), backend=BackendConfig(name="fake"))
    found, lines = resolve(fake, NOTHING, WORLD)
    assert found == fake
    assert lines == (
        "dimensions     elsewhere is not here: those of conf/model stand, and the tokenizer (backend=fake)",
    )
    there = replace(config(hidden=64), backend=BackendConfig(name="fake"))
    assert resolve(there, NOTHING, WORLD)[0].model.hidden == 16
    with pytest.raises(ConfigError, match=r"does not exist"):
        resolve(config("elsewhere"), NOTHING, WORLD)


@pytest.mark.parametrize("named", ["", "s3://bucket/model"])
def test_it_is_a_directory_of_this_machine(named: str) -> None:
    with pytest.raises(ConfigError, match=r"a directory of this machine or mounted on it"):
        resolve(config(named), NOTHING, WORLD)


def test_a_name_that_is_too_long_is_no_directory_either() -> None:
    for adapter in (AdapterConfig(), AdapterConfig(kind="lora")):
        with pytest.raises(ConfigError, match=r"File name too long"):
            resolve(replace(config("x" * 300), adapter=adapter), NOTHING, WORLD)


def test_a_family_of_a_users_own_is_kept() -> None:
    found, _ = resolve(config(family="mine.module:maker", options={"n": 1}), Given({"model.family"}), WORLD)
    assert (found.model.family, found.model.options, found.model.hidden) == ("mine.module:maker", {"n": 1}, 16)


def begun(run: Path, by: Config, steps: int = 4) -> None:
    """A run of ours that has saved."""
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(config_yaml(by, run))
    Saver(run / "checkpoints", 0, config_yaml(by, run), {}).save(Store({}, {}), TrainState(step=steps, updates=steps))


def test_a_run_of_ours_is_a_source() -> None:
    """Its checkpoint is named for good: the run may go on meanwhile, and ranks have to read the same."""
    list(import_directory("model", "made"))
    found, lines = resolve(config("made", hidden=256), NOTHING, WORLD)
    assert found.model.init_from == "made/step-00000000"
    assert (found.model.hidden, found.model.vocab) == (16, 40)
    assert found.data.tokenizer == TokenizerConfig(kind="file", path="made/tokenizer.json")
    assert "tokenizer      made/tokenizer.json: 38 ids; 2 rows have no id" in lines
    Path("runs/other").mkdir(parents=True)
    Path("made").rename("runs/other/checkpoints")
    Path("runs/other/tokenizer").mkdir()
    Path("runs/other/checkpoints/tokenizer.json").rename("runs/other/tokenizer/tokenizer.json")
    found, _ = resolve(config("runs/other"), NOTHING, WORLD)
    assert found.data.tokenizer.path == "runs/other/tokenizer/tokenizer.json", "a run keeps it, one learnt there too"
    Path("runs/other/checkpoints").rename("made")
    with pytest.raises(ConfigError, match=r"16, as made/step-00000000 says"):
        resolve(config("made", hidden=8), Given({"model.hidden"}), WORLD)


def test_a_run_that_has_begun_does_not_look_at_its_source_again() -> None:
    first, _ = resolve(config(vocab=64), Given({"model.vocab"}), WORLD)
    begun(Path("runs/mine"), first)
    Path("model").rename("gone")
    again, lines = resolve(config(), NOTHING, WORLD)
    assert again.model == first.model, "the grown vocabulary is the run's"
    assert again.data.tokenizer == first.data.tokenizer
    assert lines == (
        "dimensions     runs/mine/config.yaml: the run has begun, and model.init_from (model) is not read again",
    )
    with pytest.raises(ConfigError, match=r"16, as runs/mine/config.yaml says"):
        resolve(config(hidden=8), Given({"model.hidden"}), WORLD)
    with pytest.raises(ConfigError, match=r"gone2.*\n.*does not exist"):
        resolve(config("gone2"), NOTHING, WORLD)


def test_a_source_is_the_same_by_another_spelling() -> None:
    first, _ = resolve(config(), NOTHING, WORLD)
    begun(Path("runs/mine"), first)
    _, (line,) = resolve(config(str(Path("model").resolve())), NOTHING, WORLD)
    assert "the run has begun" in line
    with pytest.raises(ConfigError, match="holds a model"):
        resolve(config("."), NOTHING, WORLD)


def test_an_import_without_a_tokenizer_is_no_run_that_learnt_one() -> None:
    """Ids of a tokenizer that the run would learn mean nothing to the weights, whichever way they came."""
    Path("model/tokenizer.json").unlink()
    assert any("no tokenizer.json" in line for line in list(import_directory("model", "made")))
    for named in ("model", "made"):
        with pytest.raises(ConfigError, match="learnt anew"):
            resolve(config(named), NOTHING, WORLD)


def test_an_import_says_what_its_tokenizer_is_short_of() -> None:
    directories.write_tokenizer(Path("model"), 43)
    lines = list(import_directory("model", "made"))
    assert any("43 ids, the embedding 40 rows: a run from it says model.vocab=43" in line for line in lines)
    with pytest.raises(ConfigError, match=r"model\.vocab=43 adds rows"):
        resolve(config("made"), NOTHING, WORLD)
    directories.write_tokenizer(Path("model"), 20)
    with pytest.raises(ConfigError, match="less than 7/8"):
        list(import_directory("model", "another"))
    assert not Path("another").exists()


def test_another_source_is_another_trajectory() -> None:
    first, _ = resolve(config(), NOTHING, WORLD)
    begun(Path("runs/mine"), first)
    directories.write(Path("other"))
    directories.write_tokenizer(Path("other"), 40)
    other, _ = resolve(config("other"), NOTHING, WORLD)
    with pytest.raises(ConfigError, match=r"resume.allow=\[model.init_from,model.name\]"):
        open_run(other)
    with pytest.raises(ConfigError, match=r"model.init_from = None"):
        open_run(replace(first, model=replace(first.model, init_from=None)))


def test_ranks_that_see_other_weights_have_other_facts() -> None:
    found, _ = resolve(config(), NOTHING, WORLD)
    before = launch_facts(found, ENVIRONMENT, "cpu")
    directories.write(Path("elsewhere"))
    moved = launch_facts(replace(found, model=replace(found.model, init_from="elsewhere")), ENVIRONMENT, "cpu")
    assert moved == before, "the same directory under another path"
    directories.write(Path("model"), {**directories.CONFIG, "rms_norm_eps": 1e-6})
    after = launch_facts(found, ENVIRONMENT, "cpu")
    assert [key for key in after if after[key] != before[key]] == ["weights of model.init_from"]
    file = replace(found, model=replace(found.model, init_from="model/config.json"))
    assert launch_facts(file, ENVIRONMENT, "cpu")["weights of model.init_from"] == "not there"
