"""The one background thread that works ahead of whoever needs its results."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """The same items in the same order, made by a thread before they are asked for.

    ``depth`` items wait at most, and one more is in the thread's hands. What ends the items, their end or an error,
    comes after the last of them, and again at each later next().
    """

    def __init__(self, items: Iterator[T], depth: int, name: str) -> None:
        """items: advanced in the thread only. depth: 0: no thread, an item is made when asked for. name: the thread's.

        The thread begins at once, and ends with the items or at close().
        """
        assert depth >= 0, depth
        self._items = items
        self._room = max(1, depth)
        self._waiting: deque[T] = deque()
        self._end: BaseException | None = None
        # A condition and not a queue.Queue: close() wakes whoever waits, and nobody has to look every so often.
        self._changed = threading.Condition()
        # A daemon: a process that fails without close() must not wait for it.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True) if depth else None
        if self._thread is not None:
            self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._thread is None and self._end is None:
            self._make()
        with self._changed:
            while not self._waiting:
                if self._end is not None:
                    raise self._end
                self._changed.wait()
            self._changed.notify_all()
            return self._waiting.popleft()

    def close(self, seconds: float | None = None) -> None:
        """Drop what waits, and wait until the thread is done with the item in its hands. May be called more than once.

        Then the iterator ends, or raises the error that came first. seconds: longest wait; None: as long as it takes.
        """
        with self._changed:
            self._waiting.clear()
            self._finish(StopIteration())
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        while self._make():
            pass

    def _make(self) -> bool:
        """Make an item and put it down once there is room. False when no more are to be made."""
        try:
            item = next(self._items)
        except BaseException as end:  # StopIteration too; __next__ raises it in the consumer's thread
            self._finish(end)
            return False
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None or len(self._waiting) < self._room)
            if self._end is not None:
                return False
            self._waiting.append(item)
            self._changed.notify_all()
            return True

    def _finish(self, end: BaseException) -> None:
        """No items after those that wait; the first reason stays."""
        with self._changed:
            if self._end is None:
                self._end = end
            self._changed.notify_all()
