"""Sliding windows as Qwen's config.json says them: of all layers but the first."""

from __future__ import annotations

from typing import Any

from trainer.config.arithmetic import layer_has_window
from trainer.config.groups.model import ModelConfig
from trainer.pretrained.keys import Keys, refusal

FULL, WINDOWED = "full_attention", "sliding_attention"
MIXED = "the decoder computes windows in all layers but the first few; choose a model that has them so"


def read_windows(keys: Keys, layers: int) -> dict[str, Any]:
    """sliding_window and full_attention_layers. layer_types is transformers 5's word, max_window_layers 4's."""
    window = keys.whole("sliding_window", 4096) if keys.flag("use_sliding_window", False) else None
    if "sliding_window" in keys.values and keys.values["sliding_window"] is None:
        window = None
    full = layers if window is None else min(keys.whole("max_window_layers", 28, low=0), layers)
    kinds = keys.values.get("layer_types")
    if kinds is not None:
        expected = [FULL] * full + [WINDOWED] * (layers - full)
        if kinds != expected:
            said = "no layer" if window is None else f"layers from {full} on"
            rule = f"as use_sliding_window, sliding_window and max_window_layers say: a window in {said}"
            raise refusal("layer_types", _counted(kinds), rule, MIXED)
    return {"sliding_window": None if full == layers else window, "full_attention_layers": full % layers}


def _counted(kinds: object) -> object:
    if not isinstance(kinds, list):
        return kinds
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(map(str, kinds)))


def write_windows(model: ModelConfig) -> dict[str, Any]:
    """The inverse. Without a window sliding_window is null: 4.48 masks by it, whatever use_sliding_window says."""
    kinds = [WINDOWED if layer_has_window(model, layer) else FULL for layer in range(model.layers)]
    return {
        "use_sliding_window": model.sliding_window is not None,
        "sliding_window": model.sliding_window,
        "max_window_layers": kinds.count(FULL),
        "layer_types": kinds,
    }
