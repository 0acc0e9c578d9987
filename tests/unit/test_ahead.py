"""A thread makes the items that come next: in order, no more than allowed, and it ends when told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from trainer.ahead import Ahead

DEPTHS = [0, 1, 3]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    before = threading.active_count()
    yield
    wait_until(lambda: threading.active_count() == before)


def wait_until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def counted(made: list[int]) -> Iterator[int]:
    """0, 1, 2 and so on; ``made`` has those that were begun."""
    while True:
        made.append(len(made))
        yield made[-1]


def settled(made: list[int], at_least: int) -> int:
    """How many were begun, once so many were, and then time enough for another one."""
    wait_until(lambda: len(made) >= at_least)
    time.sleep(0.1)
    return len(made)


def broken() -> Iterator[int]:
    yield 0
    yield 1
    raise OSError("disk gone")


def blocked(release: threading.Event) -> Iterator[int]:
    """An item only once released."""
    release.wait()
    yield 0


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_same_items_then_the_end(depth: int) -> None:
    ahead = Ahead(iter(range(9)), depth, "test")
    assert list(ahead) == list(range(9))
    assert list(ahead) == []
    ahead.close()


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_is_made_than_depth_and_one(depth: int) -> None:
    made: list[int] = []
    ahead = Ahead(counted(made), depth, "test")
    for taken in range(3):
        wanted = taken + depth + 1
        assert settled(made, wanted) == wanted
        assert next(ahead) == taken
    ahead.close()


def test_without_depth_there_is_no_thread() -> None:
    made: list[int] = []
    before = threading.active_count()
    ahead = Ahead(counted(made), 0, "test")
    assert threading.active_count() == before
    for taken in range(3):
        assert len(made) == taken
        assert next(ahead) == taken
    ahead.close()
    assert list(ahead) == []


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_error_comes_after_the_items_and_again(depth: int) -> None:
    ahead = Ahead(broken(), depth, "test")
    assert [next(ahead), next(ahead)] == [0, 1]
    for _ in range(2):
        with pytest.raises(OSError, match="disk gone"):
            next(ahead)
    ahead.close()
    with pytest.raises(OSError, match="disk gone"):
        next(ahead)


@pytest.mark.parametrize("depth", DEPTHS)
def test_close_is_prompt_and_final(depth: int) -> None:
    made: list[int] = []
    ahead = Ahead(counted(made), depth, "test")
    assert next(ahead) == 0
    begin = time.monotonic()
    ahead.close()
    ahead.close()
    assert time.monotonic() - begin < 2
    done = len(made)
    assert list(ahead) == []
    assert len(made) == done


def test_close_wakes_a_consumer_and_need_not_wait_for_the_thread() -> None:
    release, got = threading.Event(), list[int]()
    ahead = Ahead(blocked(release), 1, "test")
    consumer = threading.Thread(target=lambda: got.extend(ahead))
    consumer.start()
    begin = time.monotonic()
    ahead.close(0.05)
    consumer.join(10)
    assert not consumer.is_alive()
    assert time.monotonic() - begin < 2
    release.set()
    ahead.close()
    assert got == []
