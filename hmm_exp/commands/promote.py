"""Promote a model to Production if it passes the gate.

Exit status: 0 promoted, or in Production already; 1 refused; 2 bad input.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from hmm_exp.command_line import DONE, REFUSED, Parser, add_store_options, exit_status, named

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

    from hmm_exp.config import GateConfig
    from hmm_exp.registry.gate import PanelTest

EXAMPLES = """examples:
  hmm-promote --sweep latest --dry-run                 # would the winner pass?
  hmm-promote --sweep 20260102-150405-ab12             # promote the winner
  hmm-promote --run 0a1b2c3d4e5f --gate strict         # promote this run
  hmm-promote --run 0a1b2c3d4e5f --force               # even if the gate refuses it

exit status: 0 promoted, or in Production already; 1 refused; 2 bad input
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-promote",
        description="Promote a model to Production if it passes the gate.",
        epilog=EXAMPLES,
    )
    candidate = parser.add_mutually_exclusive_group(required=True)
    candidate.add_argument(
        "--run", metavar="ID", help="promote this run; the beginning of its id will do"
    )
    candidate.add_argument(
        "--sweep",
        type=named("sweep_id"),
        metavar="ID",
        help="promote the winner of this sweep; latest is the newest",
    )
    add = parser.add_argument
    add("--gate", default="default", metavar="NAME", help="default, strict, strictest or off")
    add("--dry-run", action="store_true", help="show the outcome, change nothing")
    add("--force", action="store_true", help="promote despite the gate, record its reasons")
    add_store_options(parser)
    return parser.parse_args(argv)


def promote(args: argparse.Namespace) -> int:
    """Find the run, apply the gate, promote, print the outcome; return the exit status."""
    from hmm_exp.registry import promotion
    from hmm_exp.registry.gate import named_gate
    from hmm_exp.store import store

    gate = named_gate(args.gate)
    client = store.connect(args.tracking_uri)
    if args.sweep and (panel := _panel(client, args.sweep)):
        return _promote_panel(client, panel, args, gate)
    run_id = _run(client, args.run) if args.run else _winner(client, args.sweep)
    if run_id is None:
        return REFUSED
    if args.run:
        run_id = _of_winner(client, run_id)
        _print_verdict(client, run_id)
    name, test = _of_symbol(client, run_id, args.registry, gate)
    decision = promotion.promote(
        client,
        run_id,
        registry_name=name,
        gate=gate,
        force=args.force,
        dry_run=args.dry_run,
        panel=test,
    )
    print(*decision.lines(name), sep="\n")
    return REFUSED if decision.refused else DONE


def _panel(client: "MlflowClient", sweep: str) -> "Run | None":
    """Parent run of a panel; None for a sweep over one market."""
    from hmm_exp.tracking import tags
    from hmm_exp.tracking.runs import sweep_named, sweep_parent

    parent = sweep_parent(client, sweep_named(client, sweep))
    return parent if tags.N_SYMBOLS in parent.data.tags else None


def _promote_panel(
    client: "MlflowClient", parent: "Run", args: argparse.Namespace, gate: "GateConfig"
) -> int:
    """Test the winners of a panel and promote those that pass; 0 if any is in Production."""
    from hmm_exp.errors import ConfigError
    from hmm_exp.panel.finish import FinishedPanel

    if args.force:
        raise ConfigError("--force promotes one run: give --run instead of --sweep")
    finished = FinishedPanel.recorded(client, parent, args.tracking_uri, gate, args.registry)
    tests = finished.test()
    decisions, failures = finished.promote(tests, args.dry_run)
    table = finished.table(tests, decisions)
    print(*finished.table_lines(table), "", *finished.verdict(table, tests), *failures, sep="\n")
    return DONE if table["promoted"].ne("no").any() and not failures else REFUSED


def _of_winner(client: "MlflowClient", run_id: str) -> str:
    """The winner's run for that of a sweep or of a panel's symbol; any other run itself."""
    from mlflow.exceptions import MlflowException

    from hmm_exp.tracking import tags

    try:
        return client.get_run(run_id).data.tags.get(tags.WINNER, run_id)
    except MlflowException:  # the promotion reports it
        return run_id


def _of_symbol(
    client: "MlflowClient", run_id: str, registry: str, gate: "GateConfig"
) -> "tuple[str, PanelTest | None]":
    """Registered model for a run, and for a cell of a panel the recorded test of its symbol.

    A pool has no such test.
    """
    from mlflow.exceptions import MlflowException

    from hmm_exp.config import Config
    from hmm_exp.registry.gate import recorded_test
    from hmm_exp.tracking import tags

    try:
        run = client.get_run(run_id)
    except MlflowException:  # the promotion reports it
        return registry, None
    is_pool = run.data.tags.get(tags.KIND) == tags.POOL
    if tags.SYMBOL not in run.data.tags and not is_pool:
        return registry, None
    if registry == Config().registry.name:
        registry = run.data.params.get("registry.name", registry)
    return registry, None if is_pool else recorded_test(client, run, gate)


def _run(client: "MlflowClient", name: str) -> str:
    """Full id of a run."""
    from hmm_exp.errors import TrackingError
    from hmm_exp.store.run_ids import full_run_id

    try:
        return full_run_id(client, name)
    except TrackingError as error:
        raise TrackingError(f"promotion of run {name}: {error}") from None


def _winner(client: "MlflowClient", sweep_id: str) -> str | None:
    """Winning run of a sweep; prints why it won, and the verdict on it."""
    from hmm_exp.sweep.leaderboard import choose
    from hmm_exp.sweep.verdict import verdict_lines
    from hmm_exp.tracking.runs import sweep_cells, sweep_named, sweep_parent

    sweep_id = sweep_named(client, sweep_id)
    parent = sweep_parent(client, sweep_id)  # an unknown sweep is bad input, not a refusal
    cells = sweep_cells(client, sweep_id)
    choice = choose(client, sweep_id, cells)
    print(*choice.reasons, sep="\n")
    for run in cells:
        if run.info.run_id == choice.run_id:
            print(*verdict_lines(client, run, cells, parent.data.metrics), sep="\n")
    return choice.run_id


def _print_verdict(client: "MlflowClient", run_id: str) -> None:
    """Print the verdict on a finished run; the gate refuses any other, with its reason."""
    from mlflow.exceptions import MlflowException

    from hmm_exp.sweep.verdict import verdict_lines
    from hmm_exp.tracking import tags
    from hmm_exp.tracking.runs import lacks, sweep_cells

    try:
        run = client.get_run(run_id)
    except MlflowException:
        return
    if run.info.status != "FINISHED" or lacks(run):
        return
    parent = run.data.tags.get(tags.PARENT_RUN)
    cells = sweep_cells(client, run.data.tags[tags.SWEEP_ID]) if parent else [run]
    cells = [cell for cell in cells if cell.data.tags.get(tags.PARENT_RUN) == parent]
    sweep = client.get_run(parent).data.metrics if parent else {}
    print(*verdict_lines(client, run, cells, sweep), sep="\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(promote, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
