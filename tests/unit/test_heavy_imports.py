"""Whatever of the data path is imported first, packages in native code come in one order."""

from __future__ import annotations

import subprocess
import sys

import pytest

SHOW = "import sys, {module}; print(*(name for name in sys.modules if name in ('pyarrow', 'tokenizers')))"


@pytest.mark.parametrize("module", ["trainer.data.tokenizer", "trainer.data.readers.files", "trainer.commands.prepare"])
def test_one_order(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(module=module)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["pyarrow", "tokenizers"]
