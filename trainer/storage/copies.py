"""Pieces of objects on a local disk, for all processes of a machine: each is downloaded once, within a bound.

Every piece is a file, named by the object, its ETag and the place in it. Its maker holds a lock on the unfinished file:
who wants the same piece waits for that lock, and finds it finished, or its maker dead and the work to be done. A lock
on a finished file means that it is in use. The kernel releases locks when a process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from trainer.storage.base import BLOCK, Storage, StorageError, Stored

UNFINISHED = ".part"
USED = ".used"
KEY = "data.cache_gb"
AT_ONCE, STEP = 4, 8 << 20
"""Requests at once for one large piece, and bytes of each."""
KEPT = 0.9
"""Of the bound, that stays when room is made: making it looks at every file."""


class Copies:
    """A directory of at most so many bytes; what was used longest ago goes first. Safe to delete at any time."""

    def __init__(self, directory: Path, bound: float) -> None:
        """bound: bytes."""
        self.directory, self.bound = directory, bound

    @contextmanager
    def whole(self, storage: Storage, stored: Stored) -> Iterator[Path]:
        """All of an object as a local file, which stays while it is in use.

        Raises StorageError, also where it does not fit; OSError for the local disk.
        """
        descriptor, path = self._hold(storage, stored, 0, stored.size)
        try:
            yield path
        finally:
            os.close(descriptor)

    def read(self, storage: Storage, stored: Stored, offset: int, size: int) -> bytes:
        """A range of an object, out of blocks. Raises as ``whole``."""
        found: list[bytes] = []
        for start in range(offset - offset % BLOCK, offset + size, BLOCK) if size else ():
            low, high = max(offset, start) - start, min(offset + size, start + BLOCK) - start
            descriptor, _ = self._hold(storage, stored, start, min(BLOCK, stored.size - start))
            try:
                found.append(os.pread(descriptor, high - low, low))
            finally:
                os.close(descriptor)
        return found[0] if len(found) == 1 else b"".join(found)

    def _hold(self, storage: Storage, stored: Stored, offset: int, size: int) -> tuple[int, Path]:
        """An open descriptor of a finished piece, with a lock that says it is in use, and the file's path."""
        path = self.directory / _name(stored, offset, size)
        while True:
            with suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDONLY)
                if _locked(descriptor, path, fcntl.LOCK_SH) and os.fstat(descriptor).st_size == size:
                    with suppress(PermissionError):  # another user's: read it all the same
                        os.utime(descriptor)
                    return descriptor, path
                os.close(descriptor)
            self.directory.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + UNFINISHED)
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
            if not _locked(descriptor, part, fcntl.LOCK_EX):  # finished by another while this one waited
                os.close(descriptor)
                continue
            try:
                self._reserve(storage, stored, descriptor, part, size)
                _download(storage, stored, offset, size, descriptor)
                os.fsync(descriptor)  # the room was reserved: after a power cut there would be zeros
                with self._counter():  # whoever counts meanwhile would miss it, under either name
                    os.rename(part, path)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                return descriptor, path
            except BaseException:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
                os.close(descriptor)
                raise

    def _reserve(self, storage: Storage, stored: Stored, descriptor: int, part: Path, size: int) -> None:
        """Room for a piece, on the disk and within the bound. A full disk is met here, before the download."""
        if size > self.bound:
            raise self._full(stored, size)
        with self._counter() as counter:
            counter.seek(0)
            text = counter.read()
            used = int(text) if text.isdecimal() else None
            if used is None or used + size > self.bound:  # the counter may say too much: what a killed maker reserved
                used = self._make_room(size, part)
                if used + size > self.bound:
                    raise self._full(stored, size)
            if size:
                os.posix_fallocate(descriptor, 0, size)
            counter.truncate(0)
            counter.write(str(used + size))

    @contextmanager
    def _counter(self) -> Iterator[TextIO]:
        """The file with the bytes that are reserved, for one process at a time."""
        with open(self.directory / USED, "a+", encoding="utf-8") as counter:
            fcntl.flock(counter, fcntl.LOCK_EX)
            yield counter

    def _make_room(self, size: int, mine: Path) -> int:
        """Remove what nobody uses, the oldest first, until there is room for a piece; the bytes that stay."""
        files = []
        for entry in os.scandir(self.directory):
            if entry.name != USED and entry.path != str(mine):
                with suppress(FileNotFoundError):
                    found = entry.stat()
                    dead = entry.name.endswith(UNFINISHED)
                    files.append((not dead, found.st_mtime_ns, entry.path, found.st_size))
        used = sum(file[3] for file in files)
        for finished, _, path, length in sorted(files):
            if (not finished or used + size > KEPT * self.bound) and _removed(Path(path)):
                used -= length
        return used

    def _full(self, stored: Stored, size: int) -> StorageError:
        """With the path of the object in the rule: the key is the bound's."""
        rule = f"{stored.path} needs {size / 1e9:.3g} GB of it beside what is in use"
        remedy = f"raise it to what the objects take that are read at once ({KEY}=NUMBER), or cut them smaller"
        return StorageError(KEY, f"{self.bound / 1e9:g}", rule, remedy)


def _download(storage: Storage, stored: Stored, offset: int, size: int, descriptor: int) -> None:
    def piece(start: int) -> None:
        data = storage.read(stored, offset + start, min(STEP, size - start))
        if os.pwrite(descriptor, data, start) < len(data):
            raise OSError(28, os.strerror(28))

    if size <= STEP:
        piece(0)
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(piece, start) for start in range(0, size, STEP)]
        try:
            for one in running:
                one.result()
        except BaseException:
            for one in running:
                one.cancel()
            raise


def _name(stored: Stored, offset: int, size: int) -> str:
    """A digest, since keys may be long and hold anything, and the end of the key, for people."""
    content = f"{stored.path}\0{stored.etag}\0{stored.size}\0{offset}\0{size}"
    digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{digest}-{re.sub(r'[^A-Za-z0-9._-]', '_', stored.name.name)[-80:]}"


def _locked(descriptor: int, path: Path, kind: int) -> bool:
    """Lock an open file; whether it still has its name then."""
    fcntl.flock(descriptor, kind)
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _removed(path: Path) -> bool:
    """Remove a file, unless somebody holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR)  # NFS locks for one alone only what may be written
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    try:
        if not _locked(descriptor, path, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return True
        path.unlink()
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
