"""What a job's pods have printed, kept beside its manifests: JobSet deletes the pods of a start that it has given up.

Who follows a job counts lines, so they may only be added at the end: the first node's come first, start after start;
the others' follow when the job is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.launchers.kubernetes.kubectl import Kubectl
from trainer.launchers.kubernetes.names import INDEX_LABEL
from trainer.launchers.kubernetes.watching import Object
from trainer.launchers.script import keep, printed

FOLDER = "logs"
"""DIRECTORY/logs/TIME.NODE.POD.log"""


def lines(kubectl: Kubectl, pods: Iterable[Object], directory: Path, over: bool) -> Iterator[str]:
    """All lines so far. over: no pod will print any more. Raises LaunchError where the directory takes no files."""
    folder = directory / FOLDER
    for pod in pods:
        if over or _node(pod) == 0:
            name = pod["metadata"]["name"]
            if text := "".join(f"{line}\n" for line in kubectl.lines("logs", name, "--tail=-1")):
                keep(folder, {f"{_time(pod)}.{_node(pod):04d}.{name}.log": text})
    kept = sorted(folder.glob("*.log"))
    for path in (path for path in kept if _parts(path)[1] == "0000"):
        yield from printed(path, whole=True)
    for path in (path for path in kept if over and _parts(path)[1] != "0000"):
        yield from (f"{_parts(path)[2]}: {line}" for line in printed(path, whole=True))


def _node(pod: Object) -> int:
    return int(pod["metadata"].get("labels", {}).get(INDEX_LABEL, 0))


def _time(pod: Object) -> str:
    """Of its making, as part of a file's name."""
    return str(pod["metadata"]["creationTimestamp"]).replace(":", "").replace("-", "")


def _parts(path: Path) -> list[str]:
    return path.name.split(".")
