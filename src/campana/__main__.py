"""`python -m campana`: the same as the command `campana`."""

import sys

from campana.cli import main

sys.exit(main())
