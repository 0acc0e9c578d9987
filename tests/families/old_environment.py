"""transformers 4.48.3 and peft 0.17.1 beside this environment: its own packages in front, torch and all else from here.

    make env-4-48     or: python -m tests.families.old_environment

makes it once, in .cache/. What neuronx-distributed's inference loaders are built on is of this age; what both read with
the same function is held together by tests/families/test_old_transformers.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import harness

PACKAGES = ("transformers==4.48.3", "tokenizers==0.21.4", "huggingface-hub==0.36.0", "peft==0.17.1")
"""With the others that 4.48.3 wants pinned below what transformers 5 wants; the rest is the same for both."""
HERE = harness.ROOT / ".cache" / "environments" / "-".join(PACKAGES[::3]).replace("==", "-")
SECONDS = 300
WORKER = Path(__file__).with_name("old_worker.py")


def make() -> Path:
    """The directory that goes in front of sys.path. Raises RuntimeError, with pip's words, where it cannot be made."""
    if (HERE / "transformers" / "__init__.py").is_file():
        return HERE
    work = HERE.with_name(f".{HERE.name}-{os.getpid()}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        done = subprocess.run(
            [*command, "--target", str(work), *PACKAGES], capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        shutil.rmtree(work, ignore_errors=True)
        raise RuntimeError(f"pip install {' '.join(PACKAGES)} took more than {SECONDS} s") from None
    if done.returncode:
        shutil.rmtree(work, ignore_errors=True)
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise RuntimeError(f"pip install {' '.join(PACKAGES)}: {said[-1] if said else 'failed'}")
    try:
        work.rename(HERE)
    except OSError:  # another process has made it meanwhile
        shutil.rmtree(work, ignore_errors=True)
    return HERE


def ask(task: str, *arguments: Path | str) -> Any:
    """What tests/families/old_worker.py answers in that environment; skips the test where it cannot be made."""
    try:
        packages = make()
    except RuntimeError as error:
        pytest.skip(f"no environment with transformers 4.48.3: {error}")
    variables = {**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{harness.ROOT}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(WORKER), task, *map(str, arguments)],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * SECONDS,
    )
    assert not done.returncode, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    try:
        print(make())
    except RuntimeError as error:
        sys.exit(f"cannot be made: {error}")
