"""Put a model into Production, if the gate lets it: `hmm-promote`."""

import sys

from hmm_exp.commands.promote import main

if __name__ == "__main__":
    sys.exit(main())
