"""Graphs of a cache compiled in parallel by a stand-in for the compiler: bounds, retries, locks, and what is left."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compilers import FLAGS, VERSION, compiler, entry
from tests.s3 import Server
from trainer.commands.precompile.compiler import command_of
from trainer.commands.precompile.pool import Limits, Pool
from trainer.commands.precompile.store import Store
from trainer.trainium.compiled import Graph, State, clean, graphs

Compile = Callable[..., tuple[Pool, list[str]]]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def compiled(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Compile:
    """Compiles all graphs of the cache."""
    monkeypatch.setenv("COMPILER_LOG", str(tmp_path / "log"))

    def compile(jobs: int = 4, retries: int = 1, available: float = 1000.0) -> tuple[Pool, list[str]]:
        limits = Limits(jobs, 64.0, retries, lambda: available)
        pool = Pool(compiler(tmp_path), cache / ".precompile-0", limits)
        return pool, list(pool.compile(graphs(cache)))

    return compile


def events(tmp_path: Path) -> list[list[Any]]:
    return sorted(
        (json.loads(line) for line in (tmp_path / "log").read_text().splitlines()), key=lambda event: event[3]
    )


def at_once(tmp_path: Path) -> int:
    running, most = 0, 0
    for kind, *_ in events(tmp_path):
        running += 1 if kind == "begin" else -1
        most = max(most, running)
    return most


def test_graphs_are_compiled_whole_and_nothing_is_left(cache: Path, compiled: Compile) -> None:
    entry(cache, "1"), entry(cache, "2", "ok zipped", zipped=True)
    pool, lines = compiled()
    assert pool.failures == {}
    for name, text in (("1", b"NEFFok"), ("2", b"NEFFok zipped")):
        directory = cache / VERSION / f"MODULE_{name}+e30acd3a"
        assert (directory / "model.neff").read_bytes() == text
        assert (directory / "model.done").read_bytes() == b""
        assert not (directory / "model.hlo_module.pb.lock").exists()
    assert lines[-1].startswith("[2/2] MODULE_")
    assert list(cache.iterdir()) == [cache / VERSION]


def test_the_compiler_is_started_as_its_wrapper_does(cache: Path) -> None:
    """The words of a log in aws-neuron-sdk's issue 872, with flags of a public cache's compile_flags.json."""
    graph = Graph(entry(cache, "16518787498567201059"))
    words = command_of(["neuronx-cc"], graph, Path("/tmp/a.hlo_module.pb"), Path("/tmp/a.neff"))
    head = ["neuronx-cc", "compile", "--framework=XLA", "/tmp/a.hlo_module.pb", "--output", "/tmp/a.neff"]
    assert words == [*head, *FLAGS, "--verbose=35"]
    (graph.directory / "compile_flags.json").write_text('["-O1", "--retry_failed_compilation", "--cache_dir=/x"]')
    assert command_of(["neuronx-cc"], graph, Path("a"), Path("b"))[6:] == ["--target=trn1", "-O1", "--verbose=35"]


@pytest.mark.parametrize(("jobs", "available", "most"), [(2, 1000.0, 2), (4, 10.0, 1)])
def test_jobs_and_memory_bound_what_runs_at_once(
    tmp_path: Path, cache: Path, compiled: Compile, jobs: int, available: float, most: int
) -> None:
    for number in range(4):
        entry(cache, str(number))
    compiled(jobs=jobs, available=available)
    assert at_once(tmp_path) <= most
    assert [graph.state for graph in graphs(cache)] == [State.DONE] * 4


def test_a_graph_that_fails_is_tried_again_and_named_and_the_others_do_not_wait(
    tmp_path: Path, cache: Path, compiled: Compile
) -> None:
    for name, what in (("1", "fail"), ("2", "once"), ("3", "none"), ("4", "ok"), ("5", "ok")):
        entry(cache, name, what)
    pool, lines = compiled(jobs=2)
    assert pool.failures == {
        "MODULE_1+e30acd3a": "exit 70: ERROR: [NCC_EBVF030] too many instructions",
        "MODULE_3+e30acd3a": "exit 0, and no NEFF",
    }
    assert [graph.state for graph in graphs(cache)] == [
        State.WAITING, State.DONE, State.WAITING, State.DONE, State.DONE
    ]  # fmt: skip
    begun = [key for kind, key, *_ in events(tmp_path) if kind == "begin"]
    assert [begun.count(f"MODULE_{n}+e30acd3a") for n in "12345"] == [2, 2, 2, 1, 1]
    assert sum("tried again once more" in line for line in lines) == 3


def test_a_compiler_that_ran_out_of_memory_is_tried_again_alone(tmp_path: Path, cache: Path, compiled: Compile) -> None:
    for name, what in (("1", "killed"), ("2", "ok"), ("3", "ok")):
        entry(cache, name, what)
    pool, lines = compiled(jobs=3)
    assert pool.failures == {}
    assert any("killed by signal 9" in line and "alone" in line for line in lines)
    assert [(kind, what) for kind, _, what, *_ in events(tmp_path)][-2:] == [("begin", "killed"), ("end", "killed")]


def test_what_another_process_compiles_is_left_to_it(cache: Path, compiled: Compile) -> None:
    entry(cache, "1"), entry(cache, "2")
    with open(cache / VERSION / "MODULE_1+e30acd3a" / "model.hlo_module.pb.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert list(clean(cache)) == ["MODULE_1+e30acd3a: is being compiled by another process"]
        pool, _ = compiled()
    assert [graph.key for graph in pool.busy] == ["MODULE_1+e30acd3a"]
    assert [graph.state for graph in graphs(cache)] == [State.WAITING, State.DONE]


def test_a_compiler_that_is_not_there_and_flags_that_cannot_be_read(tmp_path: Path, cache: Path) -> None:
    entry(cache, "1")
    (entry(cache, "2") / "compile_flags.json").write_text("{}")
    pool = Pool([str(tmp_path / "absent")], cache / ".precompile-0", Limits(2))
    assert len(list(pool.compile(graphs(cache)))) == 2
    assert "No such file" in pool.failures["MODULE_1+e30acd3a"]
    assert "no list of words" in pool.failures["MODULE_2+e30acd3a"]
    assert not (cache / VERSION / "MODULE_1+e30acd3a" / "model.hlo_module.pb.lock").exists()


def test_what_a_kill_has_left_is_cleaned_and_the_rest_stays(cache: Path) -> None:
    stale = entry(cache, "1", **{"hlo_module.pb.lock": ""})
    failed = entry(cache, "2", log="Failed compilation with ['neuronx-cc']")
    half = entry(cache, "3", neff="NE")
    whole = entry(cache, "4", neff="NEFF", done="")
    (cache / ".precompile-999999999" / "MODULE_1").mkdir(parents=True)
    lines = list(clean(cache))
    assert len(lines) == 4
    left = ["compile_flags.json", "model.hlo_module.pb"]
    assert [sorted(path.name for path in directory.iterdir()) for directory in (stale, failed, half)] == [left] * 3
    assert {path.name for path in whole.iterdir()} == {*left, "model.neff", "model.done"}
    assert list(cache.iterdir()) == [cache / VERSION]
    assert list(clean(cache)) == []


@pytest.mark.parametrize("remote", [False, True])
def test_a_shared_cache_gives_and_takes(tmp_path: Path, request: pytest.FixtureRequest, remote: bool) -> None:
    server: Server | None = request.getfixturevalue("s3") if remote else None
    bucket = server.bucket() if server is not None else ""
    store = Store(f"s3://{bucket}/cache" if server is not None else str(tmp_path / "shared"))
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    entry(mine, "1", neff="NEFF of mine", done="")
    waiting = Graph(entry(theirs, "1"))
    assert not store.has(waiting)
    assert len(list(store.send(graphs(mine)))) == 1
    assert len(list(store.send(graphs(mine)))) == 1, "what is there already is no mistake"
    assert store.has(waiting)
    list(store.fetch([waiting]))
    assert waiting.state is State.DONE
    assert (waiting.directory / "model.neff").read_text() == "NEFF of mine"
    if server is not None:
        listed = server.client().list_objects_v2(Bucket=bucket)["Contents"]
        names = {item["Key"].rpartition("/")[2] for item in listed}
        assert {item["Key"].rpartition("/")[0] for item in listed} == {f"cache/{VERSION}/MODULE_1+e30acd3a"}
        assert names == {"compile_flags.json", "model.hlo_module.pb", "model.neff", "model.done"}
