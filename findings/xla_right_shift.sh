#!/usr/bin/env bash
# torch_xla 2.9.0: `x >> n` of an integer tensor is lowered to a division by 2**n, which rounds negative numbers towards
# zero. PyTorch shifts arithmetically, which rounds towards minus infinity. torch.bitwise_right_shift is lowered to a
# shift, but with a Python number for n its result is int64 where PyTorch's is int32; with an int32 tensor both agree.
# Whoever hashes on the device (counter-based random numbers, dropout masks) gets other numbers than on the CPU.
#
# Seen 2026-11-29, torch 2.9.1, torch_xla 2.9.0, Linux x86-64, PJRT_DEVICE=CPU:
#   x >> 16                               cpu [1883, -15071] int32   xla [1883, -15070] int32   divide
#   bitwise_right_shift(x, 16)            cpu [1883, -15071] int32   xla [1883, -15071] int64   shift-right-arithmetic
#   bitwise_right_shift(x, tensor(16))    cpu [1883, -15071] int32   xla [1883, -15071] int32   shift-right-arithmetic
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
"${PYTHON:-python3}" -m venv "$here/venv"
"$here/venv/bin/pip" install --quiet torch==2.9.1 torch_xla==2.9.0 numpy
cat > "$here/shift.py" <<'PY'
import torch
import torch_xla

x = torch.tensor([123456789, -987654321], dtype=torch.int32)
count = torch.tensor(16, dtype=torch.int32)
on = torch_xla.device()
found = {}
for name, shift in {
    "x >> 16": lambda v: v >> 16,
    "bitwise_right_shift(x, 16)": lambda v: torch.bitwise_right_shift(v, 16),
    "bitwise_right_shift(x, tensor(16))": lambda v: torch.bitwise_right_shift(v, count.to(v.device)),
}.items():
    host, lazy = shift(x), shift(x.to(on))
    text = torch_xla._XLAC._get_xla_tensors_hlo([lazy])
    kind = next(word for word in ("divide", "shift-right-arithmetic") if word + "(" in text)
    found[name] = host.tolist(), str(host.dtype), lazy.cpu().tolist(), str(lazy.dtype), kind
    print(f"{name:<36} cpu {host.tolist()} {host.dtype}  xla {lazy.cpu().tolist()} {lazy.dtype}  {kind}")
right = [1883, -15071]
assert found == {
    "x >> 16": (right, "torch.int32", [1883, -15070], "torch.int32", "divide"),
    "bitwise_right_shift(x, 16)": (right, "torch.int32", right, "torch.int64", "shift-right-arithmetic"),
    "bitwise_right_shift(x, tensor(16))": (right, "torch.int32", right, "torch.int32", "shift-right-arithmetic"),
}, found
print("as seen")
PY
PJRT_DEVICE=CPU "$here/venv/bin/python" "$here/shift.py"
