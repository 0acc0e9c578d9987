"""scripts/data.py show: its figures counted again from the text, its batches those that a run trains on."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tokenizers

from tests import harness
from tests.unit.test_data_support import byte_tokenizer

pytestmark = pytest.mark.slow

SHOW = harness.ROOT / "scripts" / "data.py"
RECORDER = '''
import numpy as np
from trainer.backends import BACKENDS
from trainer.config.plugins import call_named


class Recorded:
    """A run's batches, kept as each rank gets them."""

    def __init__(self, source, rank, done):
        self.source, self.rank, self.step = source, rank, done

    def __iter__(self):
        return self

    def __next__(self):
        batch = next(self.source)
        self.step = batch.cursor["drawn"] // 8
        rows = [np.concatenate([micro[field].numpy() for micro in batch.microbatches]) for field in range(5)]
        np.save(f"batch-{self.step}-{self.rank}.npy", np.stack(rows))
        return batch

    def close(self):
        self.source.close()


def make(*arguments):
    backend = call_named("backend.name", BACKENDS.get("native", "native"), *arguments)
    backend.ahead = lambda source: Recorded(source, backend.mesh.rank, 0)
    return backend
'''
COMMON = [
    *[override for override in harness.SMALL if "tokenizer.vocab" not in override],
    *("precision=fp32", "data.tokenizer.kind=file", "data.tokenizer.path=tokenizer.json", "run.name=run"),
    "data.sources=[{name: a, paths: [a.jsonl], weight: 2}, {name: b, paths: [b.jsonl]}]",
    *("train.steps=12", "checkpoint.every_steps=4", "checkpoint.keep=0", "data.packing=best_fit"),
]


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources in JSON lines, one text in both: held-out text is chosen by content."""
    folder = tmp_path_factory.mktemp("show")
    byte_tokenizer().save(folder / "tokenizer.json")
    (folder / "recorder.py").write_text(RECORDER)
    texts = [file.read_text() for file in sorted(harness.write_corpus(folder / "all").iterdir())]
    for name, kept in (("a", texts[:35]), ("b", texts[35:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in kept))
    return folder


def show(cwd: Path, *arguments: str, code: int = 0) -> str:
    done = harness.train(cwd, ["show", *COMMON, *arguments], program=SHOW)
    assert done.code == code, done.output
    return done.output


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def trained(cwd: Path, step: int) -> str:
    """The digest of the batch that ranks got, one behind the other."""
    kept = [np.load(file) for file in sorted(cwd.glob(f"batch-{step}-*.npy"))]
    found = hashlib.blake2b(digest_size=8)
    for row in np.concatenate(kept, axis=1).transpose(1, 0, 2):
        found.update(row.astype("<i8").tobytes())
    return found.hexdigest()


def digest(output: str) -> tuple[int, str]:
    (found,) = re.findall(r"^step (\d+) of 12: 8 samples, digest (\w+)", output, re.MULTILINE)
    return int(found[0]), found[1]


def test_a_run_trains_on_the_batches_that_are_shown(cwd: Path) -> None:
    before = {step: digest(show(cwd, "--step", str(step)))[1] for step in (1, 7)}
    assert not (cwd / "runs").exists()
    begun = [*COMMON, "backend.name=recorder:make"]
    more = {"PYTHONPATH": f"{cwd}:{harness.ROOT}"}
    done = harness.train(cwd, [*begun, "train.stop_after_steps=5"], processes=2, more=more)
    assert done.code == 0, done.output
    assert before[1] == trained(cwd, 1)
    kept = files(cwd / "runs")
    # The run stands at its last checkpoint; earlier steps are told from an earlier one.
    after = digest(show(cwd))
    earlier = digest(show(cwd, "--step", "3"))[1]
    later = digest(show(cwd, "--step", "9"))[1]
    assert files(cwd / "runs") == kept, "nothing of a run changes"
    done = harness.train(cwd, begun, more=more)
    assert done.code == 0, done.output
    assert after == (6, trained(cwd, 6))
    assert (earlier, before[7], later) == (trained(cwd, 3), trained(cwd, 7), trained(cwd, 9))
    assert "data.seq_len" in show(cwd, "data.seq_len=32", code=3)


def test_figures_are_those_of_the_text(cwd: Path) -> None:
    output = show(cwd, "data.heldout_fraction=0", "evaluation.every_steps=0", "run.name=other", "--samples", "60")
    tokenizer = tokenizers.Tokenizer.from_file(str(cwd / "tokenizer.json"))
    counted = 0
    for name in ("a", "b"):
        texts = pd.read_json(cwd / f"{name}.jsonl", lines=True)["text"]
        lengths = pd.Series([len(tokenizer.encode(text, add_special_tokens=False).ids) + 1 for text in texts])
        size = texts.str.encode("utf-8").str.len().sum()
        line = f"source {name}: {len(texts):,} documents, {lengths.sum():,} tokens to train on, "
        assert f"{line}{size / lengths.sum():.2f} bytes a token" in output
        q = [f"{int(v):,}" for v in lengths.quantile([0, 0.1, 0.5, 0.9, 0.99, 1], interpolation="lower")]
        assert re.search(rf"shortest {q[0]}, 10 % [\d,]+, median [\d,]+, .*, longest {q[-1]}", output)
        bins = [int(n.replace(",", "")) for n in re.findall(r"#+ +([\d,]+)$", output, re.MULTILINE)]
        counted += len(texts)
    assert sum(bins) == counted
    shown = re.findall(r"^sample [\d,]+, of (\w): (\d+) document.* (\d+) targets, (\d+) of 64", output, re.MULTILINE)
    assert len(shown) == 60
    assert all(int(targets) + int(padding) == 64 for _, _, targets, padding in shown)
    assert [name for name, *_ in shown].count("a") == 40


def test_a_picture(cwd: Path) -> None:
    show(cwd, "--picture", "lengths.png")
    assert (cwd / "lengths.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--step", "0"], 3, "--step"),
        pytest.param(["--samples", "-1"], 3, "--samples", marks=pytest.mark.long),
        (["--samples", "1001"], 3, "1,000 at the most"),
        (["--picture", "lengths.gif"], 3, ".png, .svg, .pdf"),
        (["data.sources=[{name: a, paths: [none.jsonl]}]", "run.name=none"], 4, "matches no file"),
    ],
)
def test_mistakes_are_told(cwd: Path, arguments: list[str], code: int, words: str) -> None:
    output = show(cwd, *arguments, code=code)
    assert words in output
    assert "Traceback" not in output


def test_without_a_command(cwd: Path) -> None:
    done = harness.train(cwd, ["recipe=tiny"], program=SHOW)
    assert done.code == 3
    assert "show" in done.output
