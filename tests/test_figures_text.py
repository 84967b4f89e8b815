"""Texts of figures: they stay in the figure, apart, and whole while there is room."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hmm_exp import figures
from hmm_exp.figures import scales, style
from hmm_exp.figures.judged import cumulative_gain, residuals
from hmm_exp.figures.monitor import monitor
from hmm_exp.figures.text import SEPARATOR, SMALLEST, fit_all, fit_block, fit_row, width, write
from tests.test_figures import (
    FEATURES,
    HOUR,
    START,
    assert_texts_are_apart,
    drawn,
    grid_table,
    market,
    posterior,
    returns_table,
    sticky,
    sweep_table,
    texts,
)
from tests.test_figures_monitor import frames

SUBJECTS = {
    "usual": "BINANCE_BTCUSDT.P 1H, v1, diag",
    "words": "a perpetual future of one exchange " * 9 + "daily",
    "one word": "perpetual_future_" * 20 + "daily",
}


def long_labels(n_states):
    return tuple(f"volatility-{k + 1} above VWAP, falling volume" for k in range(n_states))


def long_features(n):
    return [f"{name}_over_a_very_long_lookback_in_days" for name in FEATURES[:n]]


def every_figure(n_states, names, features, subject):
    """All figures of `n_states` states; `names` are their labels."""
    time, close, states = market(n_states, 3_000)
    splits = {"train": time[0], "val": time[2_000], "test": time[2_500]}
    means = np.linspace(-1, 2, n_states)[:, None] * np.linspace(0.2, 1, len(features))
    rng = np.random.default_rng(0)
    histories = [-100.0 / np.arange(1, n + 2) for n in (40, 60, 5)]
    space = {"v1 1H": f"{features[0]} and more 1H", "v2 1H": features[0]}
    sweep = sweep_table(n_states).replace({"space": space})
    months = START + 30 * 24 * HOUR * np.arange(5)
    walked = np.repeat(means[None], 5, axis=0) + 0.1 * rng.standard_normal((5, *means.shape))
    course = {name: rng.normal(0, 1, len(time)) for name in ("static", "EWMA")}
    pseudo = {name: rng.standard_t(3, 500) for name in [*features[:5], "next_return"]}
    matrix, probs = sticky(n_states), posterior(states, n_states)
    say = {"subject": subject}
    yield figures.price(time, close, states, names, splits=splits, **say)
    yield figures.probabilities(time, probs, names, splits=splits, **say)
    yield figures.recovered(time, states, states, names, **say)
    yield figures.transition_matrix(matrix, names, bar="1H", **say)
    for unit in ("z", "raw"):
        yield figures.state_means(means, 1 + 0 * means, features, names, unit=unit, **say)
    yield figures.dwell_times(states, matrix, names, **say)
    yield figures.next_bar_return(returns_table(n_states), names, **say)
    yield figures.criteria(grid_table(n_states), chosen=n_states, **say)
    yield figures.convergence(histories, polished=[True, True, False], **say)
    yield figures.bic_by_space(sweep, winner=(space["v1 1H"], "diag", 2), **say)
    dwell = rng.uniform(5, 500, (5, n_states))
    agreement = np.array([np.nan, 0.99, 0.98, 0.995, 1.0])
    walk = {"agreement": agreement, "refused": agreement < 0.985, "bar": "1H"}
    yield figures.drift(months, walked, dwell, features, names, **walk, **say)
    yield cumulative_gain(time, course, splits=splits, **say)
    yield residuals(pseudo, **say)
    yield monitor(*frames(n_states, 500, peak=40.0), names, **say)


def room_beside(text, figure):
    """Free pixels right of a text, up to the next text of its line or the figure's edge."""
    box = text.get_window_extent()
    others = [other.get_window_extent() for other in texts(figure) if other is not text]
    line = [b.x0 for b in others if b.y0 < box.y1 and b.y1 > box.y0 and b.x0 >= box.x1]
    return min([*line, figure.bbox.x1]) - box.x1


@pytest.mark.parametrize(
    ("n_states", "subject"), [(1, "words"), (2, "usual"), (3, "one word"), (8, "words")]
)
def test_long_names_stay_in_the_figure_and_are_whole_while_there_is_room(n_states, subject):
    names, features = long_labels(n_states), long_features(6)
    for figure in every_figure(n_states, names, features, SUBJECTS[subject]):
        assert_texts_are_apart(figure)
        for text in texts(figure):
            if "…" in text.get_text():
                assert text.get_fontsize() <= 8, text.get_text()
                if text in figure.texts and text.get_ha() == "left":
                    assert room_beside(text, figure) < 60, text.get_text()


@pytest.mark.parametrize("n_states", [2, 3])
def test_names_of_usual_length_are_never_cut(n_states):
    names = tuple(f"vol-{k + 1} above VWAP" for k in range(n_states))
    for figure in every_figure(n_states, names, FEATURES[:6], SUBJECTS["usual"]):
        assert_texts_are_apart(figure)
        assert not [text.get_text() for text in texts(figure) if "…" in text.get_text()]


def ink(text, **style):
    """Darkness of the pixels of a drawn text, from the top, and its box in rows and columns."""
    figure = Figure(figsize=(2, 1), dpi=100)
    canvas = FigureCanvasAgg(figure)
    write(figure, 0.5, 0.5, text, **style)
    canvas.draw()
    box = figure.texts[0].get_window_extent()
    return 255 - np.asarray(canvas.buffer_rgba())[..., 0], [*box.intervaly, *box.intervalx]


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("va", ["top", "center", "center_baseline", "bottom"])
@pytest.mark.parametrize("ha", ["left", "center"])
def test_a_text_lies_at_its_anchor_and_fills_its_box(ha, va, rotation):
    dark, (low, high, left, right) = ink("HHH", ha=ha, va=va, rotation=rotation)
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    inked = [100 - rows[-1] - 1, 100 - rows[0], columns[0], columns[-1] + 1]
    inside = (inked - np.array([low, high, left, right])) * [1, -1, 1, -1]
    assert ((inside >= 0) & (inside <= 2)).all()
    across, up = {"left": left - 100, "center": (left + right) / 2 - 100}[ha], (low + high) / 2 - 50
    assert abs(across) <= 4
    assert np.sign(round(up / 3)) == {"top": -1, "bottom": 1}.get(va, 0)


def test_a_text_is_upright_and_turns_to_the_left():
    dark, _ = ink("L")
    rows, columns = dark[dark.any(axis=1)] > 0, dark[:, dark.any(axis=0)] > 0
    assert rows[-1].sum() > rows[0].sum()
    assert columns[:, 0].sum() > columns[:, -1].sum()
    dark, _ = ink("L", rotation=90)
    columns = dark[:, dark.any(axis=0)] > 0
    assert columns[:, -1].sum() > columns[:, 0].sum()


def test_a_text_becomes_smaller_then_wraps_and_is_cut_only_then():
    sizes = ((9, 1), (8, 2))
    parts = ["Close by decided regime", "most frequent of 30 bars per pixel"]
    whole = SEPARATOR.join(parts)
    assert fit_block(parts, sizes, width(whole, 9)) == ([whole], 9)
    assert fit_block(parts, sizes, width(whole, 8)) == ([whole], 8)
    assert fit_block(parts, sizes, width(whole, 8) - 1) == (parts, 8)
    lines, _ = fit_block([*parts, "x" * 90], sizes, 420)
    assert "".join(lines).count("…") == 1
    assert lines[0].startswith(parts[0])
    assert all(width(line, 8) <= 420 for line in lines)


@pytest.mark.parametrize("room", [1.0, 40.0, 200.0, 400.0])
def test_names_have_a_common_size_and_only_the_longest_are_cut(room):
    names = ["calm", "turbulent and rising", "turbulent and falling"]
    for (short, points), wide in (
        (fit_all(names, 9, room), lambda s, p: max(width(name, p) for name in s)),
        (fit_row(names, 9, room, 0), lambda s, p: sum(width(name, p) for name in s)),
    ):
        cut = [name for name in short if "…" in name]
        assert wide(short, points) <= room or set(short) == {"…"}
        assert points == SMALLEST or not cut
        kept = max((len(name) for name in short if name not in cut), default=0)
        assert all(len(name) >= kept for name in cut)


@pytest.mark.parametrize("days", [0.3, 1, 9, 40, 150, 200, 400, 3_000])
@pytest.mark.parametrize("room", [330, 410, 896])
def test_labels_of_a_time_axis_are_apart_and_more_than_one(days, room):
    at, names = style.time_ticks(START, START + int(days * 24 * HOUR), room)
    assert len(at) >= 2
    places = (at - START) / (days * 24 * HOUR) * room
    assert (np.diff(places) > max(width(name, 9) for name in names)).all()


@pytest.mark.parametrize("ends", [(100, 130), (5.0, 5.2), (1, 2), (3, 1e6), (0.01, 0.0101)])
def test_a_number_axis_has_more_than_one_label(ends):
    assert len(scales.log_ticks(*ends, 4)) >= 2
    assert len(scales.round_ticks(*ends, 4)) >= 2


def test_drift_of_steady_fits_shows_its_own_scale():
    time = START + 24 * HOUR * np.arange(4)
    steady = np.array([[120.0, 125.0], [121.0, 126.0], [120.0, 125.0], [122.0, 124.0]])
    agreement = np.array([np.nan, 0.9995, 0.9999, 1.0])
    means = np.repeat(np.array([[[0.0], [1.0]]]), 4, axis=0)
    figure = figures.drift(time, means, steady, ["x"], ["calm", "wild"], agreement=agreement)
    shown = [text.get_text() for text in texts(figure)]
    assert sum(text.endswith(" %") for text in shown) >= 2
    assert sum(text in {"120", "121", "122", "124", "126"} for text in shown) >= 2
    dots = [np.asarray(c.get_offsets()) for c in drawn(figure, PathCollection)]
    (course,) = [points for points in dots if len(points) == 3]
    assert np.ptp(course[:, 1]) > 20
    endless = figures.drift(
        time, means, np.full((4, 2), np.inf), ["x"], ["calm", "wild"], agreement=agreement
    )
    assert any("8 longer at the edge" in text.get_text() for text in texts(endless))


@pytest.mark.parametrize("beyond", [0, 3])
def test_residuals_beyond_the_panel_are_counted(beyond):
    z = np.random.default_rng(0).uniform(-3, 3, 1_000)
    z[:beyond] = [6.0, -9.0, np.inf][:beyond]
    z[-1] = np.nan
    shown = [text.get_text() for text in texts(residuals({"next_return": z}))]
    assert (f"next_return{SEPARATOR}3 beyond ±4.5" in shown) == (beyond == 3)


@pytest.mark.parametrize("peak", [0.02, 0.9, 30.0, 5_000.0])
def test_the_control_charts_use_their_panel_and_count_what_is_outside(peak):
    rows, bars = frames(2, peak=peak)
    figure = monitor(rows, bars, ("calm", "turbulent"))
    (title,) = [t for t in texts(figure) if t.get_text().startswith("charts / thresholds")]
    heights = [line.get_ydata() for line in drawn(figure, Line2D)[-2:]]
    low, high = min(y.min() for y in heights), max(y.max() for y in heights)
    assert high - low > 0.1 * 116
    assert high < title.get_position()[1]
    outside = sum(
        int((frame[name] > 100).sum())
        for frame, name in ((rows, "log_lik_chart"), (bars, "score_chart"))
    ) + sum(int((rows[f"p_state_{k}_chart"] > 100).sum()) for k in range(2))
    assert (f"{outside:,} values above 100 at the edge" in title.get_text()) == (outside > 0)


def test_likelihoods_below_the_axis_are_counted():
    rows, bars = frames(2, n_rows=1_000)
    assert not [t for t in texts(monitor(rows, bars, ("a", "b"))) if "below" in t.get_text()]
    rows.iloc[400:405, rows.columns.get_loc("log_lik")] = -4_000.0
    rows.iloc[700, rows.columns.get_loc("log_lik")] = -np.inf
    shown = [t.get_text() for t in texts(monitor(rows, bars, ("a", "b")))]
    assert f"log-likelihood, nats per bar{SEPARATOR}1 below the axis, 1 impossible" in shown


def test_a_left_out_null_is_named():
    table = pd.DataFrame({"space": "v1 1H", "covariance": "diag"} | dict(grid_table(4)))
    note = "one state, far above, is not drawn"
    assert any(note in t.get_text() for t in texts(figures.bic_by_space(table)))
    without = table[table["n_states"] > 1]
    assert not any(note in t.get_text() for t in texts(figures.bic_by_space(without)))
    lowest = table.assign(bic=table["bic"].where(table["n_states"] > 1, table["bic"].min() - 5.0))
    assert not any(note in t.get_text() for t in texts(figures.bic_by_space(lowest)))


@pytest.mark.parametrize("room", [60, 90, 120])
@pytest.mark.parametrize("name", ["high_low_range_pct_current_1H", "vwap_of_the_previous_day_4H"])
def test_a_long_name_wraps_only_after_an_underscore(name, room):
    lines, _ = fit_block([name], ((8, 1), (8, 9)), room)
    assert "".join(lines) == name
    assert len(lines) > 1
    assert all(line.endswith("_") for line in lines[:-1])


@pytest.mark.parametrize("ends", [(-476, 816), (-2.6, 1.9), (0, 19.9), (95, 100), (-0.7, 0.31)])
def test_an_axis_has_three_labels_or_more(ends):
    ticks = scales.round_ticks(*ends, 3)
    assert 3 <= len(ticks) <= 7
    assert ticks[0] >= ends[0]
    assert ticks[-1] <= ends[1]


@pytest.mark.parametrize("longest", [75, 110, 680])
def test_lengths_of_visits_have_labels_without_a_hole(longest):
    states = np.repeat([0, 1, 0, 1], [longest, longest, 3, 4])
    figure = figures.dwell_times(states, sticky(2, 0.9), ("calm", "turbulent"))
    x = [float(t.get_text()) for t in texts(figure) if t.get_text().replace(",", "").isdigit()]
    steps = np.diff(x[1 : x.index(1.0, 1)] if 1.0 in x[1:] else x[1:])
    assert len(steps)
    assert steps == pytest.approx(steps[0])


@pytest.mark.parametrize("gain", [0.0, 1e-7])
def test_a_gain_that_is_shown_as_zero_has_no_best_week(gain):
    time = START + HOUR * np.arange(2_000)
    splits = {"train": int(time[0]), "test": int(time[500])}
    figure = cumulative_gain(time, {"static": np.full(2_000, gain)}, splits=splits)
    assert not any("best week" in text.get_text() for text in texts(figure))
    figure = cumulative_gain(time, {"static": np.full(2_000, 0.01)}, splits=splits)
    assert any("best week" in text.get_text() for text in texts(figure))


@pytest.mark.parametrize("longest", [2, 5, 400])
def test_visits_fill_their_panel_however_short_they_are(longest):
    lengths = np.random.default_rng(0).integers(1, longest + 1, 4_000)
    states = np.repeat(np.arange(4_000) % 2, lengths)
    figure = figures.dwell_times(states, sticky(2, 0.999), ("calm", "turbulent"))
    assert_texts_are_apart(figure)
    dots = [line.get_ydata() for line in drawn(figure, Line2D) if line.get_marker() == "o"]
    assert all(np.ptp(y) > 50 for y in dots)
