"""Put a model into Production, if the gate lets it.

Exit status: 0 promoted, or in Production already; 1 refused; 2 bad input.
"""

import argparse

from hmm_exp.command_line import DONE, REFUSED, Parser, add_store_options, exit_status, named

EXAMPLES = """examples:
  hmm-promote --sweep latest --dry-run                # would the winner pass?
  hmm-promote --sweep 20260102-150405-ab12             # promote the winner
  hmm-promote --run 0a1b2c3d4e5f --gate strict         # promote one run
  hmm-promote --run 0a1b2c3d4e5f --force               # against the gate's reasons

exit status: 0 promoted, or in Production already; 1 refused; 2 bad input
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-promote",
        description="Put a model into Production, if the gate lets it.",
        epilog=EXAMPLES,
    )
    candidate = parser.add_mutually_exclusive_group(required=True)
    candidate.add_argument("--run", metavar="ID", help="the run that holds the model")
    candidate.add_argument(
        "--sweep",
        type=named("sweep_id"),
        metavar="ID",
        help="the sweep whose winner is meant, or latest",
    )
    add = parser.add_argument
    add("--gate", default="default", metavar="NAME", help="default, strict or off")
    add("--dry-run", action="store_true", help="say what would be done, change nothing")
    add("--force", action="store_true", help="turn the gate's reasons into recorded warnings")
    add_store_options(parser)
    return parser.parse_args(argv)


def promote(args: argparse.Namespace) -> int:
    """Choose where a sweep is meant, ask the gate, promote, and say so; gives the exit status."""
    from hmm_exp.registry import promotion
    from hmm_exp.registry.gate import named_gate
    from hmm_exp.store import store

    gate = named_gate(args.gate)
    client = store.connect(args.tracking_uri)
    run_id = args.run or _winner(client, args.sweep)
    if run_id is None:
        return REFUSED
    decision = promotion.promote(
        client,
        run_id,
        registry_name=args.registry,
        gate=gate,
        force=args.force,
        dry_run=args.dry_run,
    )
    print(*decision.lines(args.registry), sep="\n")
    return REFUSED if decision.refused else DONE


def _winner(client, sweep_id: str) -> str | None:
    """Winning run of a sweep, with the reason printed."""
    from hmm_exp.sweep.leaderboard import choose
    from hmm_exp.tracking.runs import latest_sweep_id, sweep_parent

    if sweep_id == "latest":
        sweep_id = latest_sweep_id(client)
    sweep_parent(client, sweep_id)  # an unknown sweep is bad input, not a refusal
    choice = choose(client, sweep_id)
    print(*choice.reasons, sep="\n")
    return choice.run_id


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(promote, parse(argv))
