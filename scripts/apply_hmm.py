"""Regimes for new bars, by a promoted model: `hmm-apply`."""

import sys

from hmm_exp.commands.apply import main

if __name__ == "__main__":
    sys.exit(main())
