"""Serve a tracking store for many machines: MLflow over a private PostgreSQL, on loopback.

Exit status: 0 stopped by Ctrl-C; 2 bad input, or MLflow or PostgreSQL does not run.
"""

import argparse
import signal
import sys
from pathlib import Path

from hmm_exp.command_line import DONE, Parser, exit_status, whole

EXAMPLES = """examples:
  hmm-server                                 # http://127.0.0.1:5000, mlruns/server
  hmm-server --folder /srv/mlflow --port 5050
  hmm-server --stop-leftover                 # after a kill -9: end leftover processes first
  hmm-server -- --allowed-hosts mlflow.example.com    # options for mlflow server

The folder holds everything: database/ (PostgreSQL), artifacts/, pgpass and mlflow.log. Clients
need only MLFLOW_TRACKING_URI=http://127.0.0.1:5000. Ctrl-C stops both servers. Several servers
can run at once, each with its own folder and port.
docs/how-to/team-server.md explains how to give a team access.
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-server",
        description="Serve a tracking store: MLflow over a private PostgreSQL, on loopback.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("mlruns/server"),
        help="folder of database and artifacts (default: mlruns/server)",
    )
    parser.add_argument(
        "--port", type=whole(1, 65_535), default=5000, help="port on 127.0.0.1 (default: 5000)"
    )
    parser.add_argument(
        "--workers", type=whole(1, 1000), default=2, help="worker processes of MLflow (default: 2)"
    )
    parser.add_argument(
        "--stop-leftover",
        action="store_true",
        help="first end the processes that a killed hmm-server left running in the folder",
    )
    parser.add_argument("options", nargs="*", help="after --: options for mlflow server")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    from hmm_exp.server.server import SharedStore

    for number in (signal.SIGINT, signal.SIGTERM):  # by which it is stopped in good order
        signal.signal(number, signal.default_int_handler)
    try:
        options = tuple(args.options)
        with SharedStore(
            args.folder, args.port, args.workers, options, args.stop_leftover
        ) as store:
            print(f"MLflow over PostgreSQL in {store.folder}; Ctrl-C stops both")
            print(f"export MLFLOW_TRACKING_URI={store.uri}", flush=True)
            store.wait()
    except KeyboardInterrupt:
        pass
    return DONE


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(run, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
