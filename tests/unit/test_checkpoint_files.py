"""The files of a checkpoint against readers that are not ours: safetensors, hashlib, json."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from trainer.checkpoint.hashed_file import BLOCK, write_hashed
from trainer.checkpoint.index import Stored, read_index, write_index
from trainer.checkpoint.load import load_checkpoint
from trainer.checkpoint.pieces import file_header, live_bytes, pieces
from trainer.checkpoint.places import Places
from trainer.checkpoint.report import Chunk, Reports, encode
from trainer.checkpoint.strict_json import Unsound, parse
from trainer.checkpoint.tensorfile import CODES, read_header
from trainer.checkpoint.verify import fault
from trainer.parallel.boxes import Box, Placed, Store, whole_box

TORCH = {name: getattr(torch, name) for name in CODES}


def drawn(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Any bits but those of NaN."""
    values = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype)


def test_the_safetensors_library_reads_every_dtype_and_stride_that_we_write(tmp_path: Path) -> None:
    tensors = {f"whole.{name}": drawn(dtype, (3, 5), i) for i, (name, dtype) in enumerate(TORCH.items())}
    tensors |= {
        "scalar": torch.tensor(7.5),
        "odd": drawn(torch.int8, (3,), 1),
        "turned": drawn(torch.float32, (4, 6), 2).T,
    }
    placed = {name: Placed(t, (whole_box(name, tuple(t.shape)),), tuple(t.shape)) for name, t in tensors.items()}
    found = pieces(placed)
    path = tmp_path / "file"
    written = write_hashed(path, [file_header(found), *(part for piece in found for part in live_bytes(piece))])
    assert written.size == path.stat().st_size
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with safe_open(path, framework="pt") as reader:
        assert set(reader.keys()) == set(tensors)
        for name, tensor in tensors.items():
            read = reader.get_tensor(name)
            assert read.dtype == tensor.dtype, name
            assert read.shape == tensor.shape, name
            assert torch.equal(read.double(), tensor.double()), name
    starts = read_header(path)
    assert all(entry.start % CODES[entry.dtype][1] == 0 for entry in starts.values()), "aligned"


def test_we_read_the_header_that_the_safetensors_library_writes(tmp_path: Path) -> None:
    tensors = {
        "b": torch.zeros(2, 3),
        "a": torch.zeros(4, dtype=torch.bfloat16),
        "c": torch.zeros((), dtype=torch.int64),
    }
    save_file(tensors, tmp_path / "file", metadata={"format": "pt"})
    found = read_header(tmp_path / "file")
    assert {name: (entry.dtype, entry.shape) for name, entry in found.items()} == {
        "b": ("float32", (2, 3)),
        "a": ("bfloat16", (4,)),
        "c": ("int64", ()),
    }


def test_a_part_of_a_large_tensor_is_copied_by_blocks() -> None:
    """Columns of 24 MB: never more than a block of them in memory, and the bytes are those of a copy of all."""
    tensor = torch.arange(3 * BLOCK // 4, dtype=torch.float32).view(-1, 2)
    box = Box("w", tuple(tensor.shape), (0, 1), (len(tensor), 1), (slice(0, len(tensor)), slice(1, 2)))
    (piece,) = pieces({"w": Placed(tensor, (box,), tuple(tensor.shape))})
    blocks = list(live_bytes(piece))
    assert max(map(len, blocks)) <= BLOCK
    assert b"".join(blocks) == tensor[:, 1].contiguous().numpy().tobytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "no JSON"),
        ("\udcff", "no JSON"),
    ],
)
def test_odd_json_is_refused(text: str, words: str) -> None:
    with pytest.raises(Unsound, match=words):
        parse(text.encode("utf-8", "surrogateescape"))


def index_of(directory: Path, entry: dict[str, object]) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "index.json").write_text(json.dumps({"format": 2, "tensors": {"w": entry}}))
    return directory


GOOD = {"dtype": "float32", "shape": [4, 6], "cuts": [[0, 2], [0]], "ranks": [0, 1]}
CHUNK = {"offsets": [0, 0], "sizes": [4, 6], "file": "rank-00000.safetensors", "key": "w"}
LISTED = {"dtype": "float32", "shape": [4, 6], "chunks": [CHUNK]}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({**GOOD, "dtype": "float33"}, "unknown"),
        ({**GOOD, "dtype": ["float32"]}, "dtype"),
        ({**GOOD, "shape": [4, -6]}, "shape"),
        ({**GOOD, "shape": [4, 6.0]}, "shape"),
        ({**GOOD, "shape": [4, True]}, "shape"),
        ({**GOOD, "shape": [4, 2**61]}, "larger than anything"),
        ({**GOOD, "shape": [1] * 60}, "60 dims"),
        ({**GOOD, "shape": "46"}, "shape"),
        ({**GOOD, "cuts": [[0, 2]]}, "other dims"),
        ({**GOOD, "cuts": [[0, 4], [0]]}, "exactly once"),
        ({**GOOD, "cuts": [[1, 2], [0]]}, "exactly once"),
        ({**GOOD, "cuts": [[2, 0], [0]]}, "exactly once"),
        ({**GOOD, "cuts": [[0, 2], []]}, "exactly once"),
        ({**GOOD, "ranks": [0]}, "2 chunks, and 1"),
        ({**GOOD, "ranks": [0, -1]}, "ranks"),
        ({**GOOD, "ranks": [0, 10**12]}, "rank"),
        ({**LISTED, "chunks": [CHUNK | {"file": "../../../x.safetensors"}]}, "no rank's file"),
        ({**LISTED, "chunks": [CHUNK | {"file": "rank-000000.safetensors"}]}, "no rank's file"),
        ({**LISTED, "chunks": [CHUNK | {"file": None}]}, "no rank's file"),
        ({**LISTED, "chunks": [CHUNK | {"key": "v"}]}, "key"),
        ({**LISTED, "chunks": [CHUNK, CHUNK]}, "overlap"),
        ({**LISTED, "chunks": []}, "leave gaps"),
        ({**LISTED, "chunks": [CHUNK | {"offsets": [0]}]}, "dims"),
        ({**LISTED, "chunks": [CHUNK | {"sizes": [3, 6], "key": "w@0,0"}]}, "leave gaps"),
        ({**LISTED, "chunks": {}}, "not a list"),
        ({"dtype": "float32", "shape": [4, 6]}, "dims"),
    ],
)
def test_an_index_that_does_not_add_up_is_refused(tmp_path: Path, entry: dict[str, object], words: str) -> None:
    assert len(read_index(index_of(tmp_path / "good", GOOD))["w"].ranks) == 2
    assert len(read_index(index_of(tmp_path / "listed", LISTED))["w"].ranks) == 1
    with pytest.raises(Unsound, match=words):
        read_index(index_of(tmp_path / "bad", entry))


def test_chunks_that_are_no_grid_are_listed_and_read_again(tmp_path: Path) -> None:
    offsets = np.array([[0, 0], [0, 2], [2, 1], [1, 0], [1, 1]])
    sizes = np.array([[1, 2], [2, 1], [1, 2], [2, 1], [1, 1]])
    stored = Stored.of("bfloat16", (3, 3), np.arange(5, dtype=np.int32), offsets, sizes)
    write_index(tmp_path / "index.json", [("w", stored)])
    read = read_index(tmp_path)["w"]
    assert (read.chunks()[0] == offsets).all()
    assert (read.chunks()[1] == sizes).all()
    assert [read.chunk(number) for number in range(5)] == [
        (o, tuple(n)) for o, n in zip(offsets.tolist(), sizes.tolist(), strict=True)
    ]


def test_places_find_what_each_file_holds() -> None:
    """Of a grid, a list and a scalar; ranks that hold several chunks, and one that holds none."""
    cells = np.array([[r, c] for r in (0, 3, 4) for c in (0, 2)])
    extents = np.array([[n, m] for n in (3, 1, 2) for m in (2, 5)])
    one = np.zeros((1, 0), dtype=np.int64)
    places = Places(
        {
            "grid": Stored.of("float32", (6, 7), np.array([0, 2, 0, 2, 2, 0], dtype=np.int32), cells, extents),
            "none": Stored.of("float32", (0, 7), np.zeros(0, dtype=np.int32), cells[:0], extents[:0]),
            "scalar": Stored.of("int64", (), np.array([2], dtype=np.int32), one, one),
        }
    )
    assert places.files() == {"rank-00000.safetensors", "rank-00002.safetensors"}
    assert places.held(0) == {
        "grid@0,0": ("float32", (3, 2)),
        "grid@3,0": ("float32", (1, 2)),
        "grid@4,2": ("float32", (2, 5)),
    }
    assert places.held(1) == {}
    assert places.held(2)["scalar"] == ("int64", ())
    assert set(places.held(2)) == {"grid@0,2", "grid@3,2", "grid@4,0", "scalar"}


def test_reports_of_unlike_ranks_come_together() -> None:
    """Ranks of a pipeline: other tensors, other dims, one with nothing at all."""
    reports = Reports()
    reports.add(0, encode([Chunk("model", "a", "float32", (4, 2), (0, 0), (2, 2))], {}))
    reports.add(1, encode([], {}))
    mixed = [Chunk("optimizer", "m", "int64", (), (), ()), Chunk("model", "a", "float32", (4, 2), (2, 0), (2, 2))]
    reports.add(2, encode([*mixed, Chunk("model", "e", "float32", (2, 3, 4), (0, 0, 0), (2, 3, 4))], {}))
    together = reports.together()
    model, optimizer = dict(together.of("model")), dict(together.of("optimizer"))
    assert model["a"].ranks.tolist() == [0, 2]
    assert model["e"].shape == (2, 3, 4)
    assert optimizer["m"].ranks.tolist() == [2]


def test_a_rank_that_wrote_what_another_wrote_is_found_out() -> None:
    reports = Reports()
    for rank, first in enumerate((0, 1)):
        reports.add(rank, encode([Chunk("model", "a", "float32", (4,), (first,), (2,))], {}))
    with pytest.raises(Unsound, match=r"model: a: .*exactly once"):
        list(reports.together().of("model"))


def test_a_checkpoint_of_format_1_is_read(tmp_path: Path) -> None:
    """As DCP's planner and the safetensors library left it: parts by rank, keyed by offsets."""
    path = tmp_path / "step-00000003"
    values = torch.randn(6, 4)
    files: dict[str, Path] = {}
    for part, tensor, factor in (("model", "w", 1), ("optimizer", "exp_avg.w", 2)):
        (path / part).mkdir(parents=True)
        chunks = []
        for rank, (first, last) in enumerate(((0, 4), (4, 6))):
            name, key = f"rank-{rank:05d}.safetensors", f"{tensor}@{first},0"
            save_file({key: values[first:last] * factor}, path / part / name, metadata={"format": "pt"})
            chunks.append({"offsets": [first, 0], "sizes": [last - first, 4], "file": name, "key": key})
            files[f"{part}/{name}"] = path / part / name
        entry = {"dtype": "float32", "shape": [6, 4], "chunks": chunks}
        (path / part / "index.json").write_text(json.dumps({"tensors": {tensor: entry}}))
        files[f"{part}/index.json"] = path / part / "index.json"
    state = {"step": 3, "tokens": 30, "updates": 3, "nonfinite": 0, "rng": "AAAA"}
    for name, value in (("state.json", state), ("data.json", {"cursor": None, "corpus": {}}), ("config.yaml", {})):
        (path / name).write_text(json.dumps(value))
        files[name] = path / name
    listed = {
        name: {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for name, file in files.items()
    }
    manifest = {"format": 1, "step": 3, "topology": {"world": 2}, "files": listed}
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert fault(path) is None
    weight, moment = torch.zeros(6, 4), torch.zeros(6, 4)
    store = Store(
        {"w": Placed(weight, (whole_box("w", (6, 4)),), (6, 4))},
        {"exp_avg.w": Placed(moment, (whole_box("exp_avg.w", (6, 4)),), (6, 4))},
    )
    assert load_checkpoint(path, store).step == 3
    assert torch.equal(weight, values)
    assert torch.equal(moment, values * 2)
