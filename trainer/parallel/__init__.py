"""Axes and boxes: who shares what, and which part of each tensor a rank holds."""
