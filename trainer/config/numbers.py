"""Numbers as people write them, and the whole number that they mean: 1e3, 2.0, 1,000, 0x10, 10M."""

from __future__ import annotations

import re
from decimal import Decimal

SUFFIXES = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
LONGEST = 30
"""Digits above which a number is a slip of the finger, and is not spelt out."""


def whole(value: object) -> int | None:
    """The whole number that a value stands for, exactly; None where it stands for none.

    A float is taken as the decimal that Python prints for it: 1e23 is 10**23, though the float is a little less.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip().replace("_", "")
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", text):
        text = text.replace(",", "")
    if re.fullmatch(r"[+-]?0[xXoObB][0-9a-fA-F]+", text):
        try:
            return int(text, 0)
        except ValueError:
            return None
    unit = SUFFIXES.get(text[-1:].lower(), 1)
    try:
        exact = Decimal(text if unit == 1 else text[:-1]) * unit
    except ArithmeticError:  # no number, or beyond any exponent
        return None
    if not exact.is_finite() or exact.adjusted() >= LONGEST or exact != exact.to_integral_value():
        return None
    return int(exact)
