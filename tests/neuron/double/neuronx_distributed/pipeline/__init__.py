"""The pipeline."""

from .model import NxDPPModel

__all__ = ["NxDPPModel"]
