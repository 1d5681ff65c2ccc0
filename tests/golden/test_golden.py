"""Every public result is what it was in version 0.1, but for changes that the CHANGELOG names.

Deleted when the library has its new house; `python -m tests.golden.results` writes the file.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden.results import FILE, everything

# Results whose values were changed on purpose: see CHANGELOG.md.
CHANGED = {"world.name_modes.high", "world.name_modes.low"}


@pytest.mark.slow
def test_every_result_is_as_before() -> None:
    found = everything()
    with np.load(FILE) as kept:
        before = {name: kept[name] for name in kept.files if name not in CHANGED}
    assert not before.keys() - found.keys()
    for name, old in before.items():
        new = found[name]
        if old.dtype.kind in "fc" or "_sum" in name:  # sums in whole words of rounded floats
            reach = 1e-5 * np.abs(old[np.isfinite(old)].astype(float)).max(initial=0)
            np.testing.assert_allclose(new, old, rtol=1e-5, atol=reach, err_msg=name)
        else:
            np.testing.assert_array_equal(new, old, err_msg=name)
