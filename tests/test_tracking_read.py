"""Files of a run read alike whether an earlier version wrote their times or this one."""

import pandas as pd
import pytest

from hmm_exp.tracking.read import read_regimes
from tests.small_detector import candidate, forget_store, shown_regimes, small_detector, store_in


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for the module: making it takes seconds."""
    yield store_in(tmp_path_factory.mktemp("store"))
    forget_store()


def test_times_with_and_without_a_zone_are_the_same_times(store):
    rows = shown_regimes()
    texts = {form: rows["available_at"].dt.strftime(form) for form in ("%F %T", "%FT%TZ")}
    ours, theirs = (
        read_regimes(
            store.client,
            candidate(store, small_detector(), regimes=rows.assign(available_at=text)),
        )
        for text in texts.values()
    )
    pd.testing.assert_frame_equal(ours, theirs)
    assert list(ours.index) == list(rows["available_at"])
