"""Objects against the published schemas, as an API server with --validate=strict: unknown fields are errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

SCHEMAS = Path(__file__).parent / "schemas"
VERSION = "1.34"
"""Of Kubernetes."""


def errors(found: dict[str, Any]) -> list[str]:
    """All that is wrong with an object: of a custom resource, also with its metadata and the Jobs in it."""
    custom = _custom()
    key = (found["apiVersion"], found["kind"])
    if key not in custom:
        return _builtin(found)
    validator = jsonschema.Draft202012Validator(custom[key])
    wrong = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(found)]
    wrong += _twice(found, custom[key], "$")
    wrong += _builtin({"apiVersion": "v1", "kind": "ConfigMap", "metadata": found["metadata"]})
    for job in _jobs(found):
        template = {**job["template"], "metadata": {"name": "job", **job["template"].get("metadata", {})}}
        wrong += _builtin({"apiVersion": "batch/v1", "kind": "Job", **template})
    return wrong


def _builtin(found: dict[str, Any]) -> list[str]:
    try:
        kubernetes_validate.validate(found, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def _jobs(found: dict[str, Any]) -> list[dict[str, Any]]:
    spec = found["spec"]
    if found["kind"] == "TrainingRuntime":
        spec = spec["template"]["spec"]
    return list(spec.get("replicatedJobs", []))


@lru_cache
def _custom() -> dict[tuple[str, str], dict[str, Any]]:
    found = {}
    for path in sorted(SCHEMAS.glob("*.json")):
        file = json.loads(path.read_text())
        found[file["apiVersion"], file["kind"]] = _closed(file["schema"])
        found[file["apiVersion"], file["kind"]]["properties"]["metadata"] = {}  # every kind's, which no schema repeats
    return found


def _closed(schema: Any) -> Any:
    """The same, but no other properties than it names."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    open_to = ("additionalProperties", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string")
    if schema.get("type") == "object" and not any(schema.get(key) for key in open_to):
        closed["additionalProperties"] = False
    return closed


def _twice(found: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    """Entries of a list that have the same key: the server refuses these, JSON Schema has no word for it."""
    if isinstance(found, list):
        keys = schema.get("x-kubernetes-list-map-keys")
        seen = [tuple(entry.get(key) for key in keys) for entry in found] if keys else []
        if len(set(seen)) < len(seen):
            yield f"{path}: two entries with the same {keys}"
        for number, entry in enumerate(found):
            yield from _twice(entry, schema["items"], f"{path}[{number}]")
    elif isinstance(found, dict):
        inner = schema.get("properties", {})
        for key, value in found.items():
            if isinstance(inner.get(key), dict):
                yield from _twice(value, inner[key], f"{path}.{key}")
