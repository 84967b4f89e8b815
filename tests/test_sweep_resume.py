"""A sweep that goes on says what is no longer as it was when it began."""

import pytest

from hmm_exp.market.synthetic import make_market
from hmm_exp.sweep.resume import _differs
from hmm_exp.tracking import tags
from tests.test_train_cli import SMALL, runs_of, store_of

BEGAN = "python -m hmm_exp.train -m model.n_states=2,3 data.path='my bars.csv' features=v1"


@pytest.mark.parametrize(
    ("now", "differs"),
    [
        ("hmm-train -m features=v1 model.n_states=3,2", ""),
        (f"{BEGAN} quiet=true compute=joblib compute.workers=2 tracking.patience=9 gate=off", ""),
        (f"{BEGAN} hydra.launcher.timeout_min=9 sweep.cell_timeout=60 cache=false", ""),
        (BEGAN.replace("2,3", "2,3,4"), "model.n_states"),
        (f"{BEGAN} model.tol=0.1 ~experiment", "model.tol, ~experiment"),
        ("hmm-train -m model.n_states=2,3", "features"),
        (BEGAN[:40] + "=[2", "words"),
        (f"{BEGAN} model.tol=interval(0,1)", "model.tol"),
        (f"{BEGAN} model.tol=range(0,1,0)", "words"),
    ],
)
def test_commands_differ_in_what_can_change_a_cell(now, differs):
    assert _differs(BEGAN, now) == differs


def write_bars(folder, seed: int) -> None:
    frame = make_market(n_bars=2500, n_regimes=3, seed=seed).frame
    frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)).to_csv(
        folder / "bars.csv", index=False
    )


def test_going_on_with_another_command_or_other_data_is_said(train_cli, workdir):
    bars = ("data=bars", "data.path=bars.csv", "data.bar_stamp=open", "promote=false", *SMALL[1:])
    write_bars(workdir, seed=7)
    first = train_cli(workdir, "-m", "model.n_states=2,3", *bars)
    assert first.returncode == 0, first.stderr
    client = store_of(workdir)
    (parent,) = runs_of(client, "sweep")
    sweep_id, command = (parent.data.tags[name] for name in (tags.SWEEP_ID, tags.COMMAND))
    again = ("-m", *bars, f"sweep_id={sweep_id}")
    # as of a process that is killed after it recorded a bundle
    left = workdir / "mlruns" / "sweeps" / sweep_id / "pending"
    (left / runs_of(client, "cell")[0].data.tags[tags.FINGERPRINT] / "artifacts").mkdir(
        parents=True
    )
    same = train_cli(workdir, *again, "model.n_states=3,2", "--quiet")
    assert same.returncode == 0, same.stderr
    assert "warning" not in same.stderr
    assert not left.exists()
    write_bars(workdir, seed=8)
    other = train_cli(workdir, *again, "model.n_states=4")
    (old,) = {run.data.tags[tags.DATA_DIGEST] for run in runs_of(client, "cell")[:2]}
    new = runs_of(client, "cell")[-1].data.tags[tags.DATA_DIGEST]
    warnings = [line for line in other.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        f'warning: sweep {sweep_id} began as "{command}": cells of both commands count '
        "(they differ in model.n_states)",
        f"warning: the data changed since sweep {sweep_id} began (digest {old[:8]} → {new[:8]}): "
        "with cells of both data it has no winner, restore the file or start a new sweep",
    ]
    assert client.get_run(parent.info.run_id).data.tags[tags.N_CELLS] == "1"
