"""Make every picture of the manual: python docs/tools/make_gallery.py

Runs the sweep of the tutorial, a walk forward and a grid inside one run in a temporary folder.
Copies their figures, draws filtered and smoothed probabilities in one figure, and runs the notebook
on the sweep's winner.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient
from nbclient import NotebookClient
from PIL import Image

import hmm_exp
from hmm_exp.figures import palette, style
from hmm_exp.figures.panels import Sheet, wide
from hmm_exp.figures.style import days, time_range

DOCS = Path(__file__).resolve().parents[1]
GALLERY = DOCS / "images" / "gallery"
NOTEBOOK = DOCS / "notebooks" / "quickstart.ipynb"
SWEEP = "-m model.n_states=2,3,4,5 features=v1,v2,range"
WALK = "split=walk_forward model.n_states=3 split.refit_every=1440"
GRID = "model.state_grid=[2,3,4,5] selection=cv"
BARS_SHOWN = 144


def main() -> None:
    """Make all pictures, and remove those that no run makes any more."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "gallery"
        fresh.mkdir()
        store = f"sqlite:///{folder}/mlflow.db"
        os.environ["MLFLOW_TRACKING_URI"] = store
        client = MlflowClient(store)
        train(folder, SWEEP)
        winner = client.get_model_version_by_alias("hmm_regime", "production").run_id
        parent = client.get_run(winner).data.tags["mlflow.parentRunId"]
        take(client, parent, fresh)
        take(client, winner, fresh)
        for words, names in ((WALK, ("drift.png",)), (GRID, ("criteria.png",))):
            train(folder, words)
            (run,) = client.search_runs(["1"], order_by=["start_time DESC"], max_results=1)
            take(client, run.info.run_id, fresh, only=names)
        detector = hmm_exp.load_detector("models:/hmm_regime/Production")
        run_notebook(folder)
        shutil.rmtree(GALLERY, ignore_errors=True)
        shutil.copytree(fresh, GALLERY)
        shutil.copy(GALLERY / "price.png", DOCS / "images")  # of the README
    figure = filtered_and_smoothed(detector, hmm_exp.make_market())
    store_small(style.save(figure, DOCS / "images" / "filtered_smoothed.png"))


def train(folder: str, words: str) -> None:
    """Run `hmm_exp.train` with these words in a folder."""
    command = [sys.executable, "-m", "hmm_exp.train", *words.split()]
    subprocess.run(command, cwd=folder, check=True)


def take(client: MlflowClient, run_id: str, to: Path, only: tuple[str, ...] = ()) -> None:
    """Copy the figures of a run, or some of them."""
    with tempfile.TemporaryDirectory() as folder:
        for plot in sorted(Path(client.download_artifacts(run_id, "plots", folder)).glob("*.png")):
            if not only or plot.name in only:
                store_small(Path(shutil.copy(plot, to)))


def run_notebook(folder: str) -> None:
    """Run the notebook in a folder and keep the outputs that name no machine."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": folder}}, timeout=300).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if "outputs" in cell:
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    nbformat.write(notebook, NOTEBOOK)


def store_small(path: Path) -> None:
    """Compress a PNG file without loss."""
    with Image.open(path) as picture:
        picture.convert("RGB").save(path, optimize=True)


def filtered_and_smoothed(detector: hmm_exp.Detector, bars: hmm_exp.Bars) -> Figure:
    """Filtered and smoothed probabilities of the same bars, where they differ most."""
    table = detector.observe(bars)
    live, later = detector.filtered(table).probs[:, -1], detector.smoothed(table).probs[:, -1]
    differs = np.convolve(np.abs(live - later), np.ones(24), mode="same")
    middle = int(differs.argmax())
    window = slice(max(0, middle - BARS_SHOWN // 2), middle + BARS_SHOWN // 2)
    time = table.available_at.as_unit("ns").asi8[window]
    label = detector.labels[-1]
    figure = style.new_figure(
        f"Smoothed probabilities see {label} begin hours before filtered ones",
        f"probability of {label} · {BARS_SHOWN} bars of the synthetic market · filtered: bars up "
        f"to each time, smoothed: all bars",
        height=360,
    )
    sheet, ends = Sheet(figure), time_range(time)
    panel = wide(top=260).scaled(tuple(days(np.array(ends))), (-0.03, 1.03))
    colors = (palette.INK, palette.regime_colors(detector.n_states)[-1])
    lines = [panel.at(days(time), series[window]) for series in (live, later)]
    sheet.lines(lines, colors, linewidths=[1.6, 1.6])
    sheet.draw_frames([panel])
    sheet.draw_yticks(panel, (0, 0.5, 1), ("0", "0.5", "1"), points=9)
    sheet.draw_time(panel, *ends, y=20, points=9)
    sheet.name_y(panel, "probability")
    style.add_key(figure, ("filtered: known live", "smoothed: hindsight"), colors)
    return figure


if __name__ == "__main__":
    main()
