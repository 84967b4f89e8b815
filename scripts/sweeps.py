"""List, show, clean and close the sweeps of a store: `hmm-sweeps`."""

import sys

from hmm_exp.commands.sweeps import main

if __name__ == "__main__":
    sys.exit(main())
