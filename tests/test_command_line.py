"""What the commands share: options that cannot work are one short line and exit status 2."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from hmm_exp import causality, train
from hmm_exp.command_line import own_words
from hmm_exp.commands import backtest, features, monitor, promote, registry, server, sweeps
from hmm_exp.report import __main__ as report
from hmm_exp.version import __version__
from tests.test_package import COMMANDS

CAUSALITY = ("--model", "m", "--bars", "b")


@pytest.mark.parametrize(
    ("parse", "words", "says"),
    [
        (causality.parse, (*CAUSALITY, "--times", "0"), "--times: 0: must be 1 to 100,000"),
        (causality.parse, (*CAUSALITY, "--times", "1e3"), "'1e3': must be a whole number"),
        (causality.parse, (*CAUSALITY, "--times", "9" * 5000), "must be a whole number"),
        (causality.parse, (*CAUSALITY, "--times", "1" + "0" * 20), "must be 1 to 100,000"),
        (causality.parse, (*CAUSALITY, "--seed", "-1"), "--seed: -1: must be 0 to"),
        (server.parse, ("--port", "0"), "--port: 0: must be 1 to 65,535"),
        (server.parse, ("--port", "70000"), "--port: 70000: must be 1 to 65,535"),
        (server.parse, ("--workers", "none"), "--workers: 'none': must be a whole number"),
        (promote.parse, ("--run", "x", "--registry", ".."), "--registry: ..: must be a name"),
        (promote.parse, ("--run", "x", "--registry", "a/b"), "without / : ' ?"),
        (promote.parse, ("--sweep", "a'b"), "--sweep: a'b: must be a name of at most 100"),
        (promote.parse, ("--sweep", "x" * 70_000), "must be a name of at most 100"),
        (sweeps.parse, ("show", "a'b"), "must be a name of at most 100"),
        (promote.parse, ("--run", "x", "--\x1b[31m"), r"\x1b[31m"),
        (
            backtest.parse,
            ("--bars", "b", "--figure", "x.xyz"),
            "--figure: x.xyz: must end in .png,",
        ),
        (
            monitor.parse,
            ("--bars", "b", "--figure", "none/x.png"),
            "the folder none does not exist",
        ),
        (
            backtest.parse,
            ("--bars", "b", "--output", "none/x.csv"),
            "the folder none does not exist",
        ),
        (report.parse, ("--run", "x", "--output", "none/x.html"), "the folder none does not exist"),
    ],
)
def test_an_option_that_cannot_work_is_one_short_line(parse, words, says, capsys):
    with pytest.raises(SystemExit) as end:
        parse(words)
    line = capsys.readouterr().err
    assert (end.value.code, line.count("\n")) == (2, 1)
    assert line.startswith("error: ")
    assert says in line
    assert len(line) <= 301
    assert line.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--window", "100001", "features.window=100001: must be a whole number, at least 2 and"),
        ("--vwap-hours", "nan", "features.vwap_hours=nan: must be above 0"),
        ("--vwap-hours", "1e300", "features.vwap_hours=1e+300: must be above 0 and at most"),
        ("--timeframes", "99999999999D", "unknown timeframe 99999999999D: at most 99999"),
        ("--timeframes", "9" * 5000 + "H", "at most 99999 of a unit"),
        ("--timeframes", "30D", "300 bars of 1H, 2021-01-01 to 2021-01-13, are too few for the"),
    ],
)
def test_windows_and_timeframes_that_no_bars_fill_are_one_line(
    option, value, says, tmp_path, monkeypatch, capsys
):
    from hmm_exp.market.synthetic import make_market

    monkeypatch.chdir(tmp_path)
    make_market(n_bars=300, seed=1).frame.to_csv("bars.csv", index=False)
    words = ["--input", "bars.csv", "--output", "v.csv", "--bar-stamp", "open", option, value]
    assert features.main([*words, "--features", "v2"] if option == "--vwap-hours" else words) == 2
    line = capsys.readouterr().err
    assert says in line
    assert line.count("\n") == 1
    assert len(line) <= 301
    assert [path.name for path in tmp_path.iterdir()] == ["bars.csv"]


@pytest.mark.parametrize(
    "since", ["now", "today", "nan", "NaT", " ", "soon", "9999-01-01", "9" * 40]
)
def test_a_time_is_one_that_does_not_depend_on_when_it_is_read(since, capsys):
    assert monitor.main(["--bars", "b.csv", "--model", "m", "--since", since]) == 2
    assert capsys.readouterr().err.startswith(f"error: --since {since}".rstrip() + " is not a date")


def test_a_setting_that_a_command_does_not_have_is_no_advice(tmp_path, capsys):
    (tmp_path / "bars.json").write_text("{}")
    words = ["--bar-stamp", "open", "--output", str(tmp_path / "o.csv"), "--input"]
    for name, says in (
        ("bars.json", "; convert it"),
        ("none.csv", "no such file: "),
        ("", "folder"),
    ):
        assert features.main([*words, str(tmp_path / name)]) == 2
        line = capsys.readouterr().err
        assert says in line
        assert "data." not in line


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"hmm-train"}))
def test_every_command_prints_the_version_and_how_to_complete_it(name, capsys):
    module, function = COMMANDS[name].split(":")
    for option, shown in (
        ("--version", f"hmm_exp {__version__}\n"),
        ("--help", f'eval "$(register-python-argcomplete {name})"'),
    ):
        with pytest.raises(SystemExit) as end:
            getattr(import_module(module), function)([option])
        assert end.value.code == 0
        assert shown in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_the_program_of_its_module(name):
    module = COMMANDS[name].split(":")[0].removesuffix(".__main__")
    command = [sys.executable, "-m", module, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"hmm_exp {__version__}\n"


def test_train_prints_the_version_and_how_to_complete_it(monkeypatch, capsys):
    for option, shown in (("--version", __version__), ("--help", "hmm-train -sc install=bash")):
        monkeypatch.setattr(sys, "argv", ["hmm-train", option])
        streams = sys.stdout, sys.stderr
        try:
            train.main()
        finally:
            sys.stdout, sys.stderr = streams
        assert shown in capsys.readouterr().out


def test_a_subcommand_prints_the_version_and_no_line_about_completion(capsys):
    for words, shown in ((["list", "--version"], True), (["list", "--help"], False)):
        with pytest.raises(SystemExit):
            registry.main(words)
        text = capsys.readouterr().out
        assert (__version__ in text) == shown
        assert "argcomplete" not in text


@pytest.mark.parametrize(("told", "level"), [({}, "1"), ({"NUMBA_OPT": "3"}, "3")])
def test_commands_compile_with_little_optimisation_unless_told(told, level):
    program = "from hmm_exp import command_line; command_line.quiet_libraries(); import numba;"
    program += "print(int(numba.config.OPT))"
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_OPT"} | told
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == level


@pytest.mark.parametrize("installed", [True, False])
def test_the_shell_gets_completions_and_the_command_does_not_run(tmp_path, installed):
    """Without the library the command must still not run: a Tab key promotes nothing."""
    if installed:
        pytest.importorskip("argcomplete")
    line, answer = "hmm-features --time", tmp_path / "answer"
    block = "" if installed else "sys.modules['argcomplete'] = None; "
    run = "from hmm_exp.commands.features import main; sys.exit(main())"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {block}{run}"],
        env=os.environ | asked | {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
    if installed:
        assert answer.read_text().split("\x0b") == [
            *("--timeframes", "--timezone", "--timestamp-column")
        ]
    else:
        assert done.returncode == 1


@pytest.mark.parametrize(
    "words", ["1H,4H,12H", "1H 4H 12H", "1H, 4H, 12H", "1H,4H 12H", ",1H,4H,,12H"]
)
def test_timeframes_stand_with_commas_or_blanks_between_them(words):
    given = ["--input", "b", "--output", "o.csv", "--bar-stamp", "open", "--timeframes"]
    assert features.parse([*given, *words.split()]).timeframes == ["1H", "4H", "12H"]
    assert features.parse([*given, words]).timeframes == ["1H", "4H", "12H"]


def test_no_timeframe_at_all_is_refused(capsys):
    with pytest.raises(SystemExit):
        features.parse(["--input", "b", "--bar-stamp", "open", "--timeframes", ","])
    assert "--timeframes: ',' names nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        ("", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no')", 1, "no"),
        ("raise ValueError('x')", 1, "ValueError: x"),
    ],
)
def test_a_program_ends_with_its_status_and_handlers_but_frees_nothing(end, status, error):
    program = f"""
import atexit, sys
from hmm_exp.command_line import run_program

class Freed:
    def __del__(self):
        print("freed")

kept = Freed()

def main():
    atexit.register(print, "handler")
    sys.stdout.write("written, ")
    {end}

run_program(main)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == status
    assert done.stdout == "written, handler\n"
    assert (done.stderr.splitlines() or [""])[-1] == error


@pytest.mark.parametrize(
    "hangs", ["threading.Thread(target=time.sleep, args=(60,)).start()", "atexit.register(wait)"]
)
def test_a_stopped_program_does_not_wait_for_what_does_not_end(hangs):
    program = f"""
import atexit, sys, threading, time
from hmm_exp.command_line import run_program

def wait():
    time.sleep(60)

def main():
    {hangs}
    sys.exit(130)

run_program(main)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=45)
    assert done.returncode == 130
    assert not done.stderr


def test_a_setting_of_training_is_named_as_the_option_of_a_command():
    text = "2 files of symbol A: a and b; narrow the path, or set data.symbol_pattern"
    assert own_words(text).endswith("; narrow the path, or set --symbol-pattern")
    assert own_words("a bad row: data.bad_rows=drop") == "a bad row: --bad-rows drop"
    assert own_words("no.csv is empty; set data.path to a file in it") == "no.csv is empty"
