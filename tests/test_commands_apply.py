"""`scripts/apply_hmm.py` as a user runs it: files, long files in load, a pipe that is killed."""

import gzip
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from hmm_exp.detector.files import RegimeFile, RowStream, apply
from hmm_exp.features.build import build_features
from hmm_exp.features.lookbacks import build_lookbacks, write_lookbacks
from hmm_exp.features.recipe import Recipe
from hmm_exp.market import load
from hmm_exp.market.iso import iso
from hmm_exp.market.load import bar_chunks, feature_chunks
from hmm_exp.market.options import ReadOptions
from tests.live_detector import SHORT, gappy_bars, live_detector, part

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "apply_hmm.py"
RECIPE = Recipe.of_set("v1v2", ["1H", "4H"], **SHORT)
main = runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture(scope="module")
def detector():
    return live_detector(RECIPE)


@pytest.fixture(scope="module")
def bars():
    return gappy_bars(1500)


@pytest.fixture(scope="module")
def expected(detector, bars):
    """The regimes that `filter` gives for the bars."""
    return detector.filter(bars)


@pytest.fixture
def folder(detector, bars, tmp_path):
    """A model and new bars as a user has them."""
    detector.save(tmp_path / "detector.json")
    bars.frame.to_csv(tmp_path / "new.csv", index=False)
    return tmp_path


@pytest.fixture
def followed(folder, monkeypatch, capsys):
    """Status, output and complaints of a pipe, in this process."""

    def follow(text: str, *words) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        status = main(["--model", ".", "--follow", *words])
        return status, *capsys.readouterr()

    return follow


def read(path) -> pd.DataFrame:
    frame = pd.read_csv(path)
    for name in ("timestamp", "available_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True).dt.as_unit("ns")
    return frame


def assert_same(ours: pd.DataFrame, theirs: pd.DataFrame):
    theirs = theirs.reset_index(drop=True).astype({"label": ours["label"].dtype})
    pd.testing.assert_frame_equal(ours.reset_index(drop=True), theirs, check_exact=True)


def test_bars_in_regimes_out(folder, expected):
    command = [sys.executable, str(SCRIPT), "--model", ".", "--bars", "new.csv"]
    command += ["--output", "regimes.csv", "--latest"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_same(read(folder / "regimes.csv"), expected)
    newest = json.loads(done.stdout)
    last = expected.iloc[-1]
    assert newest["p_state_0"] == last["p_state_0"]
    assert newest["label"] == last["label"]
    assert pd.Timestamp(newest["available_at"]) == last["available_at"]
    since = expected["available_at"][expected["state"].diff().ne(0)].iloc[-1]
    assert pd.Timestamp(newest["since"]) == since
    regime_since = expected["available_at"][expected["regime"].diff().ne(0)].iloc[-1]
    assert pd.Timestamp(newest["regime_since"]) == regime_since
    assert newest["regime"] == last["regime"]
    assert newest["in_training"] is False
    first, last_line = done.stderr.splitlines()  # no progress in a pipe
    assert first.startswith("new.csv: 1,395 rows, 1H, 2021-03-01 to 2021-05-02; ")
    assert last_line == "regimes.csv: 1,348 rows written from 1,395 rows read"


def test_what_was_read_and_a_doubtful_last_bar_are_on_standard_error(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    frame = pd.read_csv("new.csv")
    volume = next(name for name in frame if name.lower() == "volume")
    frame.loc[frame.index[-1], volume] = 0.01
    frame.to_csv("open.csv", index=False)
    assert main(["--model", ".", "--bars", "open.csv", "--latest"]) == 0
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("open.csv: 1,395 rows, 1H, ")
    assert last.endswith("has 0 % of its hour's usual volume: it may not be closed yet")


def test_of_a_long_file_the_line_describes_the_first_part(folder, bars, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(load, "bar_chunks", partial(bar_chunks, block=40_000))
    assert main(["--model", ".", "--bars", "new.csv", "--latest"]) == 0
    assert re.match(r"new\.csv \(first \d+%\): \d+ rows, 1H, ", capsys.readouterr().err)


def test_a_feature_table_gives_the_same_regimes(folder, bars, expected, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    build_features(bars, RECIPE).write(folder / "v1.csv")
    words = "--model . --features-csv v1.csv --output regimes.csv"
    assert main(words.split()) == 0, capsys.readouterr().err
    assert_same(read(folder / "regimes.csv"), expected)


def test_lookbacks_give_the_newest_regime(folder, bars, expected, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "lookbacks").mkdir()
    write_lookbacks(build_lookbacks(bars, RECIPE.timeframes, hours=1200), folder / "lookbacks")
    assert main(["--model", ".", "--lookbacks", "lookbacks", "--latest"]) == 0
    newest = json.loads(capsys.readouterr().out)
    assert abs(newest["p_state_0"] - expected["p_state_0"].iloc[-1]) < 1e-9


def test_long_files_go_through_in_chunks_with_the_same_bits(folder, bars, detector, expected):
    path, sizes, seen = folder / "new.csv", [], []
    options = (ReadOptions("open"), bars.step)

    def counted():
        for chunk, share in bar_chunks(path, *options, block=10_000):
            sizes.append(len(chunk))
            yield chunk, share

    with RegimeFile(folder / "regimes.csv") as file:
        newest, n_read = apply(
            detector.stream().extend, counted(), file.write, lambda n, share: seen.append(share)
        )
    assert len(sizes) > 5
    assert max(sizes) < 250
    assert n_read == len(bars)
    assert newest.n_rows == len(expected)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert_same(read(folder / "regimes.csv"), expected)


def test_long_feature_tables_go_through_in_chunks(folder, bars, detector, expected):
    build_features(bars, RECIPE).write(folder / "v1.csv")
    frames = []
    rows = feature_chunks(folder / "v1.csv", ReadOptions("open"), block=20_000)
    apply(RowStream(detector.stream().model).extend, rows, frames.append)
    assert len(frames) > 5
    assert_same(pd.concat(frames), expected)


@pytest.mark.parametrize("form", ["preamble", "gzip", "parquet", "newest first", "day first"])
def test_chunks_read_what_read_bars_reads(folder, bars, form, monkeypatch):
    text = bars.frame.to_csv(index=False)
    path = folder / "form.csv"
    if form == "preamble":
        path.write_text("# from an exchange\n\n" + text)
    elif form == "gzip":
        path.write_bytes(gzip.compress(text.encode()))
    elif form == "parquet":
        monkeypatch.setattr(load, "_PARQUET_ROWS", 300)
        bars.frame.to_parquet(path, index=False)
    elif form == "newest first":
        bars.frame.iloc[::-1].to_csv(path, index=False)
    else:
        stamps = bars.frame["timestamp"].dt.strftime("%d/%m/%Y %H:%M")
        bars.frame.assign(timestamp=stamps).to_csv(path, index=False)
    read = [
        chunk for chunk, _ in bar_chunks(path, ReadOptions("open"), step=bars.step, block=20_000)
    ]
    assert (len(read) == 1) == (form in ("newest first", "day first"))
    together = pd.concat([chunk.frame for chunk in read])
    assert together.equals(bars.frame)


@pytest.mark.parametrize("n_blocks", [1.2, 1.5, 2.5])
def test_a_file_that_is_newest_first_is_read_whole_wherever_its_blocks_end(folder, bars, n_blocks):
    path = folder / "new.csv"
    bars.frame.iloc[::-1].to_csv(path, index=False)
    block = int(path.stat().st_size / n_blocks)
    (read,) = bar_chunks(path, ReadOptions("open"), step=bars.step, block=block)
    assert read[0].frame.equals(bars.frame)


def test_a_chunk_out_of_order_is_refused(folder, bars, monkeypatch):
    frame = bars.frame
    pd.concat([frame.iloc[700:], frame.iloc[:700]]).to_csv(folder / "mixed.csv", index=False)
    monkeypatch.chdir(folder)
    words = ("--bars", "mixed.csv", "--output", "regimes.csv")
    assert main(["--model", ".", *words]) == 0  # one chunk is sorted
    read = bar_chunks(folder / "mixed.csv", ReadOptions("open"), step=bars.step, block=10_000)
    with pytest.raises(Exception, match="not in time order"):
        list(read)


def test_regimes_are_joined_to_the_features_of_the_same_bars(
    folder, bars, expected, capsys, monkeypatch
):
    monkeypatch.chdir(folder)
    build_features(bars, RECIPE).write(folder / "v1.csv")
    words = "--model . --bars new.csv --join v1.csv --output joined.csv --prefix r_ --latest"
    assert main(words.split()) == 0
    out, notes = capsys.readouterr()
    assert json.loads(out)["label"] == expected["label"].iloc[-1]
    assert "v1.csv: 'timestamp' is read as a row's start, and the row is known 1H later" in notes
    joined, table = pd.read_csv(folder / "joined.csv"), pd.read_csv(folder / "v1.csv")
    assert list(joined)[: len(table.columns)] == list(table)
    assert len(joined) == len(table)
    for name in ("state", "label", "p_state_1"):
        assert joined[f"r_{name}"].dropna().tolist() == expected[name].tolist()


def test_a_joined_row_stays_when_the_bars_go_on(folder, bars, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    frame = bars.frame
    frame.iloc[:1000].to_csv("past.csv", index=False)
    frame[["timestamp"]].assign(x=1).to_csv("table.csv", index=False)
    lines = []
    for name in ("past.csv", "new.csv"):
        words = f"--model . --bars {name} --join table.csv --output joined.csv"
        assert main(words.split()) == 0
        lines.append((folder / "joined.csv").read_text().splitlines()[: 1 + 1000])
    assert lines[0] == lines[1]
    assert lines[0][0].startswith("timestamp,x,regime_available_at,regime_state,regime_label,")
    assert lines[0][1].endswith(",,,,,,")  # before the first regime


def test_errors_of_the_table_name_its_own_options(folder, bars, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "events.csv").write_text("moment,x\n2021-01-01 00:00,1\n2021-01-01 00:07,1\n")
    for words, says in (
        ("", "events.csv: no column of times"),
        ("--join-column when", "events.csv: --join-column=when: no column of that name"),
        ("--join-column moment --join nowhere.csv", "nowhere.csv: no such file"),
        ("--join-column moment --prefix é/ --output nowhere/j.csv", "does not exist"),
    ):
        given = "--model . --bars new.csv --output joined.csv --join events.csv"
        assert main([*given.split(), *words.split()]) == 2
        line = capsys.readouterr().err
        assert says in line, line
        assert line.count("\n") == 1
    assert not (folder / "joined.csv").exists()


BAD_WORDS = [
    ("--bars new.csv --latest --join new.csv", "--join needs --output"),
    ("--follow --join new.csv", "--follow takes only"),
    ("--bars nowhere.csv --latest", "no such file"),
    ("--bars short.csv --output regimes.csv", "are too few: at least"),
    ("--bars bad.csv --output regimes.csv", "high below low"),
    ("--bars daily.csv --output regimes.csv", "bars come every 1D"),
    ("--features-csv new.csv --latest", "no column close_logret_current_1H"),
    ("--lookbacks nowhere --latest", "holds no 1H.csv"),
    ("--bars new.csv --output nowhere/regimes.csv", "does not exist"),
    ("--bars new.csv --output regimes.xls", "written as .csv"),
    ("--bars new.csv", "give --output, --latest or both"),
    ("--latest", "give one of --bars"),
    ("--bars new.csv --latest --state s.json", "need --follow"),
    ("--follow --latest", "--follow takes only"),
]


@pytest.mark.parametrize(("words", "message"), BAD_WORDS, ids=[w for w, _ in BAD_WORDS])
def test_bad_input_is_one_line_and_leaves_no_file(
    folder, bars, words, message, capsys, monkeypatch
):
    monkeypatch.chdir(folder)
    frame = bars.frame
    frame.iloc[:50].to_csv("short.csv", index=False)
    frame.assign(high=frame["high"].where(frame.index != frame.index[700], 1.0)).to_csv(
        "bad.csv", index=False
    )
    frame[frame.index.hour == 0].to_csv("daily.csv", index=False)
    before = sorted(folder.iterdir())
    try:
        status = main(["--model", ".", *words.split()])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_a_model_that_is_not_there_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["--model", "nowhere", "--bars", "new.csv", "--latest"]) == 2
    assert "no detector at nowhere" in capsys.readouterr().err


def lines_of(frame: pd.DataFrame, form: str) -> list[str]:
    """Bars as a feed sends them."""
    if form == "csv":
        return frame.to_csv(index=False).splitlines(keepends=True)
    return [json.dumps(bar, default=str) + "\n" for bar in frame.to_dict("records")]


@pytest.mark.parametrize("form", ["csv", "json"])
def test_follow_writes_a_regime_for_each_closed_bar(folder, followed, bars, expected, form):
    history = part(bars, slice(1300))
    history.frame.to_csv(folder / "history.csv", index=False)
    news = part(bars, slice(1290, None)).frame  # ten bars of it are known already
    words = ["--bars", "history.csv", "--missing", "gap", *(["--json"] if form == "json" else [])]
    status, out, error = followed("".join(lines_of(news, form)), *words)
    assert status == 0, error
    if form == "csv":
        (folder / "out.csv").write_text(out)
        rows = read(folder / "out.csv")
    else:
        rows = pd.DataFrame([json.loads(line) for line in out.splitlines()])
    assert len(rows) == len(bars) - 1300
    assert rows["p_state_1"].tolist() == expected["p_state_1"].tolist()[-len(rows) :]


def follow(folder, *words) -> subprocess.Popen:
    command = [sys.executable, "-u", str(SCRIPT), "--model", ".", "--follow", "--missing", "gap"]
    return subprocess.Popen(
        [*command, *words], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_for_rows(path: Path, n_rows: int) -> None:
    """Wait until a file has that many rows under its header."""
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_text().count("\n") < n_rows + 1:
        assert time.monotonic() < deadline, "no rows came"
        time.sleep(0.02)


def test_follow_goes_on_after_kill_9_with_each_row_once(folder, bars, expected):
    (folder / "history.csv").write_text(bars.frame.iloc[:1200].to_csv(index=False))
    header, *lines = lines_of(bars.frame.iloc[1200:], "csv")
    words = ["--bars", "history.csv", "--state", "stream.json", "--output", "regimes.csv"]
    first = follow(folder, *words)
    first.stdin.write(header + "".join(lines[:100]))
    first.stdin.flush()
    wait_for_rows(folder / "regimes.csv", 60)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    with (folder / "regimes.csv").open("a") as torn:  # a row that was half written when it died
        torn.write("2021-0")
    second = follow(folder, *words)
    second.communicate(header + "".join(lines), timeout=120)  # the feed begins anew
    assert second.returncode == 0
    ours = read(folder / "regimes.csv")
    assert_same(ours, expected[-len(ours) :])
    assert len(ours) == len(lines)


def test_follow_without_a_state_that_it_knows_does_not_write_behind_other_rows(folder, followed):
    (folder / "regimes.csv").write_text("timestamp,available_at\n")
    status, _, error = followed("", "--output", "regimes.csv")
    assert status == 2
    assert "holds rows already" in error


def test_follow_refuses_a_state_in_a_folder_that_does_not_exist(folder, followed):
    status, out, error = followed("", "--state", "none/stream.json")
    assert (status, out) == (2, "")
    assert error == "error: --state none/stream.json: the folder none does not exist\n"


def test_follow_refuses_the_state_of_another_model(folder, followed):
    other = live_detector(RECIPE, seed=1)
    other.stream().save(folder / "stream.json")
    status, _, error = followed("", "--state", "stream.json")
    assert status == 2
    assert "was saved with another model" in error


@pytest.mark.parametrize("drop", [False, True])
def test_follow_stops_at_a_bad_bar_or_leaves_it_out(folder, followed, bars, drop):
    header, *lines = lines_of(bars.frame.iloc[:400], "csv")
    bad = [*lines[:300], "2021-06-01,1,0.5,2,1,5\n", "what\n", *lines[300:]]
    words = ["--bad-rows", "drop"] if drop else ["--missing", "gap"]
    status, out, error = followed(header + "".join(bad), *words, "--state", "s.json")
    answered = out.count("\n") - 1
    settled = 400 - live_detector(RECIPE).min_history + 1
    assert status == (0 if drop else 2)
    assert answered == (settled if drop else settled - 100)
    assert "high below low" in error
    assert error.count("skipped") == (2 if drop else 0)
    assert json.loads((folder / "s.json").read_text())["last_bar"] == iso(
        bars.frame.index[399 if drop else 299]
    )


def test_dropped_bars_leave_gaps_as_they_do_in_a_file(folder, followed, bars, detector):
    """With no word about missing bars a pipe that drops bad ones goes on behind them."""
    header, *lines = lines_of(part(bars, slice(400)).frame, "csv")
    lines[350] = "\r".join(lines[350].split(","))
    text = header + "".join(lines)
    (folder / "bad.csv").write_bytes(text.encode())
    status, out, error = followed(text, "--bad-rows", "drop")
    assert status == 0
    assert error.count("skipped: ") == error.count("\n") == 1
    frame = bars.frame.iloc[:400].drop(bars.frame.index[350])
    assert out.count("\n") - 1 == len(frame) - detector.min_history + 1
    last = detector.filter(replace(bars, frame=frame))["p_state_0"].iloc[-1]
    header, *_, newest = (line.split(",") for line in out.splitlines())
    assert newest[header.index("p_state_0")] == str(last)


@pytest.mark.parametrize("words", [[], ["--bad-rows", "drop"]])
def test_a_pipe_without_the_chosen_column_is_refused_with_the_option(
    folder, followed, bars, detector, words
):
    reading = replace(detector.reading, volume_column="tradecount")
    replace(detector, reading=reading).save(folder / "detector.json")
    text = "".join(lines_of(part(bars, slice(300)).frame, "csv"))
    status, _, error = followed(text, *words)
    assert status == 2
    assert error.startswith("error: --volume-column tradecount: no column of that name; there are")
    assert error.count("\n") == 1
    words += ["--volume-column", "volume", "--missing", "gap"]
    status, out, error = followed(text, *words)
    assert (status, error) == (0, "")
    assert out.count("\n") > 100


def test_a_damaged_state_is_one_line_with_the_remedy(folder, followed):
    (folder / "s.json").write_text('{"format": 2}')
    status, out, error = followed("", "--state", "s.json")
    assert (status, out) == (2, "")
    assert error.startswith("error: s.json is a damaged saved stream: ")
    assert error.endswith("give another --state, or move it away to begin anew\n")
    assert (folder / "s.json").read_text() == '{"format": 2}'


def test_follow_does_not_take_a_line_that_was_cut_off(folder, followed, bars):
    text = "".join(lines_of(bars.frame.iloc[:200], "csv"))
    status, _, error = followed(text[:-3], "--missing", "gap", "--state", "s.json")
    assert status == 2
    assert "has no end" in error
    stored = json.loads((folder / "s.json").read_text())
    assert stored["last_bar"] == iso(bars.frame.index[198])
