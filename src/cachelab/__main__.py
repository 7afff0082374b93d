"""`python -m cachelab` is the same as `cachelab`."""

import sys

from cachelab.command.cli import main

sys.exit(main())
