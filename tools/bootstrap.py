"""Tell an old Python in one sentence that it is too old, and start the set-up with a new one.

Any Python since 2.7 can read this file; what it starts, tools/setup_venv.py, needs 3.11.
"""

import os
import runpy
import sys

if sys.version_info < (3, 11):
    sys.stderr.write(
        "Cachelab needs Python 3.11 or newer; this is %s at %s. Install a newer one, then run the "
        'same command again or name it: make lab PYTHON="/path/to/python3.12".\n'
        % (".".join(str(part) for part in sys.version_info[:3]), sys.executable)
    )
    sys.exit(1)

if __name__ == "__main__":
    runpy.run_path(
        os.path.join(os.path.dirname(os.path.abspath(__file__)), "setup_venv.py"),
        run_name="__main__",
    )
