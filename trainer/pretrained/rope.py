"""The rotary embedding in config.json: ``rope_parameters`` of transformers 5, ``rope_theta`` and ``rope_scaling`` of 4.

transformers 5.23 follows the first where both stand there, 4.48 the second; 4.48 reads a file that has only the first
as theta 10000 without scaling. So both are written, each alone is read, and unequal ones are refused.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, NamedTuple

from trainer.config.arithmetic import attention_factor
from trainer.config.groups.model import ModelConfig, RopeScalingConfig
from trainer.pretrained.keys import DAMAGED, Keys, refusal

THETA = 10000.0
"""Where a directory says none."""
KINDS = {kind: kind for kind in ("linear", "dynamic", "llama3", "yarn")} | {"default": "none"}
"""rope_type -> model.rope_scaling.kind."""
OTHERS = "the decoder computes default, linear, dynamic, llama3 and yarn; choose a model that uses one of them"
ORIGINAL = "original_max_position_embeddings"
PARAMETERS, SCALING, OLD_THETA = "rope_parameters", "rope_scaling", "rope_theta"


class Rope(NamedTuple):
    """One form's saying; None: it does not say."""

    theta: float | None
    scaling: RopeScalingConfig | None


def read_rope(keys: Keys, default_positions: int) -> dict[str, Any]:
    """rope_theta, rope_scaling and max_positions. default_positions: where max_position_embeddings is absent."""
    positions = keys.whole("max_position_embeddings", default_positions)
    _turns_whole_heads(keys)
    new, old = _read(keys, PARAMETERS, positions), _read(keys, SCALING, positions)
    apart = keys.number(OLD_THETA, None)
    thetas = {"rope_parameters.rope_theta": new.theta, "rope_scaling.rope_theta": old.theta, OLD_THETA: apart}
    theta = _agreed(thetas)
    scalings = {PARAMETERS: new.scaling, SCALING: old.scaling}
    if SCALING in keys.values and old.scaling is None and new.scaling is not None:
        scalings[SCALING] = RopeScalingConfig()
    scaling = _agreed(scalings) or RopeScalingConfig()
    if scaling.kind in ("dynamic", "yarn"):
        positions = max(positions, round(scaling.original_max_positions * scaling.factor))
    return {"rope_theta": theta or THETA, "rope_scaling": scaling, "max_positions": positions}


def _agreed(said: dict[str, Any]) -> Any:
    """What all that say anything say."""
    told = {key: value for key, value in said.items() if value is not None}
    (first, value), *others = told.items() or [("", None)]
    for key, other in others:
        if other != value:
            rule = f"equal to {key} ({_shown(other)}): transformers 5 follows the first, 4 the second"
            raise refusal(first, _shown(value), rule, "find out which the model was trained with, and remove the other")
    return value


def _shown(value: Any) -> Any:
    """A scaling as the few values that make it."""
    if not isinstance(value, RopeScalingConfig):
        return value
    plain = RopeScalingConfig()
    names = [f.name for f in fields(value) if getattr(value, f.name) != getattr(plain, f.name)]
    return ", ".join(f"{name} {getattr(value, name)}" for name in names) or "none"


def _read(keys: Keys, key: str, positions: int) -> Rope:
    """One form."""
    values = keys.mapping(key)
    if values is None:
        return Rope(None, None)
    inner = Keys(values, f"{key}.")
    theta = inner.number("rope_theta", None)
    if any(type(value) is dict for value in values.values()):
        raise refusal(key, "one for each kind of layer", "one for all layers", OTHERS)
    kinds = [inner.choice(name, KINDS, "default", OTHERS) for name in ("rope_type", "type") if name in values]
    if len(set(kinds)) > 1:
        raise refusal(f"{key}.type", values["type"], f"equal to {key}.rope_type ({values['rope_type']})", DAMAGED)
    _turns_whole_heads(inner)
    if key == PARAMETERS and not kinds and set(values) <= {"rope_theta"}:
        return Rope(theta, RopeScalingConfig() if values else None)
    return Rope(theta, _scaling(inner, kinds[0] if kinds else "none", positions, keys))


def _scaling(inner: Keys, kind: str, positions: int, outer: Keys) -> RopeScalingConfig:
    if kind == "none":
        return RopeScalingConfig()
    if kind == "linear":
        return RopeScalingConfig(kind, inner.number("factor"))
    original = _original(inner, kind, positions, outer)
    if kind == "dynamic":
        return RopeScalingConfig(kind, inner.number("factor"), original)
    if kind == "llama3":
        low, high = inner.number("low_freq_factor"), inner.number("high_freq_factor")
        return RopeScalingConfig(kind, inner.number("factor"), original, low, high)
    scaling = RopeScalingConfig(
        kind,
        inner.number("factor", None) or positions / original,
        original,
        beta_fast=inner.number("beta_fast", 32.0),
        beta_slow=inner.number("beta_slow", 1.0),
        mscale=inner.number("mscale", None),
        mscale_all_dim=inner.number("mscale_all_dim", None),
        truncate=inner.flag("truncate", True),
    )
    stated = inner.number("attention_factor", None)
    return scaling if stated in (None, attention_factor(scaling)) else replace(scaling, attention_factor=stated)


def _turns_whole_heads(keys: Keys) -> None:
    if (share := keys.number("partial_rotary_factor", 1.0)) != 1.0:
        raise refusal(f"{keys.prefix}partial_rotary_factor", share, "1: whole heads are turned", OTHERS)


def _original(inner: Keys, kind: str, positions: int, outer: Keys) -> int:
    """Context of the pretrained model. For dynamic scaling transformers looks at max_position_embeddings alone."""
    said: dict[str, Any] = {"max_position_embeddings": positions} if kind == "dynamic" else {}
    for keys in (inner, outer):
        said[keys.prefix + ORIGINAL] = keys.whole(ORIGINAL, None)
    found: int = _agreed(said) or positions
    return found


def write_rope(model: ModelConfig) -> dict[str, Any]:
    """Both forms, and max_position_embeddings.

    transformers 4.48 takes the original context of dynamic and yarn from max_position_embeddings, 5 that of dynamic
    too: there the two are equal, and readers multiply by the factor.
    """
    scaling, positions = model.rope_scaling, model.max_positions
    if scaling.kind in ("dynamic", "yarn"):
        positions = scaling.original_max_positions
    said = _written(scaling)
    return {
        "max_position_embeddings": positions,
        OLD_THETA: float(model.rope_theta),
        SCALING: said or None,
        PARAMETERS: {"rope_type": "default", **said, "rope_theta": float(model.rope_theta)},
    }


def _written(scaling: RopeScalingConfig) -> dict[str, Any]:
    if scaling.kind == "none":
        return {}
    said: dict[str, Any] = {"rope_type": scaling.kind, "factor": float(scaling.factor)}
    if scaling.kind == "llama3":
        said |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
    if scaling.kind in ("llama3", "yarn"):
        said[ORIGINAL] = scaling.original_max_positions
    if scaling.kind != "yarn":
        return said
    said |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
    # 4.48 knows no mscale: it is told what follows from it.
    said["attention_factor"] = attention_factor(scaling)
    mscales = {"mscale": scaling.mscale, "mscale_all_dim": scaling.mscale_all_dim}
    said |= {name: value for name, value in mscales.items() if value is not None}
    return said if scaling.truncate else {**said, "truncate": False}
