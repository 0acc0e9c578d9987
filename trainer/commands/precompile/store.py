"""A cache that machines share: graphs that others have compiled are fetched, and those compiled here are sent there.

The layout is the local cache's, under a prefix of S3 or a directory, so that a run whose NEURON_COMPILE_CACHE_URL names
it finds them. What makes an entry whole, model.done, is written last and looked for first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainer.commands.precompile.compiler import publish
from trainer.files import temporary_of
from trainer.storage.base import Exists, Missing
from trainer.storage.open import storage_of
from trainer.trainium.compiled import DONE, FLAGS, NEFF, Graph

KEY = "--store"


@dataclass(frozen=True)
class Store:
    """url: s3://bucket/prefix or a directory. Methods raise StorageError."""

    url: str

    def _path(self, graph: Graph, name: str) -> str:
        return f"{self.url.rstrip('/')}/{graph.name}/{name}"

    def has(self, graph: Graph) -> bool:
        """Whether somebody has compiled it."""
        try:
            storage_of(self.url, KEY).stat(self._path(graph, DONE))
        except Missing:
            return False
        return True

    def fetch(self, graphs: Sequence[Graph]) -> Iterator[str]:
        """Take what others have compiled; a line for each."""
        storage = storage_of(self.url, KEY)
        for graph in graphs:
            try:
                stored = storage.stat(self._path(graph, NEFF))
            except Missing:  # somebody cleans the store
                continue
            trial = temporary_of(graph.directory / NEFF)
            try:
                with open(trial, "wb") as file:
                    file.writelines(storage.stream(stored))
                publish(graph, trial)
            finally:
                trial.unlink(missing_ok=True)
            yield f"{graph.key}: from {self.url}, {stored.size / 2**20:.1f} MiB"

    def send(self, graphs: Sequence[Graph]) -> Iterator[str]:
        """Give what was compiled here to the others; a line for each."""
        storage = storage_of(self.url, KEY)
        for graph in graphs:
            hlo = graph.hlo
            assert hlo is not None
            for name in (hlo.name, FLAGS, NEFF, DONE):
                try:
                    storage.upload(self._path(graph, name), graph.directory / name, only_new=name == DONE)
                except Exists:
                    break  # another machine was first: its NEFF is of the same graph and flags
            yield f"{graph.key}: to {self.url}"


def is_url(text: str) -> bool:
    """Whether a cache's place is no directory of this machine."""
    return "://" in text and not text.startswith(f"file://{os.sep}")
