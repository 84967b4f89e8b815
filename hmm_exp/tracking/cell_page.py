"""Description of a cell in the MLflow UI: what it is, its figures, its faults, how to load it."""

from collections.abc import Mapping

from hmm_exp.judge.unscored import FORECASTS
from hmm_exp.judge.wording import signed
from hmm_exp.tracking import tags
from hmm_exp.tracking.ui import plain, view_path

_GAINS = {  # by the forecast that the model is compared with
    "static": "return_gain",
    **{name: f"{name}_gain" for name in ("ewma", "range_ewma", "ewma_hour", "range_ewma_hour")},
}
_PARTS = ("val", "test")


def cell_title(experiment_id: str, about: Mapping[str, str]) -> str:
    """The first line of a cell's description: its name, its data, its sweep.

    `about` are the tags of the run.
    """
    title = f"**{plain(about.get(tags.CELL, 'cell'))}**"
    if instrument := about.get(tags.INSTRUMENT):
        title += f" on {plain(instrument)}"
    if digest := about.get(tags.DATA_DIGEST):
        title += f" (data digest {plain(digest)})"
    if sweep_id := about.get(tags.SWEEP_ID):
        title += f", a cell of sweep [{plain(sweep_id)}]({view_path(experiment_id, sweep_id)})"
    return title


def cell_page(
    experiment_id: str, run_id: str, about: Mapping[str, str], metrics: Mapping[str, float]
) -> str:
    """Description of a finished cell in Markdown.

    `about` are the tags of the run; `metrics` are those of its bundle, gains in nats per bar.
    """
    regime = plain(about.get(tags.REGIME_NOW, ""))
    parts = [cell_title(experiment_id, about)]
    parts += [f"**Not eligible**: {plain(faults)}" if (faults := about.get(tags.FAULTS)) else ""]
    parts += [_size(metrics), _gains(metrics), f"{regime[:1].upper()}{regime[1:]}"]
    loads = f'mlflow.pyfunc.load_model("runs:/{run_id}/model").predict(bars)'
    parts += [f"Load it with `{loads}`, or `hmm-apply --model runs:/{run_id} --bars bars.csv`."]
    return "\n\n".join(part for part in parts if part)


def failed_page(experiment_id: str, about: Mapping[str, str], status: str, reason: str) -> str:
    """Description of a cell without a model in Markdown: its status and the reason."""
    log = "`run.log` under Artifacts is the full log."
    return f"{cell_title(experiment_id, about)}\n\n**{status}**: {plain(reason)}\n\n{log}"


def _size(metrics: Mapping[str, float]) -> str:
    """States and criterion in one line."""
    n_states = metrics.get("n_states", 0.0)
    known = [f"{n_states:.0f} state{'s' * (n_states > 1)}"] if n_states else []
    known += [f"BIC {metrics['bic']:.1f}"] if "bic" in metrics else []
    known += [f"{metrics['n_rows_train']:,.0f} train rows"] if "n_rows_train" in metrics else []
    return ", ".join(known)


def _gains(metrics: Mapping[str, float]) -> str:
    """The table of gains; validation chooses, test judges."""
    rows = []
    for forecast, gain in _GAINS.items():
        figures = [_figure(metrics, f"{gain}_{part}") for part in _PARTS]
        if any(figures):
            rows.append(f"| over {FORECASTS[forecast]} | {' | '.join(figures)} |")
    if not rows:
        return ""
    head = "| gain, nats per bar | validation | test |\n|---|---|---|\n"
    return head + "\n".join(rows)


def _figure(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    error = metrics.get(f"{name}_error")
    return signed(metrics[name]) + ("" if error is None else f" ± {error:.4f}")
