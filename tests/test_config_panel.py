"""Settings of symbols: what reads them, and which exclude each other."""

import pytest

from hmm_exp.config import Config, DataConfig, checked
from hmm_exp.config.checks import nearest
from hmm_exp.config.used import used
from hmm_exp.errors import ConfigError


def checking(**data) -> Config:
    known = {"path": "lake", "bar_stamp": "open"} if data.get("kind") != "synthetic" else {}
    return checked(Config(data=DataConfig(**known | data)))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"kind": "bars", "symbols": ["A"]}, r"data.symbols=\['A'\] .* add data=panel"),
        ({"kind": "bars", "exclude": ["A"]}, "data.exclude=.* add data=panel"),
        ({"kind": "features", "symbol_pattern": "(.*)"}, "with data=features: add data=panel"),
        ({"kind": "features", "symbol": "A"}, "with data=features: add data=bars"),
        ({"kind": "synthetic", "symbol_column": "s"}, "with data=synthetic: add data=bars"),
        ({"kind": "bars", "symbol_column": "s"}, "needs data.symbol=<name>"),
        ({"kind": "panel", "symbol": "A"}, "data.symbol=A is set with data=panel: add data=bars"),
        ({"kind": "panel", "name": "A"}, "data.name=A is set with data=panel: each symbol names"),
        ({"kind": "panel", "symbol_pattern": "(a"}, "not a regular expression: missing"),
        ({"kind": "panel", "symbol_pattern": "a"}, "symbol_pattern=a: 0 groups; one pair"),
        ({"kind": "panel", "symbol_pattern": "(a)(b)"}, "2 groups; one pair of"),
        ({"kind": "panel", "symbol_pattern": "(a)", "symbol_column": "s"}, "are both set"),
        ({"kind": "panel", "path": None}, "data.path=<file> says where the symbols are"),
        ({"kind": "panel", "bar_stamp": None}, "data.bar_stamp is not set"),
        ({"kind": "panel", "symbols": ["a\nb"]}, "data.symbols='a.nb': holds control characters"),
    ],
)  # fmt: skip
def test_a_setting_of_symbols_that_nothing_reads_is_refused(data, line):
    with pytest.raises(ConfigError, match=line) as error:
        checking(**data)
    assert "\n" not in str(error.value)


def test_bars_of_one_symbol_record_its_name_and_column():
    known = used(checking(kind="bars", symbol="A", symbol_column="ticker"))
    assert (known["data.symbol"], known["data.symbol_column"]) == ("A", "ticker")
    assert not {"data.symbols", "data.include", "data.symbol_pattern"} & set(known)
    assert not {name for name in used(checking(kind="bars")) if "symbol" in name}


@pytest.mark.parametrize(("word", "near"), [("btc", "BTC"), ("BTCUSD", "BTCUSDT"), ("v1", "V1")])
def test_a_name_is_near_whatever_its_case(word, near):
    assert nearest(word, ["BTC", "BTCUSDT", "V1"]) == f" (did you mean {near}?)"
