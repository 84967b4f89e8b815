"""The child process that fits the cells of a sweep in turn.

    python -m hmm_exp.sweep.worker 5      # started by `child.Worker`, never by hand

Its argument is the descriptor of the channel on which it takes requests and answers. Prints of a
cell, and the traceback of a crash, go to the cell's log file. It never uses MLflow: it leaves a
bundle on disk. It ends when its parent ends.
"""

import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from hmm_exp.command_line import quiet_libraries
from hmm_exp.compiling import when_compiling
from hmm_exp.config import Config
from hmm_exp.errors import HmmExpError, described, refusal
from hmm_exp.experiment.prepare import Prepared, prepare
from hmm_exp.experiment.source import forget_sources
from hmm_exp.sweep import beside
from hmm_exp.sweep.ahead import Ahead, print_to
from hmm_exp.sweep.garbage import collect_seldom
from hmm_exp.sweep.progress import ProgressThread
from hmm_exp.tracking.bundle import data_identity

if TYPE_CHECKING:
    import pandas as pd

    from hmm_exp.experiment.result import RunResult
    from hmm_exp.experiment.run import Fitted

# What a request other than `prepare` needs; the first line of a sweep does not wait for it.
FOR_FITS = ("hmm_exp.experiment.run", "hmm_exp.tracking.pack", "sklearn.preprocessing")
OUT_OF_MEMORY_FIRST = "500"  # of -1000..1000: of all processes the kernel shall take this one
log = logging.getLogger("hmm_exp")


class _Answers:
    """Messages to the parent, written whole, from any thread."""

    def __init__(self, channel: Connection) -> None:
        self._channel, self._lock = channel, threading.Lock()
        self._starting = 0  # nested

    def send(self, kind: str, content: Any = None) -> None:
        if self._channel.closed:  # in a copy of this process
            return
        with self._lock:
            try:
                self._channel.send((kind, content))
            except ConnectionError:  # the parent is gone
                os._exit(1)

    def starting(self, begun: bool) -> None:
        """Say when start-up or compiling begins and ends: the clock of a request stands then."""
        self._starting += 1 if begun else -1
        if self._starting == int(begun):
            self.send("compiling", begun)

    def close(self) -> None:
        """Send no more from this process."""
        self._channel.close()


class _ParentHandler(logging.Handler):
    """Passes log messages on to the parent's terminal."""

    def __init__(self, answers: _Answers) -> None:
        super().__init__(logging.INFO)
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        self._answers.send("log", (record.name, record.levelno, record.getMessage()))


class _Server:
    """The state between two requests: what is prepared, and the log file."""

    def __init__(self, answers: _Answers) -> None:
        self.answers = answers
        self.prepared: Prepared | None = None
        self.results: dict[str, RunResult] = {}  # of cells on the same data, by fingerprint
        self.ahead: Ahead | None = None  # fits that are made before they are asked for
        self.log_file: Path | None = None
        self.write: Callable[[], object] | None = None  # what is left to do of the last fit
        self.folder: Path | None = None  # its destination
        self.can_draw = False  # whether all that figures need is loaded
        self.familiar: set[str] = set()  # kinds of runs that this process has judged

    def prepare(self, settings: Config, log_file: Path | None) -> dict[str, str]:
        """Prepare the data of a cell; gives its identifying tags."""
        self.log_file = log_file
        if log_file is not None:
            _print_into(log_file)
        self.prepared = None
        kept = next(iter(self.results.values()), None)
        if kept is not None and kept.config.data != settings.data:  # one symbol in memory at a time
            del kept
            self.results.clear()
            forget_sources()
        self.prepared = prepare(settings)
        return data_identity(self.prepared)

    def work_ahead(self, cells: list[Config]) -> None:
        """Load what a cell needs, and let a copy of this process fit cells until one is asked."""
        self.can_draw = _warm_up(self.answers)
        if cells and beside.IS_POSSIBLE:
            with suppress(OSError):  # no room for another process
                self.ahead = Ahead(cells, prepare=self.answers.close)

    def fit(self, folder: Path, watched: bool = False) -> bool:
        """Fit the prepared data; it is judged, and its bundle written, after the answer.

        Gives whether a copy of this process does that, so that this one can take a request.
        """
        assert self.prepared is not None
        fit = self.ahead.take(self.prepared) if self.ahead else None
        if fit is None:
            fit = self._fitted(self.prepared, watched)
        self.write, self.folder = self._rest(fit, folder), folder
        return self.writes_beside

    def _fitted(self, prepared: Prepared, watched: bool) -> "Fitted":
        """Fit, and report the stages and the climb."""
        from hmm_exp.experiment.run import fitted

        tell = partial(self.answers.send, "progress")
        with ProgressThread(tell, watched) as report:
            return fitted(prepared, partial(_stage, report))

    def _rest(self, fit: "Fitted", folder: Path) -> Callable[[], object]:
        """What is left to do of a fit.

        The first of its kind is judged at once, so that copies start with what that loads and
        computes of the bars; and a symbol's, for what is shown of its winner.
        """
        from hmm_exp.experiment.run import evaluated
        from hmm_exp.tracking.pack import write_bundle

        settings, log_file = fit.prepared.config, self.log_file
        stage = partial(_stage, partial(self.answers.send, "progress"))

        def write(result: "RunResult") -> None:
            stage("writing")
            write_bundle(result, folder, log_file)

        kind = repr((settings.data, settings.split, settings.timeframe, settings.model.emission))
        if kind in self.familiar and settings.sweep.symbol is None:
            return lambda: write(evaluated(fit, stage))
        result = evaluated(fit, stage)
        self.familiar.add(kind)
        if settings.sweep.symbol is not None:
            self.results[fit.prepared.fingerprint] = result
        return partial(write, result)

    @property
    def writes_beside(self) -> bool:
        """Whether a copy of this process judges the fit and writes the bundle.

        Without figures, that is faster than copying. The first figures are drawn here, so that
        later copies start with the drawing code loaded.
        """
        assert self.prepared is not None
        return beside.IS_POSSIBLE and self.can_draw and self.prepared.config.tracking.figures

    def write_last(self) -> None:
        """Do the rest of the last fit, its bundle with the figures, and tell the parent."""
        write, self.write, folder = self.write, None, self.folder
        if write is None or self.prepared is None:
            return

        def done(reason: str | None) -> None:
            self.answers.send("written", (str(folder), reason))

        if self.writes_beside:
            within, close = self.prepared.config.sweep.cell_timeout, self.answers.close
            with suppress(OSError):  # no room for another process
                beside.work_beside(write, within=within, prepare=close, done=done)
                return
        try:
            write()
            self.can_draw = self.can_draw or self.prepared.config.tracking.figures
        except BaseException as error:
            traceback.print_exc()
            done(described(error))
        else:
            done(None)

    def show(self, settings: Config, fingerprint: str, folder: Path) -> dict[str, str]:
        """Write what is shown of a symbol's winner: its regimes by day, and its figures.

        A winner of an earlier start of the sweep is fitted again. Gives its regime now.
        """
        from hmm_exp.experiment.artifacts import write_figures
        from hmm_exp.experiment.days import write_days
        from hmm_exp.experiment.result import regime_at_end
        from hmm_exp.experiment.run import run

        result = self.results.get(fingerprint) or run(prepare(settings))
        write_days(result, folder)
        if settings.tracking.figures:
            write_figures(result, folder / "plots")
        return regime_at_end(result.regimes)

    def load(self, *modules: str) -> None:
        """Load modules for a later `call`."""
        for name in modules:
            with suppress(Exception):  # the call raises it again
                import_module(name)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the package, `"module:function"`."""
        return resolve_name(name)(*arguments)

    def pool(
        self, settings: dict[str, Config], own: dict[str, Path], folder: Path, log_file: Path
    ) -> None:
        """Fit one model to symbols and write its bundle into `folder`.

        `own` holds the files with the scores of the symbols' own models.
        """
        import pandas as pd

        from hmm_exp.experiment.pool import Pool
        from hmm_exp.experiment.pool_result import run_pool
        from hmm_exp.tracking.pack import write_pool_bundle

        self.log_file = log_file
        _print_into(log_file)

        def own_scores(symbol: str) -> "pd.DataFrame | None":
            return pd.read_parquet(own[symbol]) if symbol in own else None

        def tell(text: str) -> None:
            self.answers.send("progress", text)

        rows = Pool.of([*settings], lambda symbol: prepare(settings[symbol]), tell)
        write_pool_bundle(run_pool(rows, own_scores, progress=tell), folder)


def main() -> None:
    """Serve requests until the parent closes the channel."""
    channel = Connection(int(sys.argv[1]))
    answers = _Answers(channel)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OUT_OF_MEMORY_FIRST)
    line = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.WARNING, format=line)
    quiet_libraries()
    logging.getLogger().handlers[0].setLevel(logging.WARNING)  # until there is a log file
    log.setLevel(logging.INFO)
    log.addHandler(_ParentHandler(answers))
    collect_seldom()
    requests: queue.Queue = queue.Queue()
    threading.Thread(target=_read, args=(channel, requests), daemon=True).start()
    when_compiling(answers.starting)
    answers.send("ready")
    server = _Server(answers)
    while True:
        name, arguments = requests.get()
        if name != "prepare":
            _import_for_fits(answers)
        if name in ("work_ahead", "load"):  # nobody waits for an answer
            getattr(server, name)(*arguments)
            continue
        answers.send(*_answer(server, name, arguments))
        server.write_last()  # while the parent makes the next request, or beside that


def _import_for_fits(answers: _Answers) -> None:
    """Import the rest."""
    if FOR_FITS[-1] in sys.modules:
        return
    answers.starting(True)
    with suppress(Exception):  # the next request raises it again and reports it
        for name in FOR_FITS:
            import_module(name)
        collect_seldom()
        from hmm_exp.experiment.first_use import compile_beside

        compile_beside(partial(_compile_in_copy, answers) if beside.IS_POSSIBLE else None)
    answers.starting(False)


def _compile_in_copy(answers: _Answers) -> None:
    """Let a copy of this process compile, silently, a part of what the first cell uses."""
    from hmm_exp.experiment.first_use import compile_the_rest

    def work() -> None:
        with Path(os.devnull).open("wb") as nowhere:
            print_to(nowhere.fileno())
        compile_the_rest()

    beside.work_beside(work, within=None, prepare=answers.close, done=lambda reason: None)


def _warm_up(answers: _Answers) -> bool:
    """Load what fits, judges and draws a cell; say whether that worked."""
    from hmm_exp.experiment.first_use import warm_up

    answers.starting(True)
    try:
        warm_up()
    except Exception:  # the first cell raises it again and reports it
        return False
    finally:
        answers.starting(False)
    return True


def _answer(server: _Server, name: str, arguments: tuple) -> tuple[str, Any]:
    """Answer a request; an error becomes an answer too."""
    try:
        return "done", getattr(server, name)(*arguments)
    except BaseException as error:  # also SystemExit: a cell costs only itself
        says_it_all = isinstance(error, HmmExpError) or refusal(error)
        if server.log_file is not None or not says_it_all:  # one line is all the terminal needs
            with suppress(OSError):  # the disk of the log is full
                traceback.print_exc()
        return "damaged" if isinstance(error, MemoryError) else "failed", described(error)


def _read(channel: Connection, requests: queue.Queue) -> None:
    """Pass requests on; when the channel closes the parent is gone and this process ends."""
    with suppress(EOFError, OSError):
        while True:
            requests.put(channel.recv())
    os._exit(0)


def _stage(report: Callable[[str], None], text: str) -> None:
    """Report the start of a stage, and print it into the log."""
    with suppress(OSError):  # the disk of the log is full
        print(text, file=sys.stderr, flush=True)
    report(text)


def _print_into(path: Path) -> None:
    """Redirect standard output and error into a file, for compiled code too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as target:
        print_to(target.fileno())
    logging.getLogger().handlers[0].setLevel(logging.NOTSET)


if __name__ == "__main__":
    main()
