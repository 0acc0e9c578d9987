"""MLflow's own client and store, read back by MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainer.errors import ConfigError
from trainer.jobs.registry.mirror import fault, mirror
from trainer.jobs.registry.versions import Registry
from trainer.storage.base import StorageError

TIME = "2026-11-30T02:30:00+00:00"


def published(registry: Registry, tmp_path: Path, version: str, after: int) -> None:
    (tmp_path / version / "model").mkdir(parents=True)
    (tmp_path / version / "model" / "config.json").write_text("{}")
    lineage = {"job": "nightly", "slot": version[-16:], "parent": None, "recipe": {"name": "smollm2_lora"}}
    registry.add(version, tmp_path / version, {**lineage, "technique": {"kind": "lora"}, "data": "abc"})
    registry.promote("champion", version, after, TIME, "night", "better", version)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # 3.17 keeps a directory as a store behind this only
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    return mlflow.MlflowClient()


def test_each_version_once_and_the_alias_where_ours_is(client: Any, tmp_path: Path) -> None:
    registry = Registry.at(str(tmp_path / "registry"), "assistant")
    assert mirror("assistant", registry, "champion") == "champion names nothing"
    first, second = "nightly-20261129t013000z", "nightly-20261130t013000z"
    published(registry, tmp_path, first, 0)
    assert mirror("assistant", registry, "champion") == "assistant 1 is champion in MLflow"
    published(registry, tmp_path, second, 1)
    assert mirror("assistant", registry, "champion") == "assistant 2 is champion in MLflow"
    assert mirror("assistant", registry, "champion") == "assistant 2 is champion in MLflow"
    assert len(client.search_model_versions("name = 'assistant'")) == 2
    found = client.get_model_version_by_alias("assistant", "champion")
    assert found.tags["trainer.version"] == second
    assert found.tags["trainer.recipe"] == "smollm2_lora"
    assert found.source == (tmp_path / "registry/assistant/versions" / second / "model").as_uri()
    registry.roll_back("champion", TIME, "me", "rude")
    assert mirror("assistant", registry, "champion") == "assistant 1 is champion in MLflow"
    assert client.get_model_version_by_alias("assistant", "champion").tags["trainer.version"] == first


def test_what_mlflow_refuses(client: Any, tmp_path: Path) -> None:
    registry = Registry.at(str(tmp_path / "registry"), "assistant")
    published(registry, tmp_path, "nightly-20261129t013000z", 0)
    with pytest.raises(StorageError, match=r"publish\.mlflow"):
        mirror("", registry, "champion")


def test_without_an_address_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    problem = fault()
    assert problem is not None
    assert "MLFLOW_TRACKING_URI" in problem.remedy
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        mirror("assistant", Registry.at(str(tmp_path / "registry"), "assistant"), "champion")
    assert list(tmp_path.iterdir()) == []
