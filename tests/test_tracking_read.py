"""Files of a run read alike whether an earlier version wrote their times or this one."""

import pandas as pd

from hmm_exp.tracking.read import read_regimes
from tests.small_detector import candidate, shown_regimes, small_detector


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
