"""An INT8 export against NxD's own quantiser: names, shapes, dtypes, scales; values but for ties."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.neuron.library import over_gloo
from tests.ranks import Task, run
from trainer.pretrained.int8_rows import rounded, scales_of


@pytest.mark.nxd
def test_the_source_quantises_alike(nxd_source: Path, tmp_path: Path) -> None:
    """It multiplies by the scale's reciprocal: what lies within a rounding of a tie may go the other way."""
    generator = torch.Generator().manual_seed(5)
    matrices = {f"m{n}": torch.randn(96, 64, generator=generator) * 10.0**-n for n in range(4)}
    save_file(matrices, tmp_path / "matrices.safetensors")
    run(Task("tests.neuron.int8_layers:quantise", 1), tmp_path, over_gloo(nxd_source))
    theirs = load_file(tmp_path / "theirs.safetensors")
    for name, matrix in matrices.items():
        scales = scales_of(matrix.abs().amax(dim=1, keepdim=True))
        values = rounded(matrix, scales)
        weight, scale = theirs[f"{name}.weight"], theirs[f"{name}.scale"]
        assert (weight.dtype, weight.shape) == (values.dtype, values.shape)
        assert (scale.dtype, scale.shape) == (scales.dtype, scales.shape)
        assert torch.equal(scale, scales)
        different = weight != values
        assert different.float().mean() < 1e-3
        ties = (matrix / scales).abs().frac().sub(0.5).abs()
        assert bool((ties[different] < 1e-4).all())
