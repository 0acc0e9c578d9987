"""One model's versions in a registry, and its aliases."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError, Problem
from trainer.files import is_directory_name, sha256
from trainer.jobs.log import Damaged, Log, parsed
from trainer.jobs.registry.aliases import PROMOTE, ROLL_BACK, Alias, after
from trainer.redact import redact
from trainer.storage.base import Missing, Storage, is_remote
from trainer.storage.open import storage_of

KEY = "publish.registry"
RECORD = "version.json"
SLOT = re.compile(r"\d{8}t\d{6}z.*")
"""In a version's name, behind the job's: jobs may publish the same model."""


@dataclass(frozen=True)
class Registry:
    """Of one model. root: REGISTRY/MODEL, without a slash at its end."""

    storage: Storage
    root: str

    @classmethod
    def at(cls, place: str, model: str) -> Registry:
        """A directory or s3://bucket/prefix, and the model's name."""
        return cls(storage_of(place, KEY), f"{place.rstrip('/')}/{model}")

    def place(self, version: str) -> str:
        """Where a version lies."""
        return f"{self.root}/versions/{version}"

    def alias(self, name: str) -> Alias:
        """As it stands now."""
        return self._log(name).fold(Alias(), after)

    def moves(self, name: str) -> list[Mapping[str, Any]]:
        """How it has moved, the earliest first."""
        return self._log(name).read()

    def record(self, version: str) -> Mapping[str, Any] | None:
        """A version's lineage and files; None where it is not there, or not whole. Raises Damaged."""
        if not is_directory_name(version):
            return None
        try:
            stored = self.storage.stat(f"{self.place(version)}/{RECORD}")
            found = parsed(self.storage, stored)
        except Missing:
            return None
        if not isinstance(found.get("files"), dict):
            raise Damaged(stored.path, "it names no files")
        return found

    def versions(self) -> list[str]:
        """Names of all that are whole, the oldest first, whichever job they are of."""
        prefix = f"{self.root}/versions/"
        try:
            found = list(self.storage.list(prefix))
        except Missing:
            return []
        names = [stored.path.removeprefix(prefix) for stored in found]
        whole = (name.partition("/")[0] for name in names if name.endswith(f"/{RECORD}") and name.count("/") == 1)
        return sorted(whole, key=lambda name: ((SLOT.search(name) or [""])[0], name))

    def add(self, version: str, directory: Path, lineage: Mapping[str, Any]) -> Mapping[str, Any]:
        """Copy a directory's files, and say last that they are all there. Its record. Nothing where it is there.
        Secrets are left out of the lineage.

        Raises StorageError; what is there by then is no version, and is written over by the next try.
        """
        if (known := self.record(version)) is not None:
            return known
        files = {}
        for path in sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()):
            name = path.relative_to(directory).as_posix()
            stored = self.storage.upload(f"{self.place(version)}/{name}", path)
            files[name] = {"size": stored.size, "sha256": sha256(path)}
        record = {"version": version, **redact(dict(lineage)), "files": files}
        body = json.dumps(record, indent=1, sort_keys=True).encode()
        self.storage.write(f"{self.place(version)}/{RECORD}", body)
        return record

    def remove(self, version: str) -> None:
        """Delete a version; first the record, so that nobody takes the rest for one."""
        self.storage.delete(f"{self.place(version)}/{RECORD}")
        for stored in list(self.storage.list(f"{self.place(version)}/")):
            self.storage.delete(stored.path)

    def promote(self, alias: str, version: str, after: int, time: str, by: str, why: str, occurrence: str = "") -> None:
        """Let the alias name a version, if nobody has moved it since entry number ``after``. Raises Conflict, and
        ConfigError where the version is not whole."""
        if self.record(version) is None:
            raise ConfigError(self._no_version(version))
        entry = {"kind": PROMOTE, "version": version, "time": time, "by": by, "why": why, "occurrence": occurrence}
        self._log(alias).append(entry, after)
        self.link(alias)

    def roll_back(self, alias: str, time: str, by: str, why: str) -> str:
        """Let the alias name what it named before: that version. Raises Conflict; ConfigError where none is."""
        now = self.alias(alias)
        if now.before is None:
            rule = "has named another version before, which can come back"
            raise ConfigError(Problem(alias, now.version, rule, "promote a version by its name"))
        if self.record(now.before) is None:
            raise ConfigError(self._no_version(now.before))
        self._log(alias).append({"kind": ROLL_BACK, "time": time, "by": by, "why": why}, now.number)
        self.link(alias)
        return now.before

    def link(self, alias: str) -> None:
        """In a directory: MODEL/ALIAS names the version, for whoever reads paths; each tick sets right what is not.

        The log is the truth. A link that cannot be made is no failure of a promotion.
        """
        version = self.alias(alias).version
        if is_remote(self.root) or version is None:
            return
        link, target = Path(self.root) / alias, f"versions/{version}"
        with suppress(OSError):
            if link.is_symlink() and os.readlink(link) == target:  # noqa: PTH115 - as text
                return
            beside = link.with_name(f".{alias}.{os.getpid()}.tmp")
            with suppress(FileNotFoundError):
                beside.unlink()
            beside.symlink_to(target)
            beside.replace(link)

    def _log(self, alias: str) -> Log:
        if not is_directory_name(alias):
            raise ConfigError(Problem("alias", alias, "is a name", "write champion, or another word"))
        return Log(self.storage, f"{self.root}/aliases/{alias}/")

    def _no_version(self, version: str) -> Problem:
        known = ", ".join(self.versions()[-5:]) or "there are none"
        return Problem("version", version, f"is a whole version of {self.root}", f"name one; the newest: {known}")
