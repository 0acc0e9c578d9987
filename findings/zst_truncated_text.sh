#!/usr/bin/env bash
# zstandard 0.25.0: a reader of a .zst file that was cut short (an interrupted download, a full disk) gives what its last
# whole block holds, and then the end of the file, without an error. datasets 5.2.0 and fsspec 2026.9.0 read .zst through
# it: a cut text file trains on fewer rows, exit 0. The same file as .gz, .xz or .bz2 raises EOFError, and pyarrow's
# reader of zstd raises OSError. (JSON lines mostly fail to parse where the cut falls inside a row; plain text does not.)
# Whoever reads published shards through datasets compares sizes or digests, or runs `zstd -t` first.
#
# Seen 2026-11-30, Python 3.11, zstandard 0.25.0, datasets 5.2.0, fsspec 2026.9.0, pyarrow 26.0.1, Linux x86-64; 20,000
# lines, of which the first 60 % of the compressed bytes are left:
#   zstandard.open             11870 lines
#   fsspec.open                11870 lines
#   datasets, streaming        11870 rows
#   datasets                   11870 rows
#   datasets of .gz            EOFError: Compressed file ended before the end-of-stream marker was reached
#   pyarrow                    OSError: Truncated compressed stream
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
"${PYTHON:-python3}" -m venv "$here/venv"
"$here/venv/bin/pip" install --quiet zstandard==0.25.0 datasets==5.2.0 fsspec==2026.9.0 pyarrow==26.0.1
cat > "$here/cut.py" <<'PY'
import gzip
import random

import datasets
import fsspec
import pyarrow
import zstandard

draw = random.Random(1)
text = "".join(" ".join(f"w{draw.randrange(10000)}" for _ in range(60)) + "\n" for _ in range(20000)).encode()
whole = {"zst": zstandard.ZstdCompressor(level=3).compress(text), "gz": gzip.compress(text)}
for suffix, packed in whole.items():
    with open(f"cut.txt.{suffix}", "wb") as file:
        file.write(packed[: len(packed) * 6 // 10])


def rows(suffix, **more):
    return datasets.load_dataset("text", data_files=f"cut.txt.{suffix}", split="train", cache_dir="cache", **more)


def said(read):
    try:
        return read()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


found = {
    "zstandard.open": said(lambda: sum(1 for _ in zstandard.open("cut.txt.zst", "rt"))),
    "fsspec.open": said(lambda: sum(1 for _ in fsspec.open("cut.txt.zst", "rt", compression="infer").open())),
    "datasets, streaming": said(lambda: sum(1 for _ in rows("zst", streaming=True))),
    "datasets": said(lambda: len(rows("zst"))),
    "datasets of .gz": said(lambda: sum(1 for _ in rows("gz", streaming=True))),
    "pyarrow": said(lambda: len(pyarrow.CompressedInputStream(pyarrow.OSFile("cut.txt.zst"), "zstd").read())),
}
for name, value in found.items():
    print(f"{name:<26} {value}")
short = list(found.values())[:4]
assert all(isinstance(lines, int) and 0 < lines < 20000 for lines in short) and len(set(short)) == 1, found
assert found["datasets of .gz"].startswith("EOFError"), found
assert found["pyarrow"].startswith("OSError: Truncated"), found
print("as seen")
PY
cd "$here" && HF_HUB_OFFLINE=1 HF_HOME="$here/hub" venv/bin/python cut.py
