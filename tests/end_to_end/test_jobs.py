"""A scheduled job for real: three nights of a small model on two processes, published, read by transformers, rolled
back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JOB = """\
recipe: tiny
overrides:
  - launcher.processes=2
  - train.steps=12
  - train.tokens=null
  - train.tokens_per_step=512
  - data.seq_len=64
  - data.heldout_fraction=0
  - data.tokenizer.vocab=512
  - evaluation.every_steps=0
  - model.layers=2
  - model.hidden=64
  - model.mlp=96
  - model.vocab=512
  - "data.sources=[{name: corpus, paths: [corpus.txt]}]"
schedule: {new_data: true}
sets: [{name: frozen, paths: [frozen.txt], seq_len: 64}]
gates:
  - {name: better, set: frozen}
  - {name: small, kind: size, limit: 0.01}
notify: {command: ["PYTHON", "-c", "import sys; open('told.jsonl', 'a').write(sys.stdin.read() + chr(10))"]}
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """With a corpus, a frozen set and one job."""
    (tmp_path / "conf" / "job").mkdir(parents=True)
    (tmp_path / "conf" / "job" / "night.yaml").write_text(JOB.replace("PYTHON", sys.executable))
    pages = sorted((ROOT / "docs").glob("*.md"))
    (tmp_path / "corpus.txt").write_text("".join(page.read_text() for page in pages[:6]))
    (tmp_path / "frozen.txt").write_text(pages[7].read_text()[:3000])
    return tmp_path


def jobs(here: Path, *words: str, code: int = 0, hosts: int = 1) -> str:
    """scripts/jobs.py, whose output is returned; it has to end with the code, and without a traceback.

    hosts: so many at the same time.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "scripts" / "jobs.py"), *words]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(command, cwd=here, env=environment, stdout=pipe, stderr=pipe, text=True) for _ in range(hosts)
    ]
    said = ""
    for process in started:
        out, error = process.communicate(timeout=400)
        assert process.returncode == code, out + error
        assert "Traceback" not in error, error
        said += out
    return said


def ticks(here: Path, hosts: int = 1) -> list[str]:
    """Until nothing is open."""
    lines: list[str] = []
    while True:
        lines += jobs(here, "tick", hosts=hosts).splitlines()
        if not list((here / "jobs" / "night" / "open").glob("*")):
            return lines
        time.sleep(1)


@pytest.mark.slow
def test_three_nights(here: Path) -> None:
    first = ticks(here, hosts=3)
    assert sum("is champion" in line for line in first) == 1, first
    assert sum("train submitted" in line for line in first) == 1, first
    assert len(list((here / "runs").glob("night-*/launch/train-*"))) == 1
    assert ticks(here) == []  # the same data: nothing is due
    before = (here / "registry" / "night" / "champion").resolve()
    (here / "corpus.txt").write_text((here / "corpus.txt").read_text() * 2)
    second = ticks(here)
    assert any("is champion" in line for line in second), second
    said = jobs(here, "why", "night")
    assert f"full after full: from the weights of {before.name}" in said
    assert "the champion's" in said
    assert "begins anew    optimizer, schedule" in jobs(here, "logs", "night")
    after = (here / "registry" / "night" / "champion").resolve()
    assert after != before
    loads_in_transformers(after / "model")
    (here / "frozen.txt").write_bytes(b"\xff")  # a set that is no longer what it was
    (here / "corpus.txt").write_text((here / "corpus.txt").read_text() + "And more of it.")
    third = ticks(here)
    assert any("evaluate failed" in line and "eval.py" in line for line in third), third
    jobs(here, "rollback", "night", "--because", "it is rude")
    assert (here / "registry" / "night" / "champion").resolve() == before
    assert "withdrawn" in jobs(here, "registry", "night")
    ends = [json.loads(line)["end"] for line in (here / "told.jsonl").read_text().splitlines()]
    assert ends == ["published", "published", "failed"]


def loads_in_transformers(directory: Path) -> None:
    """In a process without torch_xla, which transformers would take for a device."""
    program = (
        "import sys; sys.modules['torch_xla'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model, words = (kind.from_pretrained(sys.argv[1]) for kind in (AutoModelForCausalLM, AutoTokenizer))\n"
        "assert model(**words('The run', return_tensors='pt', return_token_type_ids=False)).logits.isfinite().all()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_gate_that_refuses_ends_with_14_and_a_crash_does_not(here: Path) -> None:
    path = here / "conf" / "job" / "night.yaml"
    path.write_text(path.read_text().replace("limit: 0.01", "limit: 0.0000001"))
    assert "rejected" in jobs(here, "run", "night", code=14)
    assert not (here / "registry" / "night" / "aliases").exists()
    path.write_text(path.read_text().replace("corpus.txt]", "nowhere.txt]"))
    assert "nowhere.txt" in jobs(here, "run", "night", code=4)
    path.write_text(path.read_text().replace("nowhere.txt]", "corpus.txt]"))
    (here / "frozen.txt").write_text("")
    said = jobs(here, "run", "night", code=4)
    assert "preflight failed: sets.0.paths = frozen.txt: holds something" in said  # before anything is trained
