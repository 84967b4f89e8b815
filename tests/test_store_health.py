"""Stores that cannot be used: each is one line, and nothing is written into it."""

import http.server
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config

from hmm_exp.commands import promote, registry, sweeps
from hmm_exp.config import TrackingConfig
from hmm_exp.errors import HmmExpError, TrackingError
from hmm_exp.report.__main__ import main as report
from hmm_exp.serving.load import load_detector
from hmm_exp.store import health
from hmm_exp.store.health import NoAnswerError, check_answer
from hmm_exp.store.store import connect, open_store, patiently
from tests.small_detector import candidate, forget_store, small_detector


def execute(place: Path, *statements: str) -> None:
    with closing(sqlite3.connect(place)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def older(place: Path) -> None:
    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    before = scripts.get_revision(scripts.get_current_head()).down_revision
    execute(place, f"UPDATE alembic_version SET version_num = '{before}'")


def newer(place: Path) -> None:
    execute(place, "UPDATE alembic_version SET version_num = 'feedfeedfeed'")


def foreign(place: Path) -> None:
    place.unlink()
    execute(place, "CREATE TABLE spans (id INTEGER)")


def without_tables(place: Path) -> None:
    place.unlink()
    execute(place, "CREATE TABLE t (x)", "DROP TABLE t")


def broken(place: Path) -> None:
    content = bytearray(place.read_bytes())
    content[4096:300_000] = b"\xab" * len(content[4096:300_000])
    place.write_bytes(content)


KINDS = {
    older: "was made by an older MLflow than",
    newer: "(schema feedfeedfeed): install a newer one",
    foreign: "belongs to another program (tables spans)",
    without_tables: "is empty: remove it",
    broken: "cannot be used: ",
    lambda place: place.write_text("no database " * 100): "cannot be used: file is not a database",
    lambda place: place.write_bytes(b""): "is an empty file: remove it",
}
COMMANDS = [
    (promote.main, ["--sweep", "latest"]),
    (registry.main, ["list"]),
    (registry.main, ["rollback"]),
    (sweeps.main, ["list"]),
    (sweeps.main, ["clean", "--yes"]),
    (sweeps.main, ["relocate"]),
    (report, ["--sweep", "latest"]),
]


@pytest.fixture
def database(workdir, monkeypatch) -> Path:
    """The database of an empty store in the folder where we stand."""
    monkeypatch.chdir(workdir)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    forget_store()
    yield workdir / "mlflow.db"
    forget_store()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("damage", KINDS)
def test_an_unusable_database_is_one_line_for_all_and_stays_as_it_is(database, damage, capsys):
    damage(database)
    before = contents(database.parent)
    for main, words in COMMANDS:
        forget_store()
        assert main(words) == 2
        out, line = capsys.readouterr()
        assert (out, line.count("\n")) == ("", 1), line
        assert KINDS[damage] in line
    for action in (
        lambda: open_store(TrackingConfig()),
        lambda: load_detector("models:/hmm_regime/Production"),
    ):
        forget_store()
        with pytest.raises(HmmExpError) as caught:
            action()
        assert KINDS[damage] in str(caught.value)
        assert "\n" not in str(caught.value)
    assert contents(database.parent) == before


def test_a_pipe_is_no_database(database):
    database.unlink()
    os.mkfifo(database)
    with pytest.raises(TrackingError, match="is not a file"):
        open_store(TrackingConfig())


def test_a_sound_database_is_asked_and_not_written(database):
    before = contents(database.parent)
    check_answer(f"sqlite:///{database}")
    assert contents(database.parent) == before


def test_a_locked_database_is_one_line(database, monkeypatch, capsys):
    monkeypatch.setattr(health, "ANSWER_WITHIN", 0.1)
    with closing(sqlite3.connect(database, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert sweeps.main(["list"]) == 2
        assert "is locked by another program" in capsys.readouterr().err
        with pytest.raises(NoAnswerError, match="is locked"):
            open_store(TrackingConfig())
        with pytest.raises(HmmExpError, match="is locked"):
            load_detector("models:/hmm_regime/Production")
    assert sweeps.main(["list"]) == 0


AS_ANOTHER = """
import os, sys
from hmm_exp.commands import sweeps
import hmm_exp.sweep.housekeeping, hmm_exp.serving.load, hmm_exp.store.health
import alembic.script, sqlalchemy.dialects.sqlite, mlflow.store.tracking.sqlalchemy_store
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for words in (["list"], ["clean", "--yes"], ["relocate"]):
    print(sweeps.main(words), flush=True)
try:
    hmm_exp.serving.load.load_detector("models:/a/1")
except hmm_exp.errors.ModelError as error:
    print("error:", error, file=sys.stderr)
"""


@pytest.mark.parametrize("readable", ["folder", "file"])
def test_a_store_that_may_only_be_read_is_one_line(database, readable):
    database.chmod(0o444)
    database.parent.chmod(0o555 if readable == "folder" else 0o777)
    for above in database.parents[1:4]:  # of pytest, closed to others
        if above != Path(tempfile.gettempdir()):
            above.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER], capture_output=True, text=True, timeout=120
    )
    database.parent.chmod(0o755)
    assert done.stdout == "2\n2\n2\n", done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 4, done.stderr
    assert all("cannot write to " in line and line.startswith("error: ") for line in lines)
    assert [path.name for path in database.parent.iterdir()] == ["mlflow.db"]


class Answer(http.server.BaseHTTPRequestHandler):
    """Something behind a port, which may want a login."""

    status, kind, wanted = 200, "application/json", None

    def do_GET(self) -> None:
        known = self.wanted in (None, self.headers.get("Authorization"))
        self.send_response(self.status if known else 401)
        self.send_header("Content-Type", self.kind)
        self.end_headers()
        self.wfile.write(json.dumps({"experiments": []}).encode())

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def answers(monkeypatch):
    """A server on loopback; gives its host and port, and the class that answers."""
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")  # no file of credentials
    kind = type("Here", (Answer,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", kind
        server.shutdown()


BASIC = "Basic bWU6czNjcmV0"  # me:s3cret


def test_the_login_of_the_address_or_of_the_environment_is_used(answers, monkeypatch):
    place, here = answers
    here.wanted = BASIC
    check_answer(f"http://me:s3cret@{place}")
    for name, word in {"USERNAME": "me", "PASSWORD": "s3cret"}.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", word)
    check_answer(f"http://{place}")
    check_answer(f"http://{place}/")
    here.wanted = "Bearer abc"
    with pytest.raises(TrackingError, match="refuses the login"):
        check_answer(f"http://{place}")
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    check_answer(f"http://{place}")


@pytest.mark.parametrize("login", ["", "me:wrong-word@", "wrong-word@"])
def test_a_login_that_is_refused_is_one_line_without_it(answers, login, capsys):
    place, here = answers
    here.wanted = BASIC
    forget_store()
    assert sweeps.main(["--tracking-uri", f"http://{login}{place}", "list"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: tracking server http://{place} refuses the login: set MLFLOW_")
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("status", "kind", "error", "why"),
    [
        (404, "text/html", TrackingError, "is not the address of an MLflow server: status 404"),
        (200, "text/html", TrackingError, "is not the address of an MLflow server"),
        (403, "text/plain", TrackingError, "refuses: "),
        (503, "text/plain", NoAnswerError, "does not answer: status 503"),
    ],
)
def test_a_wrong_server_differs_from_a_restarting_one(answers, status, kind, error, why):
    place, here = answers
    here.status, here.kind = status, kind
    with pytest.raises(error) as caught:
        check_answer(f"http://me:s3cret@{place}")
    assert why in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert isinstance(caught.value, NoAnswerError) is (error is NoAnswerError)


def test_a_detector_of_a_server_that_is_gone_is_one_line_at_once(answers, monkeypatch):
    place, _ = answers
    host, port = place.split(":")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:s3cret@{host}:1")
    forget_store_keeping_the_environment()
    with pytest.raises(HmmExpError) as caught:
        load_detector("models:/hmm_regime/Production")
    assert f"http://{host}:1 does not answer: Connection refused" in str(caught.value)
    assert int(port) > 1


def forget_store_keeping_the_environment() -> None:
    """`set_tracking_uri(None)` would take the variable away."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    forget_store()
    os.environ["MLFLOW_TRACKING_URI"] = uri


@pytest.mark.slow
def test_a_server_with_users_takes_the_right_password_and_nothing_keeps_it(
    tmp_path, empty_store, train_cli
):
    """A real MLflow server with its own users, in `server`; the work is done in `work`."""
    pytest.importorskip("flask_wtf", reason="mlflow[auth] is not installed")
    from hmm_exp.server.postgres import free_port

    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--app-name", "basic-auth", "--serve-artifacts"]
    command += ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "kept"]
    settings = {
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "any",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    for name in ("server", "work"):
        (tmp_path / name).mkdir()
    shutil.copy(empty_store, tmp_path / "server" / "mlflow.db")
    server = subprocess.Popen(
        command,
        cwd=tmp_path / "server",
        env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")} | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        patiently(lambda: check_answer(f"http://admin:{PASSWORD}@127.0.0.1:{port}"), 120.0)
        hash_fast(tmp_path / "server" / "basic_auth.db")
        use_server_with_users(f"127.0.0.1:{port}")
        train_on_server_with_users(f"127.0.0.1:{port}", tmp_path / "work", train_cli)
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
        forget_store()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


PASSWORD = "right-password-123"


def hash_fast(users: Path) -> None:
    """Keep the password as a hash of one round: MLflow hashes it at every request."""
    from werkzeug.security import generate_password_hash

    hashed = generate_password_hash(PASSWORD, method="pbkdf2:sha256:1")
    execute(users, f"UPDATE users SET password_hash = '{hashed}' WHERE username = 'admin'")


def train_on_server_with_users(place: str, folder: Path, train_cli) -> None:
    """A sweep, the login on its command line, from where it gets into most files."""
    words = ("data.n_bars=2500", "model.n_init=1", "model.n_states=2", "promote=false")
    words += ("tracking.figures=false", "tracking.report=false")
    done = train_cli(folder, "-m", *words, f"tracking.uri=http://admin:{PASSWORD}@{place}")
    assert done.returncode == 0, done.stderr
    assert f"compare: http://{place}/#/experiments" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr
    assert len(list(folder.rglob("*.yaml"))) == 4  # of Hydra


def use_server_with_users(place: str) -> None:
    whole = f"http://admin:{PASSWORD}@{place}"
    for login in ("", "admin:wrong-password@", "nobody:right-password-123@"):
        with pytest.raises(TrackingError, match="refuses the login"):
            open_store(TrackingConfig(uri=f"http://{login}{place}"))
        with pytest.raises(TrackingError, match="refuses the login"):
            connect(f"http://{login}{place}")
    run_id = candidate(open_store(TrackingConfig(uri=whole)), small_detector())
    assert load_detector(f"runs:/{run_id}").labels == small_detector().labels
    assert connect(whole).get_run(run_id).info.status == "FINISHED"
