#!/usr/bin/env bash
# torch 2.9.1 on a CPU: scaled_dot_product_attention(is_causal=True) leaves out keys in blocks of 512 positions only. Up to
# 512 tokens a sample, causal attention costs what attention to everything costs; half of the work is saved only at several
# thousand. Whoever fine-tunes on short samples on a CPU pays for twice the attention that there is. 2.14.1 does the same.
#
# Seen 2026-11-30, Linux x86-64 (AVX512), one thread, heads of 64, 4,096 tokens in all; time of causal / of not causal:
#   tokens a sample    256   512  1024  2048  4096
#   float32           1.02  1.00  0.76  0.64  0.57
#   bfloat16          1.01  1.01  0.75  0.63  0.57
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
"${PYTHON:-python3}" -m venv "$here/venv"
"$here/venv/bin/pip" install --quiet torch==2.9.1 numpy
cat > "$here/ratio.py" <<'PY'
import statistics
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

torch.set_num_threads(1)


def ratio(seq, dtype):
    """Medians of CPU time, in turn."""
    q, k, v = (torch.randn(4096 // seq, 8, seq, 64, dtype=dtype) for _ in range(3))
    spent = {True: [], False: []}
    for _ in range(11):
        for causal, seconds in spent.items():
            begin = time.process_time()
            scaled_dot_product_attention(q, k, v, is_causal=causal)
            seconds.append(time.process_time() - begin)
    return statistics.median(spent[True]) / statistics.median(spent[False])


for dtype in (torch.float32, torch.bfloat16):
    found = {seq: ratio(seq, dtype) for seq in (256, 512, 1024, 2048, 4096)}
    print(f"{str(dtype):16}", "  ".join(f"{seq}: {value:.2f}" for seq, value in found.items()))
    assert min(found[256], found[512]) > 0.8, "short samples have become cheaper"
    assert found[4096] < 0.75, "long samples have become dearer"
print("as seen")
PY
"$here/venv/bin/python" "$here/ratio.py"
