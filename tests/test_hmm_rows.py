"""Questions about rows have the answers of NumPy along the short axis."""

import numpy as np
import pytest

from hmm_exp.hmm.rows import finite_rows, largest_column, missing_rows


@pytest.mark.parametrize("n_columns", [1, 2, 5])
def test_rows_are_complete_missing_and_largest_as_numpy_finds_them(n_columns):
    rng = np.random.default_rng(n_columns)
    rows = rng.integers(0, 4, (300, n_columns)).astype(float)  # with many equal numbers
    np.testing.assert_array_equal(largest_column(rows), rows.argmax(axis=1))
    rows[rng.random(rows.shape) < 0.2] = np.nan
    rows[rng.random(rows.shape) < 0.1] = -np.inf
    before = rows.copy()
    np.testing.assert_array_equal(finite_rows(rows), np.isfinite(rows).all(axis=1))
    np.testing.assert_array_equal(missing_rows(rows), np.isnan(rows).any(axis=1))
    np.testing.assert_array_equal(rows, before)
