"""Figures: what they show, that colours agree, that nothing overlaps, that size stays bounded."""

import importlib
import pkgutil
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from hmm_exp import figures
from hmm_exp.figures.behaviour import run_lengths, survival
from hmm_exp.figures.decimate import column_means, majority, regime_lines
from hmm_exp.figures.panels import wide
from hmm_exp.figures.timeline import confusion

HOUR = 3_600_000_000_000
START = 1_609_459_200_000_000_000  # 2021-01-01 UTC
FEATURES = [
    f"{name}_{timeframe}"
    for timeframe in ("1H", "4H", "12H", "1D")
    for name in (
        "close_logret_current",
        "log_volume_delta_current",
        "close_parkinson_20",
        "close_ret_zscore_20",
        "volume_rvol_20",
        "close_over_vwap",
        "close_log_ratio_vwap",
        "high_low_range_pct_current",
        "close_open_pct_current",
    )
]
ALL = (
    "price",
    "probabilities",
    "transition_matrix",
    "state_means",
    "criteria",
    "convergence",
    "dwell_times",
    "next_bar_return",
    "recovered",
    "bic_by_space",
)


def labels(n_states):
    few = {1: ("normal",), 2: ("calm", "turbulent"), 3: ("calm", "normal", "turbulent")}
    return few.get(n_states, tuple(f"vol-{k}" for k in range(n_states)))


def sticky(n_states, stay=0.97):
    rest = (1 - stay) / max(n_states - 1, 1)
    matrix = np.full((n_states, n_states), rest)
    np.fill_diagonal(matrix, stay if n_states > 1 else 1.0)
    return matrix


def market(n_states, n_bars=5_000, seed=0):
    """Time, close and states of a market whose volatility grows with the state."""
    rng = np.random.default_rng(seed)
    runs = rng.geometric(0.03, size=n_bars)
    states = np.repeat(np.arange(n_bars) * 11 % n_states, runs)[:n_bars]
    close = 20_000 * np.exp(np.cumsum(rng.normal(0, 0.003 * (1 + states))))
    return START + HOUR * np.arange(n_bars), close, states


def posterior(states, n_states):
    probs = np.full((len(states), n_states), 0.1 / n_states)
    probs[np.arange(len(states)), states] += 0.9
    return probs


def returns_table(n_states):
    return pd.DataFrame(
        {
            "state": k,
            "split": split,
            "mean": 1e-4 * (k - 1),
            "mean_error": 4e-5,
            "volatility": 0.004 * (k + 1),
        }
        for split in ("train", "test")
        for k in range(n_states)
    )


def grid_table(largest):
    states = np.arange(1, max(largest, 2) + 1)
    bic = 1000.0 * (states - 3) ** 2
    return pd.DataFrame({"n_states": states, "bic": bic, "aic": bic - 9 * states, "icl": bic + 50})


def sweep_table(largest):
    spaces = ("v1 1H", "v2 1H", "v1 4H", "v1v2 multi")
    parts = [
        grid_table(largest).assign(space=space, covariance=covariance)
        for space in spaces
        for covariance in ("diag", "full")
    ]
    return pd.concat(parts, ignore_index=True)


def draw(name, n_states, subject="BINANCE_BTCUSDT.P 1H, v1, diag"):
    """The figure called `name` with typical data of `n_states` states."""
    time, close, states = market(n_states)
    names, matrix = labels(n_states), sticky(n_states)
    splits = {"train": time[0], "val": time[3_500], "test": time[4_250]}
    means = np.linspace(-1, 2, n_states)[:, None] * np.linspace(0.2, 1, 9)
    histories = [-100.0 / np.arange(1, n + 2) for n in (40, 60, 5)]
    arguments = {
        "price": ((time, close, states, names), {"splits": splits}),
        "probabilities": ((time, posterior(states, n_states), names), {"splits": splits}),
        "transition_matrix": ((matrix, names), {"bar": "1H"}),
        "state_means": ((means, 0.3 + 0 * means, FEATURES[:9], names), {"unit": "raw"}),
        "criteria": ((grid_table(n_states),), {"chosen": n_states}),
        "convergence": ((histories,), {"polished": [True, True, False]}),
        "dwell_times": ((states, matrix, names), {}),
        "next_bar_return": ((returns_table(n_states), names), {}),
        "recovered": ((time, states, states, names), {}),
        "bic_by_space": ((sweep_table(n_states),), {"winner": ("v1 1H", "diag", 2)}),
    }
    positional, named = arguments[name]
    return getattr(figures, name)(*positional, **named, subject=subject)


def texts(figure):
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def assert_texts_are_apart(figure):
    """No two texts overlap, and none leaves the figure."""
    figure.canvas.draw()
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts(figure)]
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text
    for (first, a), (second, b) in combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        along = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across <= 0 or along <= 0, f"{first!r} overlaps {second!r}"


LONG = ("vol-0", "vol-1 less above VWAP 4H", "vol-2 more above VWAP 4H", "vol-3 high volume")


@pytest.mark.parametrize("n_states", [2, 3, 4, 8])
def test_labels_with_words_fit_into_the_transition_matrix(n_states):
    names = (*LONG, "vol-4 narrow bars", "vol-5", "vol-6 falling volume", "vol-7 rising volume")
    figure = figures.transition_matrix(sticky(n_states), names[:n_states], bar="1H")
    assert_texts_are_apart(figure)


def drawn(figure, kind):
    """Artists of one kind outside all axes, in the order in which they were added."""
    return [artist for artist in figure.artists if isinstance(artist, kind)]


PANEL = wide()


def is_straight(lines):
    """Whether all points of some lines lie on one straight line."""
    x, y = (np.concatenate([getattr(line, f"get_{a}data")() for line in lines]) for a in "xy")
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    return np.abs(np.polyval(np.polyfit(x, y, 1), x) - y).max() < 1.5


def price_lines(figure):
    return [line for line in drawn(figure, Line2D) if line.get_linewidth() == 1.3]


def colors_in(figure):
    """Every colour of lines, dots, areas and bars, as hex."""
    found = {to_hex(line.get_color()) for line in figure.findobj(lambda a: hasattr(a, "get_xdata"))}
    for kind in (LineCollection, PathCollection, PolyCollection):
        for artist in figure.findobj(kind):
            shown = [*artist.get_facecolor(), *artist.get_edgecolor()]
            found |= {to_hex(color) for color in shown}
    return found


@pytest.mark.parametrize("n_states", range(1, 9))
@pytest.mark.parametrize("name", ALL)
def test_no_text_overlaps_or_leaves_the_figure(name, n_states):
    assert_texts_are_apart(draw(name, n_states))


@pytest.mark.parametrize("unit", ["z", "raw"])
@pytest.mark.parametrize("n_features", [1, 2, 3, 5, 6, 9, 12, 18, 27, 36])
def test_state_means_stay_readable_from_1_to_36_features(n_features, unit):
    rng = np.random.default_rng(1)
    means = rng.normal(size=(8, n_features))
    figure = figures.state_means(means, 1 + 0 * means, FEATURES[:n_features], labels(8), unit=unit)
    assert_texts_are_apart(figure)
    shown = {t.get_text() for t in texts(figure)}
    assert set(FEATURES[:n_features]) <= shown


@pytest.mark.parametrize("n_states", range(1, 9))
def test_a_regime_has_one_colour_in_every_figure(n_states):
    regimes = set(figures.regime_colors(n_states))
    for name in set(ALL) - {"criteria", "convergence", "bic_by_space", "recovered"}:
        assert regimes <= colors_in(draw(name, n_states)), name


def test_the_colour_of_a_label_does_not_depend_on_how_many_states_there_are():
    one, two, three = (figures.regime_colors(k) for k in (1, 2, 3))
    assert two == (three[0], three[2])
    assert one[0] == three[1]


@pytest.mark.parametrize("n_states", range(2, 9))
def test_regimes_get_darker_from_calm_to_turbulent(n_states):
    luma = [np.dot(to_rgb(c), (0.299, 0.587, 0.114)) for c in figures.regime_colors(n_states)]
    assert np.all(np.diff(luma) < -0.005)


def test_price_is_one_line_per_regime():
    lines = price_lines(draw("price", 5))
    assert [line.get_color() for line in lines] == list(figures.regime_colors(5))


def test_a_million_bars_give_a_bounded_number_of_points():
    time, close, states = market(3, n_bars=1_000_000)
    price = figures.price(time, close, states, labels(3))
    assert sum(len(line.get_xdata()) for line in price_lines(price)) <= 3 * 900
    stack = figures.probabilities(time, posterior(states, 3), labels(3))
    (areas,) = drawn(stack, PolyCollection)
    assert len(areas.get_paths()) == 3
    assert max(len(path.vertices) for path in areas.get_paths()) <= 4 * 452


@pytest.mark.parametrize("n_rows", [1, 2, 899, 900, 901, 1_799, 12_345])
def test_decimation_keeps_every_extreme_and_every_column(n_rows):
    rng = np.random.default_rng(n_rows)
    y, states = np.cumsum(rng.normal(size=n_rows)), rng.integers(0, 4, n_rows)
    lines = regime_lines(np.arange(n_rows, dtype=float), y, states, 4)
    drawn = np.concatenate([line[1] for line in lines])
    assert np.nanmin(drawn) == y.min()
    assert np.nanmax(drawn) == y.max()
    size = -(-n_rows // 900)
    assert np.isfinite(drawn).sum() == 2 * -(-n_rows // size)


def test_neighbouring_columns_touch():
    rng = np.random.default_rng(3)
    y = np.cumsum(rng.normal(size=10_000))
    x, drawn = regime_lines(np.arange(10_000.0), y, np.zeros(10_000, dtype=int), 1)[0]
    low, high = drawn[0::3], drawn[1::3]
    assert np.all(low[1:] <= high[:-1])
    assert np.all(low[:-1] <= high[1:])
    assert np.all(np.isnan(x[2::3]))


def test_a_break_leaves_no_stroke_across_it():
    x, y = np.arange(4.0), np.array([1.0, 2.0, 50.0, 51.0])
    breaks = np.array([False, False, True, False])
    _, drawn = regime_lines(x, y, np.zeros(4, dtype=int), 1, breaks=breaks)[0]
    np.testing.assert_array_equal(drawn[6:8], [50.0, 50.0])


def test_columns_hold_means_and_most_frequent_states():
    values = np.array([[0.0], [1.0], [np.nan], [4.0], [np.nan], [np.nan]])
    np.testing.assert_array_equal(column_means(values, 3).ravel(), [0.5, 4.0, np.nan])
    np.testing.assert_array_equal(majority(np.array([0, 1, 1, 2, -1, -1, -1]), 3, 3), [1, 2, -1])


def test_stacked_probabilities_reach_one_and_skip_missing_rows():
    time, _, states = market(3, n_bars=300)
    probs = posterior(states, 3)
    probs[100:200] = np.nan
    (areas,) = drawn(figures.probabilities(time, probs, labels(3)), PolyCollection)
    outer = np.concatenate([path.vertices for path in areas.get_paths()[:2]])
    assert len(areas.get_paths()) == 6
    assert outer[:, 1].max() == pytest.approx(PANEL.bottom + PANEL.height)
    start, end = PANEL.left + PANEL.width * (time[[100, 199]] - time[0]) / (time[-1] - time[0])
    assert not ((outer[:, 0] > start + 1e-6) & (outer[:, 0] < end)).any()


def test_titles_are_computed_from_the_data():
    time, close, _ = market(2, n_bars=1_000)
    states = np.repeat([0, 1], [620, 380])
    title = figures.price(time, close, states, labels(2)).texts[0].get_text()
    assert title == "Calm 62 %, turbulent 38 % of bars"
    title = figures.transition_matrix(np.array([[0.99, 0.01], [0.1, 0.9]]), labels(2)).texts[0]
    assert "calm last longest, 100 bars expected" in title.get_text()
    assert "turbulent shortest, 10.0" in title.get_text()
    title = figures.transition_matrix(np.array([[0.9, 0.1], [0.1, 0.9]]), labels(2)).texts[0]
    assert title.get_text() == "Visits to all states last equally long, 10.0 bars expected"


def test_a_large_price_range_gets_a_log_axis_and_a_small_one_does_not():
    time, _, states = market(2, n_bars=500)
    wide = figures.price(time, np.geomspace(1e-5, 1e-3, 500), states, labels(2))
    narrow = figures.price(time, np.linspace(100, 150, 500), states, labels(2))
    assert is_straight(price_lines(wide))
    assert is_straight(price_lines(narrow))
    assert "log scale" in wide.texts[1].get_text()
    assert "log scale" not in narrow.texts[1].get_text()
    assert_texts_are_apart(wide)


@pytest.mark.parametrize("n_bars", [1, 2, 30, 24 * 40, 24 * 365 * 9])
def test_time_axis_fits_hours_to_years(n_bars):
    time, close, states = market(2, n_bars=n_bars)
    assert_texts_are_apart(figures.price(time, close, states, labels(2)))


def test_splits_are_marked_where_they_start():
    time, close, states = market(2, n_bars=1_000)
    splits = {"train": time[0], "val": time[700], "test": time[850]}
    figure = figures.price(time, close, states, labels(2), splits=splits)
    marks = drawn(figure, LineCollection)[-1]
    at = [segment[0, 0] for segment in marks.get_segments()]
    share = (time[[700, 850]] - time[0]) / (time[-1] - time[0])
    np.testing.assert_allclose(at, PANEL.left + PANEL.width * share)
    assert {"train", "val", "test"} <= {t.get_text() for t in texts(figure)}


def test_transition_numbers_stay_readable_near_one_and_zero():
    matrix = np.array([[0.998, 0.001, 0.001], [0.001, 0.99, 0.009], [0.0, 0.5, 0.5]])
    figure = figures.transition_matrix(matrix, labels(3))
    shown = [t.get_text() for t in texts(figure) if t.get_text().startswith(".")]
    assert shown == [".9980", ".0010", ".0010", ".0010", ".990", ".0090", ".500", ".500"]


def test_transition_matrix_shows_an_absorbing_state_as_endless():
    figure = figures.transition_matrix(np.array([[1.0, 0.0], [0.5, 0.5]]), labels(2))
    assert "∞" in {t.get_text() for t in texts(figure)}
    assert_texts_are_apart(figure)


def test_criteria_ring_the_lowest_and_keep_the_null_from_flattening_the_rest():
    table = pd.DataFrame({"n_states": [1, 2, 3, 4], "bic": [90_000.0, 60.0, 0.0, 40.0]})
    figure = figures.criteria(table, chosen=3)
    assert max(int(t.get_text()) for t in texts(figure) if t.get_text().isdigit()) < 100
    assert any("one state: BIC 90,000 above" in t.get_text() for t in texts(figure))
    assert figure.texts[0].get_text() == "BIC is lowest at 3 states, 40 below 4 states"


@pytest.mark.parametrize("tried", [(2, 4), (2, 3, 4), (2, 4, 5, 8), (2, 3, 7)])
def test_lines_of_criteria_join_only_neighbours_that_were_tried(tried):
    bic = {"n_states": tried, "bic": [10.0 * k for k in tried]}
    sweep = pd.DataFrame(bic | {"space": "v1 1H", "covariance": "diag"})
    for figure in (figures.criteria(pd.DataFrame(bic)), figures.bic_by_space(sweep)):
        curve = drawn(figure, Line2D)[0]
        x, seen = np.asarray(curve.get_xdata()), np.isfinite(curve.get_ydata())
        assert seen.sum() == len(tried)
        joined = np.diff(x)[seen[:-1] & seen[1:]]
        assert len(joined) == (np.diff(tried) == 1).sum()
        assert np.allclose(joined, np.diff(x)[0])


@pytest.mark.parametrize("tried", [(1, 1, 2), (2, 2), (2, 3, 2, 3), (2, 4, 2)])
def test_cells_that_differ_by_another_setting_share_a_line_through_the_lowest(tried):
    bic = 10.0 * np.arange(len(tried), 0, -1)
    sweep = pd.DataFrame({"space": "v1 1H", "covariance": "diag", "n_states": tried, "bic": bic})
    line, dots = drawn(figures.bic_by_space(sweep), Line2D)[:2]
    assert np.isfinite(line.get_ydata()).sum() == len(set(tried))
    assert len(dots.get_xdata()) == len(tried)
    assert np.nanmax(line.get_ydata()) <= max(dots.get_ydata())


def test_criteria_of_a_single_fit_are_shown_beside_one_state():
    table = pd.DataFrame({"n_states": [1, 3], "bic": [900.0, 0.0], "aic": [950.0, 0.0]})
    figure = figures.criteria(table, chosen=3)
    bic, aic = (
        next(line for line in drawn(figure, Line2D) if line.get_gid() == name)
        for name in ("bic", "aic")
    )
    assert np.diff(bic.get_xdata(), 2) == pytest.approx(0)
    (high, low), (higher, _) = (line.get_ydata()[[0, 2]] for line in (bic, aic))
    assert (high - low) / (higher - low) == pytest.approx(900 / 950)
    assert np.isnan(bic.get_ydata()[1])
    assert not any("one state: BIC" in t.get_text() for t in texts(figure))  # not off the axis
    assert figure.texts[0].get_text() == "BIC of 3 states is 900 below one state"


def test_criteria_say_when_another_number_was_chosen_and_when_the_grid_ends():
    table = pd.DataFrame(
        {"n_states": [1, 2, 3], "bic": [99.0, 5.0, 0.0], "eligible": [True, True, False]}
    )
    assert figures.criteria(table, chosen=2).texts[0].get_text().startswith("2 states chosen; ")
    assert figures.criteria(table, chosen=3).texts[0].get_text().endswith("the grid ends there")
    assert "hollow: ineligible" in figures.criteria(table).texts[1].get_text()


def test_convergence_measures_from_the_best_polished_end():
    histories = [[-50.0, -10.0, -9.0], [-40.0, -9.005], [-60.0, -59.0]]
    figure = figures.convergence(histories, polished=[True, True, False])
    assert "2 of 2 polished starts end within 0.01 nat" in figure.texts[0].get_text()
    best = max(drawn(figure, Line2D), key=lambda line: line.get_linewidth())
    first, second = -np.diff(best.get_ydata()[:3])
    assert first / second == pytest.approx(np.log(41.0) / np.log(1e3))


def test_run_lengths_end_at_a_change_and_at_a_gap():
    states = np.array([0, 0, 1, 1, 1, 0, -1, 1])
    steps = np.array([0, 1, 1, 1, 3, 1, 1, 1])
    calm, turbulent = run_lengths(states, 2, steps)
    assert calm.tolist() == [2, 1]
    assert turbulent.tolist() == [2, 1, 1]


def test_survival_counts_visits_at_least_as_long():
    lengths, share = survival(np.array([1, 1, 2, 5]))
    assert lengths.tolist() == [1, 2, 5]
    assert share.tolist() == [1.0, 0.5, 0.25]


def test_survival_of_many_visits_has_a_bounded_number_of_points():
    assert len(survival(np.arange(1, 100_000))[0]) <= 300


def test_next_bar_title_names_states_with_a_significant_mean_everywhere():
    table = returns_table(3)
    title = figures.next_bar_return(table, labels(3)).texts[0].get_text()
    assert (
        title
        == "Mean next-bar return significantly non-zero on train and test: calm (−), turbulent (+)"
    )
    table.loc[table["split"] == "test", "mean_error"] = 1.0
    assert "No state" in figures.next_bar_return(table, labels(3)).texts[0].get_text()


def test_confusion_is_the_share_of_each_planted_regime():
    planted, states = np.array([0, 0, 0, 1, -1]), np.array([0, 0, 1, 2, 0])
    np.testing.assert_allclose(confusion(planted, states, 2, 3), [[2 / 3, 1 / 3, 0], [0, 0, 1]])


def test_more_states_than_planted_are_drawn_too():
    time, _, states = market(5)
    figure = figures.recovered(
        time, np.minimum(states, 2), states, labels(5), planted_labels=labels(3)
    )
    assert_texts_are_apart(figure)
    assert "5 regimes recovered where 3 were planted" in figure.texts[0].get_text()


def test_long_subjects_are_shortened_and_dollar_signs_are_plain_text():
    assert_texts_are_apart(draw("price", 3, subject="$a_b$ " + "very long name " * 20))


def test_sweep_has_one_cell_per_space_with_its_own_zero():
    figure = draw("bic_by_space", 4)
    assert {"v1 1H", "v2 1H", "v1 4H", "v1v2 multi"} <= {t.get_text() for t in texts(figure)}
    assert figure.texts[0].get_text().startswith("Winner: v1 1H with 2 states and diag covariance")
    assert "no eligible winner" in figures.bic_by_space(sweep_table(3)).texts[0].get_text()


def test_save_writes_a_whole_picture_and_nothing_beside(tmp_path):
    path = figures.save(draw("criteria", 3), tmp_path / "criteria.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["criteria.png"]
    assert figures.save(draw("criteria", 3), tmp_path / "criteria.svg").stat().st_size > 0


@pytest.mark.parametrize("name", ["price", "transition_matrix"])
def test_a_saved_picture_holds_the_drawn_pixels(name, tmp_path):
    figure = draw(name, 3)
    with Image.open(figures.save(figure, tmp_path / "figure.png")) as picture:
        assert picture.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(picture), figure.canvas.buffer_rgba())


def test_threads_draw_the_same_pictures_side_by_side(tmp_path):
    def save(place):
        return figures.save(draw(ALL[place % 8], 3), tmp_path / f"{place}.png").read_bytes()

    alone = [save(place) for place in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(save, range(32))] == 4 * alone


def test_a_failed_save_leaves_nothing_behind(tmp_path):
    (tmp_path / "old.svg").write_bytes(b"old")

    class Broken(Figure):
        def savefig(self, fname, **kwargs):
            fname.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        figures.save(Broken(), tmp_path / "old.svg")
    assert [p.name for p in tmp_path.iterdir()] == ["old.svg"]
    assert (tmp_path / "old.svg").read_bytes() == b"old"


def test_every_public_name_is_a_function_whatever_was_imported():
    for module in pkgutil.iter_modules(figures.__path__):
        importlib.import_module(f"hmm_exp.figures.{module.name}")
    assert [name for name in figures.__all__ if not callable(getattr(figures, name))] == []
    assert set(figures.__all__) == set(dir(figures))
