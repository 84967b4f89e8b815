"""`python -m hmm_exp.monitor`: the command `hmm-monitor`."""

import sys

from hmm_exp.commands.monitor import main

if __name__ == "__main__":
    sys.exit(main())
