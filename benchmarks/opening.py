"""What a start on token files that are ready costs: from the command to the first step, whatever their size.

    OMP_NUM_THREADS=1 python -m benchmarks.opening [--documents 1e6 1e7 1e8] [--shards 100] [--processes 2] [--runs 3]

Simulated corpora: a real .idx, a sparse .bin; the last rows are hard links of the largest, as they are and with the
manifest of a prepared source. The first is 1 MB. Of several
runs the median, of several ranks the worst. Read: bytes by the kernel's count (rchar), above those of the first row,
which are what Python and the packages read.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.first_step import measure
from tests.simulated import link_prepared, link_shards, write_simulated
from tests.unit.test_data_support import byte_tokenizer

PREPARED = "prepared"
SMALL = 1_000
"""Documents of 1 MB."""


def rows(cwd: Path, sizes: list[int], shards: int) -> list[tuple[str, int, list[str]]]:
    """What a corpus is called, its documents, its paths."""
    found = []
    for size in [SMALL, *sizes]:
        write_simulated(cwd / f"d{size}", size)
        found.append(("1 MB" if size == SMALL else "one pair", size, [str(cwd / f"d{size}")]))
    largest = max(sizes)
    found.append((f"{shards} pairs", shards * largest, link_shards(cwd / f"d{largest}", shards)))
    prepared = link_prepared(cwd / "p", cwd / f"d{largest}", shards, cwd / f"d{SMALL}", byte_tokenizer())
    found.append((PREPARED, shards * largest, [prepared]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=float, nargs="+", default=[1e6, 1e7, 1e8])
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    base = None
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        print(f"{'corpus':<12}{'documents':>16}{'seconds':>10}{'peak MB':>10}{'MB read':>10}")
        for name, documents, paths in rows(Path(scratch).absolute(), list(map(int, options.documents)), options.shards):
            kind = "prepared" if name == PREPARED else "indexed"
            runs = [measure(Path(scratch).absolute(), paths, options.processes, kind) for _ in range(options.runs)]
            worst = [{key: max(rank[key] for rank in run) for key in run[0]} for run in runs]
            found = {key: statistics.median(run[key] for run in worst) for key in worst[0]}
            base = base or found
            read = (found["read"] - base["read"]) / 1e6
            print(
                f"{name:<12}{documents:>16,}{found['seconds']:>10.2f}{found['megabytes']:>10.0f}{read:>10.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
