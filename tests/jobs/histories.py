"""What has to hold of any history of jobs, whatever failed, died or came twice."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise

from tests.jobs.pretended import Pretended, registry_of, tick, ticker
from trainer.jobs.events import PUBLISHED, REJECTED
from trainer.jobs.work import Job


@dataclass
class Reader:
    """Somebody who serves the champion, and looks at it after each change of it. seen: versions in their order."""

    world: Pretended
    job: Job
    seen: list[str] = field(default_factory=list)

    def look(self, kind: str = "", path: str = "") -> None:
        """Fails on half a model, and on a worse one that nobody has rolled back to."""
        if not path.startswith("registry/"):
            return
        registry = registry_of(self.world, self.job)
        alias = registry.alias("champion")
        if alias.version is None:
            return
        record = registry.record(alias.version)
        assert record is not None, f"{alias.version} is champion and is not whole"
        for name, known in record["files"].items():
            data = self.world.storage.objects[f"{registry.place(alias.version)}/{name}"]
            assert hashlib.sha256(data).hexdigest() == known["sha256"], f"{name} of {alias.version}"
        if not self.seen or self.seen[-1] != alias.version:
            if self.seen and self.seen[-1] not in alias.withdrawn:
                old, new = (self.world.loss.get(v.split("-", 1)[1], 1.0) for v in (self.seen[-1], alias.version))
                assert new < old, f"{alias.version} ({new}) is no better than {self.seen[-1]} ({old})"
            self.seen.append(alias.version)


def settle(world: Pretended, job: Job, hours: int = 400) -> None:
    """Let the clock run, without further trouble, until nothing is open. The job makes no new occurrences meanwhile."""
    resting = Job(job.name, replace(job.config, enabled=False))
    for _ in range(hours * 4):
        if not ticker(world).ledger.open_slots(job.name):
            return
        world.now += timedelta(minutes=15)
        tick(world, resting)
    raise AssertionError(f"still open: {ticker(world).ledger.open_slots(job.name)}")


def ends(world: Pretended, job: Job) -> dict[str, str]:
    """How each occurrence has ended, from the bytes of its log: by no code of the ledger's."""
    found: dict[str, list[dict[str, object]]] = {}
    for path, data in sorted(world.storage.objects.items()):
        if f"/{job.name}/slots/" in path:
            found.setdefault(path.split("/")[3], []).append(json.loads(data))
    result = {}
    for slot, entries in found.items():
        kinds = Counter(str(entry["type"]) for entry in entries)
        assert (kinds["due"], kinds["decided"], kinds["closed"]) == (1, 1, 1), (slot, kinds)
        assert (entries[0]["type"], entries[-1]["type"]) == ("due", "closed"), slot
        result[slot] = next(str(entry["end"]) for entry in entries if entry["type"] == "decided")
    return result


def check(world: Pretended, job: Job, due: set[str]) -> dict[str, str]:
    """All that has to hold once nothing is open. due: the slots that there have to be. The ends."""
    found = ends(world, job)
    assert set(found) == due
    assert world.overlaps == []
    assert not [path for path in world.storage.objects if "/open/" in path]
    assert {slot for slot, _ in world.told} == {slot for slot, end in found.items() if end in job.config.notify.ends}
    ledger = ticker(world).ledger
    contents = []
    for slot in sorted(found):
        one = ledger.occurrence(job.name, slot)
        assert one.why, f"{slot} has ended, and nobody says why"
        if found[slot] in (PUBLISHED, REJECTED):
            contents.append(one.record("prepare")["fingerprint"])
        if found[slot] == PUBLISHED:
            assert f"{job.name}-{slot}" in registry_of(world, job).alias("champion").stack
    assert all(now != before for before, now in pairwise(contents)), "the same data twice"
    return found
