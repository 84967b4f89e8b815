"""Files of a run read alike whether an earlier version wrote their times or this one."""

import pandas as pd

from hmm_exp.tracking import read
from hmm_exp.tracking.read import read_regimes, read_scores, read_validation
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


def scores_of(n_rows=6):
    """Scores of train, validation and test, two rows each, as a run stores them."""
    return pd.DataFrame(
        {
            "available_at": pd.date_range("2024-01-01", periods=n_rows, freq="h"),
            "split": ["train", "train", "val", "val", "test", "test"],
            "model_score": range(n_rows),
        }
    )


def recorded(store, tmp_path, status="FINISHED"):
    run = store.client.create_run(store.experiment_id)
    path = tmp_path / "scores.parquet"
    scores_of().to_parquet(path)
    store.client.log_artifact(run.info.run_id, str(path))
    store.client.update_run(run.info.run_id, status=status)
    return store.client.get_run(run.info.run_id)


def test_a_run_and_its_id_have_the_same_scores(store, tmp_path):
    run = recorded(store, tmp_path)
    by_id = read_scores(store.client, run.info.run_id)
    pd.testing.assert_frame_equal(read_scores(store.client, run), by_id)
    assert list(by_id["model_score"]) == list(range(6))


def test_validation_scores_are_read_once_of_a_finished_run(store, tmp_path):
    run = recorded(store, tmp_path)
    found = read_validation(store.client, run)
    assert list(found["model_score"]) == [2, 3]
    assert read_validation(store.client, run) is found


def test_validation_scores_of_a_running_run_are_read_every_time(store, tmp_path):
    run = recorded(store, tmp_path, status="RUNNING")
    found = read_validation(store.client, run)
    again = read_validation(store.client, run)
    assert again is not found
    pd.testing.assert_frame_equal(again, found)


def test_a_run_without_scores_may_get_them_later(store, tmp_path):
    bare = store.client.create_run(store.experiment_id)
    store.client.set_terminated(bare.info.run_id)
    run = store.client.get_run(bare.info.run_id)
    assert read_validation(store.client, run) is None
    scores_of().to_parquet(tmp_path / "scores.parquet")
    store.client.log_artifact(run.info.run_id, str(tmp_path / "scores.parquet"))
    assert len(read_validation(store.client, run)) == 2


def test_only_the_last_runs_are_kept(store, tmp_path, monkeypatch):
    monkeypatch.setattr(read, "_KEPT", 2)
    runs = [recorded(store, tmp_path) for _ in range(3)]
    first, second, _ = (read_validation(store.client, run) for run in runs)
    assert read_validation(store.client, runs[1]) is second
    assert read_validation(store.client, runs[0]) is not first


def test_a_file_of_a_store_on_disk_is_read_in_place(store, tmp_path, monkeypatch):
    run = recorded(store, tmp_path)
    monkeypatch.setattr(read, "download_artifacts", None)
    assert len(read_scores(store.client, run)) == 6


def test_a_run_that_is_gone_has_no_files(store):
    assert read_scores(store.client, "0" * 32) is None
    assert read.read_text(store.client, "0" * 32, "metrics.json") is None


def test_a_file_cut_off_by_a_full_disk_counts_as_lost(store, tmp_path):
    run = recorded(store, tmp_path)
    (tmp_path / "scores.parquet").write_bytes(b"")
    store.client.log_artifact(run.info.run_id, str(tmp_path / "scores.parquet"))
    assert read_scores(store.client, run) is None
