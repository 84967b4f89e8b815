"""Bring back the version that was in Production before: `hmm-registry rollback`."""

import sys

from hmm_exp.commands import registry


def main(argv: list[str] | None = None) -> int:
    """Roll back; options as of `hmm-registry rollback`."""
    return registry.main(["rollback", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
