"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in Hugging Face's half-split layout."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainer.config.groups.model import ModelConfig, RopeScalingConfig


class Rotary(nn.Module):
    """Cosines and sines for given positions, always FP32."""

    inverse_frequencies: torch.Tensor

    def __init__(self, theta: float, head_dim: int, scaling: RopeScalingConfig) -> None:
        super().__init__()
        self.theta, self.head_dim, self.scaling = theta, head_dim, scaling
        self.register_buffer("inverse_frequencies", torch.empty(head_dim // 2), persistent=False)

    @classmethod
    def of(cls, config: ModelConfig, head_dim: int) -> Rotary:
        """The embedding that a model configuration describes."""
        return cls(config.rope_theta, head_dim, config.rope_scaling)

    def derive_buffers(self) -> None:
        """Fill the buffers after materialisation from the meta device; FP32 whatever the model's dtype became."""
        values = inverse_frequencies(self.theta, self.head_dim, self.scaling)
        self.inverse_frequencies = values.to(self.inverse_frequencies.device)

    def forward(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[batch, seq] positions -> cosines and sines, each FP32 [batch, 1, seq, head_dim / 2]."""
        angles = (positions.float().unsqueeze(-1) * self.inverse_frequencies).unsqueeze(1)
        return angles.cos(), angles.sin()


def inverse_frequencies(theta: float, head_dim: int, scaling: RopeScalingConfig) -> torch.Tensor:
    """FP32 [head_dim / 2]: theta ** (-2i / head_dim), stretched for longer contexts.

    linear: all divided by the factor (arXiv:2306.15595). llama3: long wavelengths divided by the factor, short ones
    kept, a linear blend between (Llama 3.1, arXiv:2407.21783; the blend is that of Meta's reference code).
    """
    plain = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim))
    if scaling.kind == "none":
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    wavelength = 2 * math.pi / plain
    low, high, original = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_positions
    share = ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - share) * plain / scaling.factor + share * plain


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Turn the pairs (i, i + head_dim / 2) of [batch, heads, seq, head_dim] by their angles, in FP32."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)
    return turned.to(x.dtype)
