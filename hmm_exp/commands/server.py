"""Serve a store for many machines: MLflow over a private PostgreSQL, on loopback.

Exit status: 0 stopped by Ctrl-C, 2 bad input or one of the two does not run.
"""

import argparse
import signal
from pathlib import Path

from hmm_exp.command_line import DONE, Parser, exit_status, whole

EXAMPLES = """examples:
  hmm-server                                 # http://127.0.0.1:5000, mlruns/server
  hmm-server --folder /srv/mlflow --port 5050
  hmm-server --stop-leftover                 # after a kill -9: end what it left, then serve
  hmm-server -- --allowed-hosts mlflow.example.com    # more words for mlflow server

The folder holds all there is: database/ (PostgreSQL), artifacts/, pgpass and mlflow.log. Clients
need MLFLOW_TRACKING_URI=http://127.0.0.1:5000 and nothing else. Ctrl-C stops both. Servers in
several folders, each on its own port, do not meet.
docs/how-to/team-server.md tells how to let a team in.
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-server",
        description="Serve a store: MLflow over a private PostgreSQL, on loopback.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("mlruns/server"),
        help="where database and artifacts are kept (default: mlruns/server)",
    )
    parser.add_argument(
        "--port", type=whole(1, 65_535), default=5000, help="port on 127.0.0.1 (default: 5000)"
    )
    parser.add_argument(
        "--workers",
        type=whole(1, 1000),
        default=2,
        help="processes that answer requests (default: 2)",
    )
    parser.add_argument(
        "--stop-leftover",
        action="store_true",
        help="first end MLflow and PostgreSQL that a killed hmm-server left in the folder",
    )
    parser.add_argument("options", nargs="*", help="after --: more words for mlflow server")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    from hmm_exp.server.server import SharedStore

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options = tuple(args.options)
        with SharedStore(
            args.folder, args.port, args.workers, options, args.stop_leftover
        ) as store:
            print(f"MLflow over PostgreSQL, kept in {store.folder}; Ctrl-C stops both")
            print(f"export MLFLOW_TRACKING_URI={store.uri}", flush=True)
            store.wait()
    except KeyboardInterrupt:
        pass
    return DONE


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    return exit_status(run, parse(argv))
