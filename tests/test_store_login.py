"""Passwords of a tracking address: in no text, no file of Hydra, no record."""

import os
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from hmm_exp.config.overrides import hydra_text
from hmm_exp.errors import HmmExpError, TrackingError, one_line, redacted
from hmm_exp.store.address import VARIABLE, resolve_uri
from hmm_exp.store.login import hide_login
from hmm_exp.store.store import Store
from hmm_exp.tracking import provenance
from hmm_exp.tracking.ui import ui_command, ui_link

WITH_LOGIN = {
    "http://me:s3cret@host:5000/x": "http://host:5000/x",
    "HTTPS://s3cret@host": "HTTPS://host",
    "http://me:s3c/ret@host": "http://host",
    "postgresql+psycopg2://me:s3cret@host:5432/runs": "postgresql+psycopg2://me@host:5432/runs",
    "mysql://me:s3@cret@host/runs": "mysql://me@host/runs",
    "postgresql://host/runs?user=me&password=s3cret&x=1": (
        "postgresql://host/runs?user=me&password=***&x=1"
    ),
}
WITHOUT = [
    "http://localhost:5000/#/experiments/1?x=a@b",
    "http://[::1]:5000/a@b",
    "sqlite:////tmp/a:b@c/mlflow.db",
    "see https://example.com/a:b@c and me@example.com",
    "postgresql://me@host/runs",
    "a:b@c",
]


@pytest.mark.parametrize("uri", WITH_LOGIN)
def test_a_password_is_taken_out_of_every_text(uri):
    shown = WITH_LOGIN[uri]
    assert redacted(uri) == shown
    assert redacted(shown) == shown
    assert one_line(f"API request to {uri} failed\nfor {uri}.") == (
        f"API request to {shown} failed for {shown}."
    )
    assert str(TrackingError(f"no answer of '{uri}'")) == f"no answer of '{shown}'"
    assert redacted(f"{uri} {uri}") == f"{shown} {shown}"


@pytest.mark.parametrize("text", WITHOUT)
def test_a_text_without_a_password_stays(text):
    assert redacted(text) == text


def test_a_password_does_not_survive_a_line_that_is_cut():
    line = one_line(f"http://me:{'s3cret' * 60}@host/{'x' * 300}")
    assert "s3" not in line


def test_other_parts_of_an_error_stay():
    assert HmmExpError(3, "http://me:s3cret@host").args == (3, "http://host")


def composed(uri: str | None, prefix: str = "") -> object:
    words = ["a=1"] if uri is None else ["a=1", f"{prefix}tracking.uri={uri}", "b=2"]
    return OmegaConf.create(
        {
            "tracking": {"uri": uri},
            "hydra": {"overrides": {"task": words}, "job": {"override_dirname": ",".join(words)}},
        }
    )


@pytest.mark.parametrize("prefix", ["", "+", "++"])
@pytest.mark.parametrize("uri", WITH_LOGIN)
def test_a_composed_config_keeps_no_login_and_the_store_is_found_with_it(uri, prefix, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv(VARIABLE, "sqlite:///other.db")
    config = composed(uri, prefix)
    hide_login(config)
    assert "s3" not in OmegaConf.to_yaml(config)
    first, word, last = config.hydra.overrides.task
    assert (first, last) == ("a=1", "b=2")
    override = OverridesParser.create().parse_override(word)
    assert override.value() == config.tracking.uri == WITH_LOGIN[uri]
    assert os.environ[VARIABLE] == uri
    if "s3c/ret" not in uri:  # which is refused
        assert resolve_uri(config.tracking.uri).lower() == uri.lower()


@pytest.mark.parametrize("uri", [None, "http://host:5000", "sqlite:///mlflow.db"])
def test_a_config_without_a_login_stays_as_it_is(uri, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    config = composed(uri)
    hide_login(config)
    assert config == composed(uri)
    assert VARIABLE not in os.environ


@pytest.mark.parametrize(
    "text",
    ["a b", "it's", 'a"b', "a\\", "a\\'b", "${x}", "a\\${b}", "50% #,={}[]()~:", "null", "ü"],
)
def test_any_text_is_quoted_so_that_hydra_reads_it_back(text):
    override = OverridesParser.create().parse_override(f"key={hydra_text(text)}")
    assert OmegaConf.create({"key": override.value()}).key == text


def test_commands_and_links_hold_no_login(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "tracking.uri=http://me:s3cret@host"])
    assert provenance.command_line() == "python -m hmm_exp.train -m tracking.uri=http://host"
    for uri in WITH_LOGIN:
        store = Store(uri, "1", "hmm_exp", client=None)
        for text in (ui_link(store, run_id="a"), ui_link(store, sweep_id="b"), ui_command(store)):
            assert "s3" not in text
