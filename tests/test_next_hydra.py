"""Sweeps with the next version of Hydra, which is fetched for these tests."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_train_cli import SMALL
from tests.warm import environment_of_a_user

NEXT = "hydra-core==1.4.0rc3"  # with the OmegaConf that it asks for


@pytest.fixture(scope="module")
def next_hydra(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("next")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), NEXT]
    done = subprocess.run(command, capture_output=True, text=True)
    if "No matching distribution found" in done.stderr:  # no index is reached, or it has it no more
        pytest.skip(f"no package index has {NEXT}")
    assert done.returncode == 0, done.stderr
    return folder


def sweep(next_hydra: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hmm_exp.train", "-m", *SMALL, *words],
        cwd=folder,
        env=environment_of_a_user(PYTHONPATH=str(next_hydra)),
        capture_output=True,
        text=True,
    )


def test_it_is_the_next_hydra_that_is_used(next_hydra):
    done = subprocess.run(
        [sys.executable, "-c", "import hydra; print(hydra.__version__)"],
        env=environment_of_a_user(PYTHONPATH=str(next_hydra)),
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == NEXT.partition("==")[2]


@pytest.mark.parametrize(
    "words",
    [
        ("model.n_states=2,3", "features=v1,v2"),
        ("hydra/sweeper=optuna", "model.n_states=choice(2,3)", "hydra.sweeper.n_trials=2"),
        ("compute=joblib", "compute.workers=2", "model.n_states=2,3"),
    ],
    ids=["grid", "search", "joblib"],
)
def test_a_sweep_ends_in_its_verdict(next_hydra, tmp_path, words):
    done = sweep(next_hydra, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "believe it?" in done.stdout
    assert "whitelist" not in done.stderr  # what a config may call stays limited
