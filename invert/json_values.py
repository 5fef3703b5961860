"""What stands for NaN and infinity in JSON, which has no numbers for them? ``null``, in all that the toolkit writes."""

from __future__ import annotations

import math
from typing import Any


def plain(value: Any) -> Any:
    """Give JSON values, at any depth: numbers that are not finite become none, so that a column holds nothing but numbers.

    What a missing number means has to stand beside it: a reason, or how many faces have one.
    """
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
