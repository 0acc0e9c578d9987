"""The runs of the smoke test: a tiny model whose curve is known, and DeepSeek 7B, on 8 and on 32 cores."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from trainer.files import read_json
from trainer.run.exit_json import EXIT

ROOT = Path(__file__).parents[3]
"""The repository: jobs run in it, because the tiny model's text is its LICENSE."""
STEPS, HALF = 20, 10

TINY = (
    "recipe=tiny",
    *("model.hidden=128", "model.layers=2", "model.heads=8", "model.kv_heads=8", "model.mlp=256", "model.vocab=512"),
    *("model.tied=false", "data.seq_len=128", "data.tokenizer.vocab=257", "data.heldout_fraction=0"),
    "data.sources=[{name: licence, paths: [LICENSE], document_unit: paragraph}]",
    *("train.tokens=null", f"train.steps={STEPS}", "train.tokens_per_step=2048", "train.microbatch=1"),
    *("schedule=constant", "schedule.warmup_steps=5", "optim.lr=1e-3", "optim.clip_norm=1.0"),
    *("evaluation.every_steps=0", f"checkpoint.every_steps={HALF}"),
    *("logging.progress=lines", "logging.every_steps=1"),
)
"""Half a million parameters on bytes of a fixed text, so that the curve depends on neither the version of Python nor a
tokenizer's training; with the settings of the layout contract (docs/numerics.md)."""

SEVEN_B = (
    "recipe=deepseek7b",
    "data.sources=[{name: python_stdlib, kind: python_stdlib}]",
    *("data.tokenizer.kind=train_bpe", "data.tokenizer.path=null", "data.tokenizer.vocab=4096"),
    *("data.seq_len=4096", "train.tokens=null", f"train.steps={STEPS}", "train.tokens_per_step=32768"),
    *("schedule=constant", "schedule.warmup_steps=5", "evaluation.every_steps=0", "checkpoint.every_steps=0"),
    *("logging.progress=lines", "logging.every_steps=1"),
)
"""The full model and sequence length, on text and a vocabulary that need no download, with 8 samples a step."""
SEVEN_B_SHRUNK = (
    *("model.hidden=64", "model.layers=2", "model.heads=8", "model.kv_heads=8", "model.mlp=128", "model.vocab=512"),
    *("data.seq_len=64", "train.tokens_per_step=512", "data.tokenizer.vocab=257"),
    "data.sources=[{name: licence, paths: [LICENSE], document_unit: paragraph}]",
)
"""The recipe shrunk for a dry run, on the repository's LICENSE."""


@dataclass(frozen=True)
class Setting:
    """Where the jobs run: on the device, or in a dry run on CPU."""

    root: Path
    """Directory that all runs and the page go to."""
    cache: Path
    """Directory for compiled graphs, on a local disk: empty at first, so that graphs can be counted."""
    dry: bool
    timeout_seconds: float

    def processes(self, cores: int) -> int:
        """Processes for so many cores: one a core, but in a dry run 1 for 8 and 2 for 32."""
        return {8: 1, 32: 2}[cores] if self.dry else cores


@dataclass(frozen=True)
class Job:
    """One launch of scripts/train.py on one machine."""

    name: str
    """The run's name; two jobs of one name are a run and its resume."""
    cores: int
    overrides: tuple[str, ...]

    def command(self, setting: Setting) -> list[str]:
        """torchrun's command line."""
        processes = setting.processes(self.cores)
        tp = processes if setting.dry else 8
        # AWS's examples launch one node without --standalone; in a dry run a free port matters more.
        free_port = ["--standalone"] if setting.dry else []
        return [
            *(sys.executable, "-m", "torch.distributed.run", *free_port),
            *("--nproc_per_node", str(processes), "scripts/train.py"),
            *self.overrides,
            *("parallel=tp8", f"parallel.tp={tp}", f"parallel.sp={'true' if tp > 1 else 'false'}"),
            f"backend={'native' if setting.dry else 'neuron'}",
            *(f"run.root={setting.root}", f"run.name={self.name}", f"data.cache_dir={setting.root}/data"),
        ]


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Job
    directory: Path
    code: int
    cause: str
    """Empty after success."""


def jobs(setting: Setting) -> dict[str, Job]:
    """All jobs in the order in which they run, by their names on the page."""
    small = SEVEN_B_SHRUNK if setting.dry else ()
    mixed = (*TINY, "precision=bf16_mixed")
    return {
        "tiny-8": Job("tiny-8", 8, (*TINY, "precision=fp32")),
        "tiny-32": Job("tiny-32", 32, mixed),
        "tiny-32-first-half": Job("tiny-32-halves", 32, (*mixed, f"train.stop_after_steps={HALF}")),
        "tiny-32-second-half": Job("tiny-32-halves", 32, mixed),
        # With one replica, bf16_mixed's 18 bytes a parameter do not fit in 16 GiB; 8 bytes do (by backend=fake).
        "7b-8": Job("7b-8", 8, (*SEVEN_B, "precision=bf16", *small)),
        "7b-32": Job("7b-32", 32, (*SEVEN_B, "precision=bf16_mixed", *small)),
    }


def run(job: Job, setting: Setting) -> Outcome:
    """Run a job to its end; its output goes to a log beside its run."""
    directory, log = setting.root / job.name, setting.root / f"{job.name}.log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NEURON_COMPILE_CACHE_URL": str(setting.cache)}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with open(log, "a", encoding="utf-8") as file:
        child = subprocess.Popen(job.command(setting), cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            code = child.wait(timeout=setting.timeout_seconds)
        except subprocess.TimeoutExpired:
            child.terminate()  # torchrun ends its workers, and kills them after 30 s
            child.wait()
            return Outcome(job, directory, 1, f"took more than {setting.timeout_seconds:g} s; see {log}")
        except BaseException:
            child.terminate()
            child.wait()
            raise
    return Outcome(job, directory, code, "" if code == 0 else f"{_cause(directory)}; see {log}")


def _cause(directory: Path) -> str:
    """The cause of a failed run, from its exit.json."""
    try:
        ended = read_json(directory / EXIT)
        return f"exit {ended['code']}: {ended['title']}"
    except (OSError, ValueError, KeyError):
        return "it ended without saying why"
