#!/usr/bin/env bash
# torch 2.9.1 on a CPU, torch_xla 2.9.0: the gradient of a BF16 embedding is added up in BF16, row by row. 256 + 1 is 256 there,
# so a token that stands 1,000 times with a gradient of one gets 256. In training the row of a frequent token is a third short
# at 16,384 tokens a microbatch, and the error depends on the microbatch. On CUDA (torch 2.11, H200) the sum is FP32: 1,000.
# torch_xla's graph has a scatter whose combiner adds bf16.
#
# Seen 2026-11-29, torch 2.9.1, torch_xla 2.9.0, Linux x86-64, PJRT_DEVICE=CPU:
#   embedding            cpu 256    xla 256
#   embedding in FP32    cpu 1000   xla 1000
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
"${PYTHON:-python3}" -m venv "$here/venv"
"$here/venv/bin/pip" install --quiet torch==2.9.1 torch_xla==2.9.0 numpy
cat > "$here/ones.py" <<'PY'
import torch
import torch.nn.functional as F
import torch_xla


def row(dtype: torch.dtype, device: object) -> float:
    weight = torch.zeros(16, 8, dtype=dtype, device=device, requires_grad=True)
    rows = F.embedding(torch.full((1, 1000), 3).to(device), weight)
    rows.backward(torch.ones_like(rows))
    return float(weight.grad[3, 0].cpu())


found, on = {}, torch_xla.device()  # before the first backward pass: autograd counts devices then
for name, dtype in {"embedding": torch.bfloat16, "embedding in FP32": torch.float32}.items():
    found[name] = row(dtype, "cpu"), row(dtype, on)
    print(f"{name:<20} cpu {found[name][0]:<6g} xla {found[name][1]:g}")
assert found == {"embedding": (256, 256), "embedding in FP32": (1000, 1000)}, found
print("as seen")
PY
PJRT_DEVICE=CPU "$here/venv/bin/python" "$here/ones.py"
