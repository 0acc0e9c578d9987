"""Directories that are data sets: which files are a card and which a split, the library of that name knows."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path, PurePath

from trainer.data.readers.formats import TABLES
from trainer.data.readers.found import Unreadable

CARD = "README.md"
SPLIT = re.compile(r"(train|test|validation|valid|val|dev|eval)([-_.].*)?")
HINT = "kind: huggingface reads one split of it; for all of these files name them: paths: [DIRECTORY/**/*.SUFFIX]"
SAVED = ("state.json", "dataset_dict.json")


def refuse_data_set(directory: PurePath, files: Collection[PurePath]) -> None:
    """Raises Unreadable for a data set of which everything would be learnt: its card, or its test split.

    files: all that are below the directory.
    """
    tables = [file for file in files if any(suffix.lower() in TABLES for suffix in file.suffixes)]
    if not tables:
        return
    if directory / CARD in files:
        raise Unreadable(f"{CARD} beside {tables[0].name} is a data set's card, and would be learnt as text", HINT)
    splits = {match[1]: file.name for file in tables if (match := SPLIT.fullmatch(file.name))}
    if "train" in splits and len(splits) > 1:
        held = next(name for split, name in splits.items() if split != "train")
        raise Unreadable(f"{splits['train']} and {held} are splits of a data set, and all would be learnt", HINT)


def refuse_mixture(directory: Path) -> None:
    """Raises Unreadable for a directory of several formats, of which the library drops the rarer without a word."""
    if any((directory / name).is_file() for name in SAVED):
        return
    kinds: dict[str, Path] = {}
    for file in sorted(directory.rglob("*")):
        if any(part.startswith(".") for part in file.relative_to(directory).parts) or not file.is_file():
            continue
        found = [suffix.lower() for suffix in file.suffixes if suffix.lower() in TABLES or suffix.lower() == ".txt"]
        if found:
            kinds.setdefault(TABLES.get(found[-1], found[-1]), file)
    if len(kinds) > 1:
        first, second = list(kinds.values())[:2]
        rule = f"holds one format; it holds {first.name} and {second.name}, and the rarer would be dropped"
        raise Unreadable(rule, "give each format a source of its own: kind: files, paths: [DIRECTORY/*.SUFFIX]")
