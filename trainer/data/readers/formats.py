"""Which format a file has: by its suffix, or by what its source says."""

from __future__ import annotations

from pathlib import PurePath
from typing import NamedTuple

from trainer.data.readers.found import Unreadable
from trainer.rules.text import FORMATS

ORDER = ("text", "jsonl", "parquet", "csv", "tsv", "arrow", "tar")
"""Files of a source that mixes formats are read in this order."""
JSON_LINES = (".jsonl", ".ndjson", ".jsonlines", ".jl", ".json")
TABLES = dict.fromkeys(JSON_LINES, "jsonl") | {f".{name}": name for name in ("csv", "tsv", "parquet", "arrow", "tar")}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
SHORT = {".tgz": (".tar", ".gz")}
PACKED = ("text", "jsonl", "csv", "tsv", "tar")
"""Formats that may be compressed as a whole; the others compress their own columns."""
DOCUMENTS = """
    txt text md markdown mdx rst adoc asciidoc org tex bib texi pod man html htm xhtml xml css scss sass less svg
    log srt vtt eml mbox po raw tokens toml yaml yml ini cfg conf properties env lock diff patch
"""
CODE = """
    py pyi pyx pxd ipynb c h cc cpp cxx hh hpp hxx inl cu cuh m mm java kt kts scala groovy gradle go rs rb php pl pm
    lua r swift sh bash zsh fish ps1 bat cmd js mjs cjs jsx ts tsx vue svelte sql graphql proto thrift asm s f f90
    f95 for hs lhs ml mli fs fsx cs vb clj cljs ex exs erl hrl elm dart nim zig d pas ada adb ads lisp el scm rkt tcl
    v sv vhd vhdl cmake mk make am ac m4 in awk sed vim tf hcl nix cl glsl hlsl wgsl metal sol coffee cob cbl jinja j2
    tmpl template dockerfile bzl
"""
TEXT = {"", *(f".{name}" for name in (DOCUMENTS + CODE).split())}
"""Suffixes of plain text. A file without a suffix is text too."""


class Format(NamedTuple):
    """name: one of FORMATS. compression: a suffix of COMPRESSED, or empty."""

    name: str
    compression: str


def format_of(file: PurePath, given: str | None = None) -> Format:
    """The format of a file. given: the source's, which decides. Raises Unreadable for a suffix nobody knows."""
    suffixes = [part for suffix in file.suffixes for part in SHORT.get(suffix.lower(), (suffix.lower(),))]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSED else ""
    suffix = suffixes[-1] if suffixes else ""
    name = given or TABLES.get(suffix) or ("text" if suffix in TEXT else None)
    if name is None:
        rule = f"the suffix {suffix} says what is in it; it is unknown"
        every = ", ".join(FORMATS)
        raise Unreadable(rule, f"leave it out of the paths, or say what it is: the source's format, one of {every}")
    if compression and name not in PACKED:
        raise Unreadable(f"{name} is read as it is, not inside {compression}", "unpack it first")
    return Format(name, compression)


def read_otherwise(file: PurePath, found: Format) -> bool:
    """Whether the file was taken for something else when every suffix but JSON's and Parquet's was text."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    return found.name != ("jsonl" if suffix in (".json", ".jsonl") else "parquet" if suffix == ".parquet" else "text")
