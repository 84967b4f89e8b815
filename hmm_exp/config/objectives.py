"""What a search can optimise: metrics of a cell that never look at test."""

# Whether a higher value is better, by metric. A cell without a value, a failed one and one with a
# hard fault count as the worst: minus or plus infinity.
_FORECASTS = (
    *("return_gain_val", "ewma_gain_val", "range_ewma_gain_val", "ewma_hour_gain_val"),
    *("range_ewma_hour_gain_val", "added_gain_val", "return_score_val"),
)
_CRITERIA = ("bic", "aic", "hqc", "icl", "cv", "bic_next")
OBJECTIVES = (
    dict.fromkeys(_FORECASTS, True)
    | {"log_lik_val_per_bar": True}
    | dict.fromkeys(_CRITERIA, False)
)
ACROSS_SPACES = _FORECASTS  # the others compare cells of one observation space only


def reads_validation(objective: str) -> bool:
    """Whether a search by this objective reads the bars on which the reality check is made.

    >>> reads_validation("return_gain_val"), reads_validation("bic")
    (True, False)
    """
    return objective not in _CRITERIA
