"""Champions: promotions, rollbacks, and hosts that come late, on a directory whose link readers follow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.errors import ConfigError
from trainer.jobs.log import Conflict, Damaged
from trainer.jobs.registry.fetch import fetched
from trainer.jobs.registry.versions import Registry
from trainer.storage.base import StorageError
from trainer.storage.local import LocalStorage


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """With three versions, each of two files."""
    made = Registry(LocalStorage("publish.registry"), f"{tmp_path}/registry/model")
    for name in ("v1", "v2", "v3"):
        source = tmp_path / name / "model"
        source.mkdir(parents=True)
        (source / "config.json").write_text(json.dumps({"version": name}))
        (source / "model.safetensors").write_bytes(name.encode() * 100)
        made.add(name, source.parent, {"parent": None})
    return made


def promote(registry: Registry, version: str, after: int, occurrence: str = "") -> None:
    registry.promote("champion", version, after, "2026-11-30T02:00:00+00:00", "test", "because", occurrence)


def test_readers_of_paths_see_what_the_log_says(registry: Registry) -> None:
    link = Path(registry.root) / "champion"
    assert registry.alias("champion").version is None
    for number, version in enumerate(("v1", "v2", "v3")):
        promote(registry, version, number)
        assert registry.alias("champion").version == version
        assert json.loads((link / "model" / "config.json").read_text()) == {"version": version}
    link.unlink()
    link.symlink_to("versions/v1")  # a writer that was asleep
    registry.link("champion")
    assert link.resolve().name == "v3"


def test_rollbacks_go_back_one_by_one_and_stay_withdrawn(registry: Registry) -> None:
    for number, version in enumerate(("v1", "v2", "v3")):
        promote(registry, version, number)
    assert registry.roll_back("champion", "2026-11-30T03:00:00+00:00", "a person", "bad") == "v2"
    assert registry.roll_back("champion", "2026-11-30T03:01:00+00:00", "a person", "bad") == "v1"
    alias = registry.alias("champion")
    assert (alias.version, alias.withdrawn) == ("v1", {"v2", "v3"})
    with pytest.raises(ConfigError, match="can come back"):
        registry.roll_back("champion", "2026-11-30T03:02:00+00:00", "a person", "bad")
    promote(registry, "v3", alias.number)
    assert registry.alias("champion").withdrawn == {"v2"}


def test_what_was_rolled_back_does_not_come_back_by_another_rollback(registry: Registry) -> None:
    for number, version in enumerate(("v1", "v2", "v1", "v1")):
        promote(registry, version, number)
    assert registry.alias("champion").before == "v2"
    assert registry.roll_back("champion", "2026-11-30T03:00:00+00:00", "a person", "bad") == "v2"
    alias = registry.alias("champion")
    assert (alias.version, alias.withdrawn, alias.before) == ("v2", {"v1"}, None)
    with pytest.raises(ConfigError, match="can come back"):
        registry.roll_back("champion", "2026-11-30T03:01:00+00:00", "a person", "bad")
    assert registry.alias("champion").version == "v2"


@pytest.mark.parametrize("name", ["../versions/v1", "..", "v1/../v2", "v1/", ""])
def test_a_version_is_a_name(registry: Registry, name: str) -> None:
    with pytest.raises(ConfigError, match="whole version"):
        promote(registry, name, 0)
    with pytest.raises(ConfigError, match="whole version"):
        fetched(registry, name)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": 3}'])
def test_a_record_that_is_none_is_told_by_its_name(registry: Registry, text: str) -> None:
    (Path(registry.place("v2")) / "version.json").write_text(text)
    with pytest.raises(Damaged, match=r"v2/version\.json"):
        promote(registry, "v2", 0)
    assert registry.alias("champion").version is None


@pytest.mark.parametrize("text", ["{", '{"kind": "roll back"}', '{"kind": "lend", "version": "v1"}', "3"])
def test_a_move_that_is_none_is_told_by_its_name(registry: Registry, text: str) -> None:
    moves = Path(registry.root) / "aliases" / "champion"
    moves.mkdir(parents=True)
    (moves / "00000001.json").write_text(text)
    with pytest.raises(Damaged, match=r"champion/00000001\.json"):
        registry.alias("champion")


def test_secrets_stay_out_of_a_record(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", "hunter2hunter2")
    said = {"overrides": ["logging.wandb.api_key=abc", "data.x=https://me:word@host/hunter2hunter2"]}
    registry.add("v4", tmp_path / "v1", {"recipe": said})
    text = (Path(registry.place("v4")) / "version.json").read_text()
    assert not [secret for secret in ("abc", ":word@", "hunter2") if secret in text], text


def test_who_decided_on_another_champion_is_refused(registry: Registry) -> None:
    promote(registry, "v1", 0)
    with pytest.raises(Conflict):
        promote(registry, "v2", 0)
    assert registry.alias("champion").version == "v1"


def test_an_occurrence_moves_an_alias_once(registry: Registry) -> None:
    promote(registry, "v1", 0, "nightly 1")
    promote(registry, "v2", 1, "nightly 2")
    promote(registry, "v1", 2, "nightly 1")  # a host that has slept since the first night
    assert registry.alias("champion").version == "v2"


def test_half_a_version_is_no_version(registry: Registry) -> None:
    (Path(registry.place("v2")) / "version.json").unlink()
    assert registry.versions() == ["v1", "v3"]
    with pytest.raises(ConfigError, match="whole version"):
        promote(registry, "v2", 0)
    with pytest.raises(ConfigError, match="whole version"):
        fetched(registry, "v2")


def test_a_version_is_what_it_was_when_it_is_published_again(registry: Registry, tmp_path: Path) -> None:
    before = registry.record("v1")
    (tmp_path / "v1" / "model" / "config.json").write_text("{}")
    assert registry.add("v1", tmp_path / "v1", {}) == before
    assert json.loads((Path(registry.place("v1")) / "model" / "config.json").read_text()) == {"version": "v1"}


def test_versions_of_two_jobs_are_in_the_order_of_their_time(registry: Registry, tmp_path: Path) -> None:
    later, earlier = "another-20261130t013000z", "nightly-20261129t013000z-hand"
    (tmp_path / "files").mkdir()
    for version in (later, earlier):
        registry.add(version, tmp_path / "files", {})
    assert registry.versions()[-2:] == [earlier, later]  # retention deletes from the front


@pytest.mark.parametrize("alias", ["", "..", "a/b"])
def test_an_alias_is_a_name(registry: Registry, alias: str) -> None:
    with pytest.raises(ConfigError):
        registry.alias(alias)


def test_a_file_that_is_another_is_not_fetched(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.jobs.registry.fetch.is_remote", lambda path: True)
    cache = tmp_path / "cache"
    copy = fetched(registry, "v1", cache)
    assert (copy / "model" / "model.safetensors").read_bytes() == b"v1" * 100
    (Path(registry.place("v2")) / "model" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(StorageError, match="SHA-256"):
        fetched(registry, "v2", cache)
    record = json.loads((Path(registry.place("v3")) / "version.json").read_text())
    record["files"]["../../../escaped"] = record["files"].pop("model/config.json")
    (Path(registry.place("v3")) / "version.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="names a file of the version"):
        fetched(registry, "v3", cache)
