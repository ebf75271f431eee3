"""`python -m sweep` is the command `isosweep`."""

import sys

from sweep.cli import main

sys.exit(main())
