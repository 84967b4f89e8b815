"""Hostile input: each case must give a correct result, or one line, status 2 and no files.

    nice python benchmarks/fuzz.py --cases 5000
    nice python benchmarks/fuzz.py --overrides 2000 [--seed 0] [--only NUMBER] [--show]

`--cases` are files of bars, `--overrides` command lines of `hmm_exp.train`.

What is counted as wrong is shown, with `--show` every case; `--only` runs one of them. A case that
takes more than 20 s is run once more, for 60 s: where others work, a slow one is no hang. Exit
status 1 when anything was wrong. The module of a kind says what its cases cover; another kind
is a function from a seed to cases by number, named in `KINDS`.
"""

import argparse
import sys

from forks import FINE, WRONG, counted
from fuzz_files import file_cases
from fuzz_overrides import override_sets

KINDS = {"cases": file_cases, "overrides": override_sets}


def main() -> int:
    """Run cases of each kind that is asked for and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind in KINDS:
        about = KINDS[kind].__doc__ or ""
        parser.add_argument(f"--{kind}", type=int, default=0, metavar="N", help=about.lower())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="run one case and show it")
    parser.add_argument("--show", action="store_true", help="show every case, not only the wrong")
    args = parser.parse_args()
    table = {}
    for kind, cases in KINDS.items():
        if (n := getattr(args, kind)) or args.only is not None:
            numbers = range(n) if args.only is None else [args.only]
            table[kind] = counted(cases(args.seed), numbers, args.show or args.only is not None)
    print(f"{'':28}" + "".join(f"{kind:>12}" for kind in table))
    for name in (*FINE, *WRONG):
        print(f"{name:28}" + "".join(f"{counts[name]:>12,}" for counts in table.values()))
    return int(any(counts[name] for counts in table.values() for name in WRONG))


if __name__ == "__main__":
    sys.exit(main())
