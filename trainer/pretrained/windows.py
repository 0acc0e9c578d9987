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
    refuse_other_kinds(keys, layers, full, "use_sliding_window, sliding_window and max_window_layers")
    return {"sliding_window": None if full == layers else window, "full_attention_layers": full % layers}


def refuse_other_kinds(keys: Keys, layers: int, full: int, said_by: str) -> None:
    """layer_types, which transformers 5 follows where it is there, against what the other keys say: ``full`` layers
    without a window, then windows. Raises ConfigError.
    """
    kinds = keys.values.get("layer_types")
    if kinds is not None and kinds != [FULL] * full + [WINDOWED] * (layers - full):
        said = "no layer" if full == layers else f"layers from {full} on"
        raise refusal("layer_types", _counted(kinds), f"as {said_by} say: a window in {said}", MIXED)


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
