"""`python -m cachelab` is the same as `cachelab`."""

import sys

from cachelab.cli import main

sys.exit(main())
