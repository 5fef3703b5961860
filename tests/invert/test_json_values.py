from __future__ import annotations

import json
import math

import numpy as np

from invert.json_values import plain


def test_numbers_that_json_has_not_become_none_at_any_depth_and_all_else_stays():
    entries = {
        "a": math.nan,
        "b": [math.inf, (-math.inf, 1.5)],
        "c": {"d": np.float64("nan"), "e": "inf"},
        "f": True,
        "g": None,
    }
    found = plain(entries)
    assert found == {"a": None, "b": [None, [None, 1.5]], "c": {"d": None, "e": "inf"}, "f": True, "g": None}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
