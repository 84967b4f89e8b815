"""What a user sees in MLflow's UI after a sweep, in a real browser.

Screenshots are kept in $SCREENSHOTS, else in pytest's temporary folder.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from hmm_exp.tracking.ui import history_key

pytestmark = pytest.mark.slow
SWEEP = ("-m", "features=v1,v2", "model.n_states=2", "data.n_bars=6000", "model.n_init=1")
SHOWN_GAIN = re.compile(r"-?\d+(\.\d{1,2})?")  # millinats
NO_ASSISTANT = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"


@pytest.fixture(scope="module")
def swept(browser, train_cli, empty_store, tmp_path_factory):
    """A folder with a finished sweep, and what the sweep printed."""
    folder = tmp_path_factory.mktemp("ui")
    shutil.copy(empty_store, folder / "mlflow.db")
    done = train_cli(folder, *SWEEP, "tracking.figures=false")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def address(swept):
    """Where the UI of that folder is served, for as long as the module runs."""
    folder, _ = swept
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "mlflow"), "ui", "--host", "127.0.0.1"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    server = subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"],
        cwd=folder,
        env=clean
        | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/health", within=120)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # it has nothing to save, and its workers may linger
        server.wait(30)


@pytest.fixture(scope="module")
def page(browser, address):
    """One page of the browser."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(60_000)
    page.add_init_script(NO_ASSISTANT)
    return page


@pytest.fixture(scope="module")
def client(swept):
    return MlflowClient(f"sqlite:///{swept[0]}/mlflow.db")


@pytest.fixture(scope="module")
def link(swept, address):
    """The link that the sweep printed, at the port of this test."""
    printed = re.search(r"http://127.0.0.1:5000(/#/\S+)", swept[1])
    assert printed, swept[1]
    return address + printed.group(1)


@pytest.fixture
def shot(page, request, tmp_path_factory):
    """Keep a picture of the page under the test's name."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.getbasetemp() / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    yield
    page.wait_for_timeout(500)  # charts move into place
    page.screenshot(path=folder / f"{request.node.name}.png")


def _wait_for(url: str, within: float) -> None:
    until = time.monotonic() + within
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert time.monotonic() < until, f"{url} does not answer"
            time.sleep(0.3)


def parent_of(client):
    runs = client.search_runs(["1"], filter_string="tags.kind = 'sweep'")
    return runs[0]


@pytest.mark.usefixtures("shot")
def test_the_printed_link_opens_the_table_of_the_sweep(page, link):
    page.goto(link)
    for cell in ("v1@1H diag K=2", "v2@1H diag K=2"):
        page.get_by_role("link", name=cell).first.wait_for()
    heads = page.get_by_role("columnheader").all_inner_texts()
    for column in ("rank", "return_gain_val_mnat", "n_states", "bic", "ewma_gain_val_mnat"):
        assert any(column in head for head in heads), heads
    page.get_by_text("Sort: rank").wait_for()
    assert page.get_by_text("2 matching runs").is_visible()


@pytest.mark.usefixtures("shot")
def test_the_table_has_the_winner_first_short_gains_and_the_dataset(page, link, client):
    page.set_viewport_size({"width": 2600, "height": 1000})  # the table makes no cell out of sight
    page.goto("about:blank")
    page.goto(link)
    page.get_by_text("1 winner").wait_for()

    def column(name: str) -> list[str]:
        """Texts of a column, from the top."""
        cells = page.locator(f'[role=gridcell][col-id*="{name}"]')
        tops = [
            (box["y"], cell.inner_text()) for cell in cells.all() if (box := cell.bounding_box())
        ]
        return [text.strip() for _, text in sorted(tops)]

    assert column("rank") == ["1 winner", "2"]
    winner = client.get_run(parent_of(client).data.tags["winner"])
    gains = column("return_gain_val_mnat")
    assert gains[0] == f"{1000 * winner.data.metrics['return_gain_val']:.2f}".rstrip("0").rstrip(
        "."
    )
    for text in [*gains, *column("ewma_gain_val_mnat")]:
        assert SHOWN_GAIN.fullmatch(text), text
    digest = winner.data.tags["data_digest"]
    page.get_by_text(f"({digest[:7]}").first.wait_for()
    page.set_viewport_size({"width": 1600, "height": 1000})


@pytest.mark.usefixtures("shot")
def test_its_charts_show_what_decides_and_convergence_in_each_space(page, link, client):
    page.goto("about:blank")
    page.goto(link)
    page.get_by_role("link", name="v1@1H diag K=2").first.wait_for()
    page.goto(f"{page.url}&compareRunsMode=CHART")
    page.get_by_text("What decides").first.wait_for()
    for name in ("Parallel Coordinates", "return_gain_val_mnat", "ewma_gain_val_mnat"):
        page.get_by_text(name).first.wait_for()
    for key in history_keys(client).values():
        page.get_by_text(key, exact=True).first.wait_for()


def history_keys(client) -> dict[str, str]:
    """Metric of convergence by the id of the cell's run."""
    cells = client.search_runs(["1"], filter_string="tags.kind = 'cell'")
    return {run.info.run_id: history_key(run.data.tags["observation_space"]) for run in cells}


def test_convergence_is_one_series_by_iteration(client):
    keys = history_keys(client)
    assert len(set(keys.values())) == len(keys) == 2
    for run_id, key in keys.items():
        run, history = client.get_run(run_id), client.get_metric_history(run_id, key)
        steps = [metric.step for metric in history]
        assert steps[0] == 0
        assert steps[-1] == run.data.metrics["n_iter"]
        assert len(steps) == len(set(steps)) <= 50
        assert history[-1].value > history[0].value


def test_settings_that_are_numbers_compare_as_numbers(client):
    for run in client.search_runs(["1"], filter_string="tags.kind = 'cell'"):
        for name in ("model.n_states", "model.tol", "split.train", "features.window"):
            assert float(run.data.params[name]) > 0


@pytest.mark.usefixtures("shot")
def test_the_parent_says_who_won_and_links_there(page, client, address):
    parent = parent_of(client)
    page.goto(f"{address}/#/experiments/1/runs/{parent.info.run_id}?workflowType=machine_learning")
    page.get_by_text("wins:").wait_for()
    page.get_by_text("Show more").click()
    page.get_by_text("wins across 2 spaces").first.wait_for()
    place = page.get_by_role("link", name="its run").get_attribute("href")
    assert place
    page.goto(f"{address}/{place[place.index('#') :]}")
    page.get_by_text(parent.data.tags["winner"]).first.wait_for()


@pytest.mark.usefixtures("shot")
def test_a_cell_says_what_it_is_and_how_to_load_it(page, client, address):
    run_id = parent_of(client).data.tags["winner"]
    page.goto(f"{address}/#/experiments/1/runs/{run_id}?workflowType=machine_learning")
    page.get_by_text("on synthetic (data digest").wait_for()
    page.get_by_text("Show more").click()
    for words in ("over the static Student-t", f"hmm-apply --model runs:/{run_id}"):
        page.get_by_text(words).first.wait_for()
    page.get_by_text("Datasets").first.wait_for()


@pytest.mark.usefixtures("shot")
def test_cells_compare_side_by_side(page, client, address):
    runs = client.search_runs(["1"], filter_string="tags.kind = 'cell'")
    chosen = ",".join(f'"{run.info.run_id}"' for run in runs)
    page.goto(f'{address}/#/compare-runs?runs=[{chosen}]&experiments=["1"]')
    page.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for()
    page.get_by_text("Parallel Coordinates Plot").wait_for()
    page.get_by_text("features.name").first.wait_for()


@pytest.mark.usefixtures("shot")
def test_the_version_says_what_it_is(page, client, address):
    version = client.get_model_version_by_alias("hmm_regime", "production")
    page.goto(f"{address}/#/models/hmm_regime/versions/{version.version}")
    page.get_by_role("link", name=f"run {version.run_id}").wait_for()
    for words in ("return_gain_test_bound", "gain over the static Student-t", "Labels fresh"):
        page.get_by_text(words).first.wait_for()
