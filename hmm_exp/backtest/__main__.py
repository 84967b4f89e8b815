"""`python -m hmm_exp.backtest`: the command `hmm-backtest`."""

import sys

from hmm_exp.commands.backtest import main

if __name__ == "__main__":
    sys.exit(main())
