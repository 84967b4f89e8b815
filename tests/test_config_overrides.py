"""Words of a command line: any text is a value, and what is no setting is refused in one line."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from hmm_exp.config.checks import literal
from hmm_exp.config.grid import as_word, grid
from hmm_exp.config.overrides import hydra_words, shell_word
from hmm_exp.errors import ConfigError

ODD_NAMES = [
    *("BINANCE_BTCUSDT.P, 60.csv", "a=b.csv", "a#b.csv", "a{b}.csv", "BTC(perp).csv", "[new] b"),
    *(" lead.csv", "it's.csv", 'the "new".csv', "both'\".csv", "$x.csv", "${x}.csv", "a@b:c.csv"),
    *(
        "a\\b.csv",
        "a\\,b.csv",
        "end\\",
        "Börse 中.csv",
        "null",
        "1_000",
        "1e3",
        "choice(1,2)",
        "<x>",
    ),
]


def value_of(word: str) -> object:
    """What Hydra reads."""
    return OverridesParser.create().parse_override(word).value()


@given(st.text(min_size=1, max_size=30).filter(str.isprintable))
@example("a, b")
@example("\\${x}\\")
@example("'\"\\'")
def test_the_word_that_is_printed_gives_the_text_in_a_shell_alone_and_in_a_sweep(text):
    (word,) = shlex.split(shell_word("data.name", text))
    assert hydra_words([word]) == [word]
    assert value_of(word) == literal(text)
    (cells,) = grid([word]).values()
    assert value_of(as_word(cells)) == literal(text)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_path_of_a_file_that_exists_is_taken_as_it_is_typed(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    (word,) = hydra_words([f"data.path={name}"])
    assert value_of(word) == literal(name)


def test_paths_of_files_with_commas_between_are_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a#1.csv", "b.csv"):
        (tmp_path / name).touch()
    *_, word = hydra_words(["data.path=a#1.csv,b.csv", "-m"])
    assert grid([word]) == {"data.path": ['data.path="a#1.csv"', 'data.path="b.csv"']}
    (tmp_path / "a#1.csv,b.csv").touch()
    *_, word = hydra_words(["data.path=a#1.csv,b.csv", "-m"])
    assert value_of(word) == "a#1.csv,b.csv"


def test_a_tilde_is_the_home_folder_for_what_lies_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "BTC, 60.csv").touch()
    (word,) = hydra_words(["data.path=~/BTC, 60.csv"])
    assert value_of(word) == "~/BTC, 60.csv"  # which the settings expand


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("data.volume_column=<TICKVOL>", "<TICKVOL>"),
        ("data.timestamp_column=Zeit (MEZ)", "Zeit (MEZ)"),
        ("data.name=BTC;USDT", "BTC;USDT"),
        ("data.name=1e3", "1e3"),
        ("data.name=true", "true"),
        ("++data.name=[a]", "[a]"),
        (
            "tracking.uri=postgresql://u:p@h/db?sslmode=require",
            "postgresql://u:p@h/db?sslmode=require",
        ),
    ],
)
def test_a_text_needs_no_quotes_but_those_of_the_shell(word, text):
    (ours,) = hydra_words([word])
    assert value_of(ours) == text


@pytest.mark.parametrize(
    "word",
    [
        *("data.path=a.csv,b.csv", "data.path=glob(*.csv)", "data.name=null", "data.name='a, b'"),
        *("data.name=${model.n_init}", "features=v1,v2", "hydra/launcher=joblib", "~experiment"),
    ],
)
def test_what_hydra_reads_stays_as_it_is(word):
    assert hydra_words([word]) == [word]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model.n_states=#3"], "model.n_states=#3: must be a whole number"),
        (["model.n_states=" + "9" * 5000], "must be a whole number"),
        (["model.state_grid=[2,3"], "a list of whole numbers, such as [2,3,4,5]"),
        (["model.state_grid=" + "[" * 3000], "a list of whole numbers"),
        (["features.columns=[<A>]"], """quotes: features.columns='["a b","<c>"]'"""),
        (["quiet=ja!"], "true or false"),
        (["data.gaps.x=#"], "unknown setting data.gaps.x (did you mean data.gaps?)"),
        (["data.name=a,<b>"], """one text with a comma is written data.name='"a,<b>"'"""),
        (["data.name=${model.n_init"], "an interpolation that cannot be read"),
        (["hydra.run.dir=a#b"], """a text is quoted: hydra.run.dir='"a#b"'"""),
        (["model=5"], "unknown model '5': one of default"),
        (["features=null"], "unknown features 'null': one of columns,"),
        (["features=[v1,v2]"], "unknown features '[v1,v2]'"),
        (["-m", "gate=off,7"], "unknown gate 'off,7'"),
        (["gate@x=off"], "'gate@x=off' is no setting"),
        (["-m", "~experiment=[],[]"], "what is removed has one value: write ~experiment"),
        (["~experiment=[]"], "what is removed has one value: write ~experiment"),
        (["+++model.n_states=3"], "is no setting: write name=value"),
        (["größe=3"], "is no setting"),
        (["hydra.callbacks=null"], "the program needs its own"),
        (["hydra.launcher._target_=os.getcwd"], "the program needs its own"),
        (["hydra.sweeper.params.model.n_states=2,3"], "a grid is -m model.n_states=2,3"),
        (["nonsense"], "'nonsense' is neither a setting (name=value) nor an option"),
        (["=5"], "'=5' is neither a setting"),
        (["data.path=my", "new", "bars.csv", "-m"], """quoted, data.path='"my new bars.csv"'"""),
        (["--nonsense"], "unknown option --nonsense"),
        (["--cfg", "nonsense"], "invalid choice: 'nonsense'"),
        (["-m", "--cfg=job"], "-m and --cfg exclude each other"),
        (["--resolve"], "--resolve goes with --cfg job"),
        (["--package", "data"], "--package goes with --cfg job"),
        (["--cfg", "job", "--package", "dta"], "--package dta: no such group"),
        (["--config-name", "x"], "--config-dir adds choices of yours"),
        (["--experimental-rerun", "x.pkl"], "would unpickle"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_is_no_setting_or_no_option_is_refused_in_words_of_our_own(words, says):
    with pytest.raises(ConfigError) as error:
        hydra_words(words)
    assert says in str(error.value)


def test_options_come_first_and_quiet_is_a_setting():
    assert hydra_words(["a.b=1", "--cfg", "job", "--quiet"]) == [
        "--cfg",
        "job",
        "a.b=1",
        "quiet=true",
    ]
    assert hydra_words(["--info", "a.b=1"]) == ["a.b=1", "--info"]  # it would take the word after


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("{min: 2, max: 5}", [2, 3, 4, 5]),
        ('{"min": 3, "max": 3}', [3]),
        ("{'max':4,'min':2}", [2, 3, 4]),
        ("[2,5]", [2, 5]),
    ],
)
def test_a_grid_of_states_is_a_list_or_its_bounds(value, read):
    (word,) = hydra_words([f"model.state_grid={value}"])
    assert value_of(word) == read


@pytest.mark.parametrize("value", ["{min: 5, max: 2}", "{min: 2, max: 99999}", "{min: 2, min: 3}"])
def test_bounds_that_hold_no_list_stay_for_the_check_of_the_settings(value):
    assert hydra_words([f"model.state_grid={value}"]) == [f"model.state_grid={value}"]


def test_a_list_without_quotes_in_the_shell_is_refused_with_the_quoted_one():
    with pytest.raises(ConfigError) as refused:
        hydra_words(["model.state_grid={min:", "2,", "max:", "5}", "-m"])
    assert "quoted, 'model.state_grid={min: 2, max: 5}'" in str(refused.value)
