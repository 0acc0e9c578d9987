"""Files of this machine, or of what is mounted on it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from trainer.files import sync
from trainer.storage.base import BLOCK, Denied, Missing, StorageError, Stored, exists, replaced
from trainer.storage.patterns import literal_prefix, names


class LocalStorage:
    """Its files are whole because they are written beside their place, synced, and named at the end."""

    def __init__(self, key: str) -> None:
        """key: of the configuration, that problems are reported under."""
        self.key = key

    def list(self, prefix: str) -> Iterator[Stored]:
        """Temporary files of writers are left out. A directory that cannot be opened is an error, not an empty one."""
        directory = prefix if prefix.endswith("/") else os.path.dirname(prefix)  # noqa: PTH120 - of text, not a path
        yield from sorted(self._below(directory or ".", prefix), key=lambda stored: stored.path)

    def children(self, directory: str) -> tuple[str, ...]:
        """One look, however much lies below."""
        with self._told(directory):
            found = (entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False))
            return tuple(sorted(found))

    def glob(self, pattern: str) -> Iterator[Stored]:
        """As S3's: a pattern that names a directory means what is below it."""
        for stored in self.list(literal_prefix(pattern)):
            if names(pattern, stored.path):
                yield stored

    def stat(self, path: str) -> Stored:
        """Of a regular file, behind any links."""
        with self._told(path):
            if not Path(path).is_file():
                raise FileNotFoundError(2, os.strerror(2), path)
            return _stored(path, os.stat(path))  # noqa: PTH116

    def read(self, stored: Stored, offset: int, size: int) -> bytes:
        """A range of the file."""
        with self._opened(stored) as file:
            found = os.pread(file.fileno(), size, offset)
        if len(found) < size:
            rule = f"has {size:,} bytes from {offset:,} on; it ends at {offset + len(found):,}"
            raise StorageError(self.key, stored.path, rule, "ask for less, or write it again")
        return found

    def stream(self, stored: Stored, block: int = BLOCK) -> Iterator[bytes]:
        """It stays the same file when its name is given to another meanwhile."""
        with self._opened(stored) as file:
            while found := file.read(block):
                yield found

    def write(self, path: str, data: bytes, only_new: bool = False) -> Stored:
        """Synced when it returns."""

        def content(file: BinaryIO) -> None:
            file.write(data)

        return self._write(path, content, only_new)

    def upload(self, path: str, file: Path, only_new: bool = False) -> Stored:
        """A copy."""

        def content(out: BinaryIO) -> None:
            with file.open("rb") as source:
                while block := source.read(BLOCK):
                    out.write(block)

        return self._write(path, content, only_new)

    def delete(self, path: str) -> None:
        """One file."""
        with self._told(path):
            Path(path).unlink(missing_ok=True)

    def _write(self, path: str, content: Callable[[BinaryIO], None], only_new: bool) -> Stored:
        final = Path(path)
        temporary = final.with_name(f".{final.name}.{os.getpid()}-{threading.get_ident()}.tmp")
        with self._told(path):
            self._make(final.parent)
            try:
                with temporary.open("wb") as file:
                    content(file)
                    file.flush()
                    os.fsync(file.fileno())
                if only_new:
                    os.link(temporary, final)  # fails where the name is taken, as no rename does
                else:
                    os.replace(temporary, final)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
            sync(final.parent)
        return self.stat(path)

    def _make(self, directory: Path) -> None:
        """A directory; a file of its name is not what an only_new would ask about."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            rule = "is a directory, and so is all above it"
            raise StorageError(self.key, str(directory), rule, "move the file away that has its name") from None

    def _below(self, directory: str, prefix: str) -> Iterator[Stored]:
        with self._told(directory):
            for entry in os.scandir(directory):
                path = entry.path if directory != "." or prefix.startswith("./") else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if path.startswith(prefix) or prefix.startswith(f"{path}/"):
                        yield from self._below(path, prefix)
                elif path.startswith(prefix) and entry.is_file() and not _is_temporary(entry.name):
                    yield _stored(path, entry.stat())

    @contextmanager
    def _opened(self, stored: Stored) -> Iterator[BinaryIO]:
        with self._told(stored.path), open(stored.path, "rb") as file:
            if _stored(stored.path, os.fstat(file.fileno())) != stored:
                raise replaced(self.key, stored)
            yield file

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise exists(self.key, path) from None
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(self.key, path, "is a file that exists", "correct the path") from None
        except PermissionError as error:
            rule = f"is open to this user: {error.strerror}"
            raise Denied(self.key, path, rule, "change its owner or its mode") from None
        except OSError as error:
            raise StorageError(self.key, path, f"can be used: {error.strerror or error}", "mend the disk") from None


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _stored(path: str, found: os.stat_result) -> Stored:
    return Stored(path, found.st_size, found.st_mtime, f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}")
