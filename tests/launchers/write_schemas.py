"""Writes tests/launchers/schemas anew: python -m tests.launchers.write_schemas <jobset> <kubeflow trainer>

Both are checkouts that have the tags below; of a CustomResourceDefinition only the schema is kept, without
descriptions. The projects' licence is Apache 2.0.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

SCHEMAS = Path(__file__).parent / "schemas"
JOBSET = ("github.com/kubernetes-sigs/jobset", "v0.12.0", "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml")
TRAINER = ("github.com/kubeflow/trainer", "v2.2.1", "manifests/base/crds/trainer.kubeflow.org_{}.yaml")


def main(jobset: Path, trainer: Path) -> None:
    SCHEMAS.mkdir(exist_ok=True)
    write(jobset, JOBSET)
    for name in ("trainjobs", "trainingruntimes"):
        write(trainer, (*TRAINER[:2], TRAINER[2].format(name)))


def write(checkout: Path, where: tuple[str, str, str]) -> None:
    source, tag, path = where
    show = ["git", "-C", str(checkout), "show", f"{tag}:{path}"]
    definition = yaml.safe_load(subprocess.run(show, capture_output=True, text=True, check=True).stdout)["spec"]
    (version,) = definition["versions"]
    head = {
        "source": f"{source} {path}",
        "release": tag,
        "licence": "Apache-2.0",
        "apiVersion": f"{definition['group']}/{version['name']}",
        "kind": definition["names"]["kind"],
        "schema": plain(version["schema"]["openAPIV3Schema"]),
    }
    text = json.dumps(head, separators=(",", ":"))
    (SCHEMAS / f"{head['kind'].lower()}.json").write_text(text + "\n")


def plain(schema: Any) -> Any:
    """Without descriptions: a property of this name has a schema, not a text."""
    if isinstance(schema, dict):
        return {k: plain(v) for k, v in schema.items() if not (k == "description" and isinstance(v, str))}
    return [plain(each) for each in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
