"""A config.json asked key by key: what is missing, of another type or of a value that nothing computes is refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from trainer.errors import ConfigError, Problem

T = TypeVar("T")
REQUIRED: Any = object()
"""In a default's place: the key has to be there."""
DAMAGED = "take config.json as the model's publisher gives it"


def refusal(key: str, value: object, rule: str, remedy: str) -> ConfigError:
    """One key of config.json that cannot be followed."""
    return ConfigError(Problem(key, value, rule, remedy))


class Keys:
    """Typed values of a config.json. A key that is null counts as absent, as in transformers."""

    def __init__(self, values: Mapping[str, Any], prefix: str = "") -> None:
        """prefix: of the keys' names in messages."""
        self.values, self.prefix = values, prefix

    def whole(self, key: str, default: Any = REQUIRED, low: int = 1) -> Any:
        """A whole number, ``low`` or more."""
        value = self._value(key, default)
        if value is default or (type(value) is int and low <= value < 1 << 40):
            return value
        raise refusal(self.prefix + key, value, f"a whole number, {low} or more", DAMAGED)

    def number(self, key: str, default: Any = REQUIRED) -> Any:
        """A finite number above 0."""
        value = self._value(key, default)
        if value is default:
            return value
        if type(value) in (int, float) and 0 < value <= sys.float_info.max:  # an int may be too large for a float
            return float(value)
        raise refusal(self.prefix + key, value, "a finite number above 0", DAMAGED)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._value(key, default)
        if type(value) is not bool:
            raise refusal(self.prefix + key, value, "true or false", DAMAGED)
        return value

    def choice(self, key: str, meanings: Mapping[str, T], default: str, remedy: str) -> T:
        """What one of some words means."""
        value = self._value(key, default)
        if not isinstance(value, str) or value not in meanings:
            raise refusal(self.prefix + key, value, f"one of: {', '.join(meanings)}", remedy)
        return meanings[value]

    def mapping(self, key: str) -> dict[str, Any] | None:
        """An object, or nothing."""
        value = self._value(key, None)
        if value is None or type(value) is dict:
            return value
        raise refusal(self.prefix + key, value, "an object, or null", DAMAGED)

    def only(self, key: str, allowed: object, remedy: str) -> None:
        """Absent, or this value: the decoder computes no other."""
        value = self._value(key, allowed)
        if type(value) is not type(allowed) or value != allowed:
            said = str(allowed).lower() if isinstance(allowed, bool) else allowed
            raise refusal(self.prefix + key, value, f"{said}: the decoder computes nothing else", remedy)

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is REQUIRED:
            raise refusal(self.prefix + key, value, "config.json has this key", DAMAGED)
        return default
