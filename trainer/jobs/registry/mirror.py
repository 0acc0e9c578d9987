"""MLflow's model registry shows what is published here: a version for each, and the alias on the same one.

The registry here stays the truth. A version is entered once, found again by its tag; the alias is set where ours is
when we look, so that a mirror that has missed something is right after the next move.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError, Problem
from trainer.jobs.registry.versions import Registry
from trainer.storage.base import StorageError, is_remote

KEY = "publish.mlflow"
ADDRESSES = ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI")
"""Where MLflow's client itself looks, the first before the second."""
VERSION = "trainer.version"
"""Tag with the name of our version."""


def fault() -> Problem | None:
    """Why nothing can be mirrored from this host; None where it can. Nobody is asked over a network."""
    if find_spec("mlflow") is None:
        return Problem(KEY, "mlflow", "is installed where tick runs", "pip install mlflow-skinny, or take the key away")
    if not any(os.environ.get(name) for name in ADDRESSES):
        rule = "has its address in the environment: without one MLflow would write beside this job"
        return Problem(KEY, ADDRESSES[1], rule, f"export {ADDRESSES[1]}=https://... where tick runs")
    return None


def mirror(model: str, registry: Registry, alias: str) -> str:
    """Enter the version that the alias names, and set MLflow's alias of the same name; a sentence.

    model: its name in MLflow. Raises ConfigError where MLflow is not there, StorageError where it refuses.
    """
    if (problem := fault()) is not None:
        raise ConfigError(problem)
    version = registry.alias(alias).version
    if version is None:
        return f"{alias} names nothing"
    try:
        number = _entered(import_module("mlflow").MlflowClient(), model, registry, version, alias)
    except import_module("mlflow.exceptions").MlflowException as error:
        why = " ".join(str(error).split())[:300]
        remedy = "mend it; the next move of the alias sets all right"
        raise StorageError(KEY, model, f"takes a version: {why}", remedy) from None
    return f"{model} {number} is {alias} in MLflow"


def _entered(client: Any, model: str, registry: Registry, version: str, alias: str) -> str:
    """Its number in MLflow, where it is the alias now. Of two hosts that enter it at once the lower number counts."""
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model)
    if not (found := _numbers(client, model, version)):
        client.create_model_version(model, _source(registry, version), tags=_tags(registry, version))
        found = _numbers(client, model, version)
    number = min(found, key=int)
    client.set_registered_model_alias(model, alias, number)
    return number


def _numbers(client: Any, model: str, version: str) -> list[str]:
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{model}'", page_token=token)
        found += [str(one.version) for one in page if one.tags.get(VERSION) == version]
        if not (token := page.token):
            return found


def _source(registry: Registry, version: str) -> str:
    place = registry.place(version)
    return f"{place}/model" if is_remote(place) else Path(place, "model").absolute().as_uri()


def _tags(registry: Registry, version: str) -> Mapping[str, str]:
    """Its lineage, as far as it is short; the rest is in version.json."""
    record = registry.record(version) or {}
    known = {name: record.get(name) for name in ("job", "slot", "parent", "data")}
    known["recipe"] = record.get("recipe", {}).get("name")
    known["technique"] = record.get("technique", {}).get("kind")
    return {VERSION: version, **{f"trainer.{name}": str(value) for name, value in known.items() if value}}
