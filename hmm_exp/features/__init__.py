"""From bars to observations: which columns (`recipe`), their values (`kernel`), a table (`build`).

>>> from hmm_exp.features.build import build_features
>>> from hmm_exp.features.recipe import Recipe
>>> table = build_features(bars, Recipe.of_set("v1", ["1H", "4H"]))
>>> table.frame  # index available_at, columns close_logret_current_1H, close_logret_current_4H, ...
"""
