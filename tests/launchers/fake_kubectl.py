"""kubectl for tests: keeps objects in the directory FAKE_CLUSTER, and answers with the words of the real one (1.32).

python fake_kubectl.py VERB ...; a file `down` there: the server does not answer. What controllers do, tests do.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

RESOURCES = {
    "JobSet": "jobsets.jobset.x-k8s.io",
    "TrainJob": "trainjobs.trainer.kubeflow.org",
    "TrainingRuntime": "trainingruntimes.trainer.kubeflow.org",
    "Pod": "pods",
}


class Failed(Exception):
    """What goes to standard error, with exit 1."""


class Cluster:
    """Objects below a directory: resource/namespace/name.json."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, resource: str, namespace: str, name: str) -> Path:
        return self.root / resource / namespace / f"{name}.json"

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any] | None:
        path = self.path(resource, namespace, name)
        return json.loads(path.read_text()) if path.exists() else None

    def put(self, found: dict[str, Any]) -> None:
        """With what a server adds."""
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        found["metadata"] = {"uid": str(uuid.uuid4()), "creationTimestamp": now, **found["metadata"]}
        path = self.path(RESOURCES[found["kind"]], found["metadata"]["namespace"], found["metadata"]["name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))

    def all(self, resource: str, namespace: str, selector: str) -> list[dict[str, Any]]:
        label, _, value = selector.partition("=")
        found = [json.loads(path.read_text()) for path in sorted((self.root / resource / namespace).glob("*.json"))]
        return [each for each in found if each["metadata"].get("labels", {}).get(label) == value]


def write(cluster: Cluster, args: argparse.Namespace) -> str:
    import yaml  # a get does not need them, and they take longer than it

    from tests.launchers.strict import errors

    (found,) = yaml.safe_load_all(sys.stdin.read())
    kind, name = found["kind"], found["metadata"]["name"]
    if kind not in RESOURCES:
        raise Failed(f'error: resource mapping not found for name: "{name}": no matches for kind "{kind}"')
    if wrong := errors(found):
        raise Failed(f'Error from server (BadRequest): error when creating "STDIN": strict decoding error: {wrong}')
    resource = RESOURCES[kind]
    there = cluster.get(resource, args.namespace, name)
    if there and args.verb == "create":
        words = f'{resource} "{name}" already exists'
        raise Failed(f'Error from server (AlreadyExists): error when creating "STDIN": {words}')
    cluster.put(found)
    return f"{resource}/{name} {'configured' if there else 'created'}\n"


def get(cluster: Cluster, args: argparse.Namespace) -> str:
    if args.selector:
        items = cluster.all(args.words[0], args.namespace, args.selector)
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    found = cluster.get(args.words[0], args.namespace, args.words[1])
    if found is None and not args.ignore_not_found:
        raise Failed(f'Error from server (NotFound): {args.words[0]} "{args.words[1]}" not found')
    return "" if found is None else json.dumps(found)


def delete(cluster: Cluster, args: argparse.Namespace) -> str:
    path = cluster.path(args.words[0], args.namespace, args.words[1])
    if not path.exists():
        return ""
    path.unlink()
    return f'{args.words[0]} "{args.words[1]}" deleted\n'


def logs(cluster: Cluster, args: argparse.Namespace) -> str:
    path = cluster.path("pods", args.namespace, args.words[0]).with_suffix(".log")
    if not path.exists():
        raise Failed('Error from server (BadRequest): container "node" is waiting to start: ContainerCreating')
    return path.read_text()


VERBS = {"create": write, "apply": write, "get": get, "delete": delete, "logs": logs}


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("words", nargs="*")
    for flag in ("namespace", "context", "request-timeout", "filename", "output", "selector", "tail"):
        parser.add_argument(f"--{flag}")
    parser.add_argument("--validate", choices=["strict"])
    parser.add_argument("--wait", choices=["false"])
    parser.add_argument("--ignore-not-found", action="store_true")
    args = parser.parse_args()
    cluster = Cluster(Path(os.environ["FAKE_CLUSTER"]))
    try:
        if (cluster.root / "down").exists():
            log = 'E1130 19:14:00.339779   15369 memcache.go:265] "Unhandled Error" err="connection refused"\n'
            said = "The connection to the server 127.0.0.1:6443 was refused - did you specify the right host?"
            raise Failed(log * 5 + said)
        sys.stdout.write(VERBS[args.verb](cluster, args))
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
