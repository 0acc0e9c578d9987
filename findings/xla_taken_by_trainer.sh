#!/usr/bin/env bash
# transformers 5.23.0 with accelerate 1.15.0 where torch_xla 2.9.0 is merely installed: TrainingArguments(use_cpu=True)
# gives the device xla:0, Trainer moves the model there, and its default optimizer (adamw_torch_fused) raises at the first
# step, since torch's fused AdamW knows no XLA tensors. trl's SFTTrainer is a Trainer, and does the same. Hiding the
# module (sys.modules["torch_xla"] = None before the imports) brings the CPU back.
# Who keeps one environment for Trainium and a laptop meets this; a CPU baseline measured there is one of XLA.
#
# Seen 2026-11-30, torch 2.9.1, torch_xla 2.9.0, transformers 5.23.0, accelerate 1.15.0, Linux x86-64:
#   installed  use_cpu=True: device xla:0; model on xla:0; RuntimeError: `fused=True` requires all the params ...
#   hidden     use_cpu=True: device cpu; model on cpu; trained 1 step
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
"${PYTHON:-python3}" -m venv "$here/venv"
"$here/venv/bin/pip" install --quiet torch==2.9.1 torch_xla==2.9.0 transformers==5.23.0 accelerate==1.15.0 numpy
cat > "$here/train.py" <<'PY'
import sys

hidden = sys.argv[1] == "hidden"
if hidden:
    sys.modules["torch_xla"] = None

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

torch.manual_seed(0)
shape = LlamaConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=32
)
rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 2
asked = TrainingArguments(output_dir=sys.argv[2], use_cpu=True, max_steps=1, report_to=[], save_strategy="no")
trainer = Trainer(model=LlamaForCausalLM(shape), args=asked, train_dataset=rows)
device, where = str(asked.device), str(next(trainer.model.parameters()).device)
try:
    trainer.train()
    end = f"trained {trainer.state.global_step} step"
except RuntimeError as error:
    end = f"RuntimeError: {str(error)[:48]}"
print(f"{sys.argv[1]:<10} use_cpu=True: device {device}; model on {where}; {end}")
if hidden:
    assert (device, where, end) == ("cpu", "cpu", "trained 1 step")
else:
    assert (device, where) == ("xla:0", "xla:0"), (device, where)
    assert end.startswith("RuntimeError: `fused=True` requires all the params"), end
PY
for kind in installed hidden; do
  PJRT_DEVICE=CPU "$here/venv/bin/python" "$here/train.py" "$kind" "$here/out" 2> "$here/errors" | tail -1
done
echo "as seen"
