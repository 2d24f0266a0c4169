"""``python -m ptwalk``: the same as the command ``ptwalk``."""

import sys

from .cli import main

sys.exit(main())
