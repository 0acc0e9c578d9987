"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in Hugging Face's half-split layout."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainer.config.arithmetic import attention_factor
from trainer.config.groups.model import ModelConfig, RopeScalingConfig


class Rotary(nn.Module):
    """Cosines and sines for given positions, always FP32.

    parts: ranks over which a sample is cut; a lowering that cuts it says so. Dynamic scaling reads the length of a
    sample from what it is given.
    """

    inverse_frequencies: torch.Tensor

    def __init__(self, theta: float, head_dim: int, scaling: RopeScalingConfig) -> None:
        super().__init__()
        self.theta, self.head_dim, self.scaling, self.parts = theta, head_dim, scaling, 1
        self.attention_factor = attention_factor(scaling)
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
        angles = (positions.float().unsqueeze(-1) * self.frequencies(positions.shape[-1] * self.parts)).unsqueeze(1)
        if self.attention_factor == 1.0:
            return angles.cos(), angles.sin()
        return angles.cos() * self.attention_factor, angles.sin() * self.attention_factor

    def frequencies(self, seq_len: int) -> torch.Tensor:
        """FP32 [head_dim / 2], radians a position, of a sample of so many tokens."""
        if self.scaling.kind != "dynamic" or seq_len <= self.scaling.original_max_positions:
            return self.inverse_frequencies
        # By the length of the sample, which is static, and not by its largest position, as generation does.
        stretched = inverse_frequencies(dynamic_theta(self.theta, self.head_dim, self.scaling, seq_len), self.head_dim)
        return stretched.to(self.inverse_frequencies.device)


PLAIN = RopeScalingConfig()


def inverse_frequencies(theta: float, head_dim: int, scaling: RopeScalingConfig = PLAIN) -> torch.Tensor:
    """FP32 [head_dim / 2]: theta ** (-2i / head_dim), stretched for longer contexts.

    linear: all divided by the factor (arXiv:2306.15595). llama3: long wavelengths divided by the factor, short ones
    kept, a linear blend between (Llama 3.1, arXiv:2407.21783; the blend is that of Meta's reference code). yarn: the
    same idea with the blend over dims (arXiv:2309.00071, section 3.2). dynamic: plain up to the original context.
    """
    plain = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim))
    if scaling.kind in ("none", "dynamic"):
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    share = _kept_by_llama3(plain, scaling) if scaling.kind == "llama3" else _kept_by_yarn(theta, head_dim, scaling)
    return (1 - share) * (plain / scaling.factor) + share * plain


def _kept_by_llama3(plain: torch.Tensor, scaling: RopeScalingConfig) -> torch.Tensor:
    """Share of each frequency that stays as it is."""
    wavelength = 2 * math.pi / plain
    low, high, original = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_positions
    return ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0)


def _kept_by_yarn(theta: float, head_dim: int, scaling: RopeScalingConfig) -> torch.Tensor:
    """Share of each frequency that stays as it is: 1 up to the dim that turns beta_fast times within the original
    context, 0 from the one that turns beta_slow times.
    """
    low, high = (_dim_that_turns(n, theta, head_dim, scaling) for n in (scaling.beta_fast, scaling.beta_slow))
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = (torch.arange(head_dim // 2, dtype=torch.float32) - low) / ((high - low) or 0.001)
    return 1 - ramp.clamp(0.0, 1.0)


def _dim_that_turns(times: float, theta: float, head_dim: int, scaling: RopeScalingConfig) -> float:
    """Index, as a real number, of the pair of dims that turns so often within the original context."""
    return head_dim * math.log(scaling.original_max_positions / (times * 2 * math.pi)) / (2 * math.log(theta))


def dynamic_theta(theta: float, head_dim: int, scaling: RopeScalingConfig, seq_len: int) -> float:
    """The base for a sample longer than the original context ("dynamic NTK"; YaRN, arXiv:2309.00071, section 3.3)."""
    stretch = scaling.factor * seq_len / scaling.original_max_positions - (scaling.factor - 1)
    return theta * stretch ** (head_dim / (head_dim - 2))


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Turn the pairs (i, i + head_dim / 2) of [batch, heads, seq, head_dim] by their angles, in FP32."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)
    return turned.to(x.dtype)
