"""What runs as one learner's server: fills their home with the workbook, then becomes JupyterLab.

Started by the local hub (spawner.py) and, in the image, by the cluster's (values.yaml). HOME is the
learner's; CACHELAB_HUB_LABS, where set, is a folder of labs as they are given, and
CACHELAB_HUB_RUNTIME one for the sockets of kernels.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from homes import prepare

from cachelab.command.jupyter import set_environment

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Does not return: this process becomes jupyterhub-singleuser."""
    home, labs = Path.home(), os.environ.get("CACHELAB_HUB_LABS")
    try:
        prepare(home, HERE.parents[1], Path(labs) if labs else None)
        os.chdir(home)
    except OSError as error:
        sys.exit(f"The workbook could not be copied to {home} ({error}): nothing was lost.")
    os.environ["CACHELAB_ROOT"] = str(home)
    os.environ["CACHELAB_HOME"] = str(home / ".cachelab" / "home")
    set_environment(home)
    if runtime := os.environ.get("CACHELAB_HUB_RUNTIME"):
        os.environ["JUPYTER_RUNTIME_DIR"] = runtime
    settings = f"--config={HERE / 'singleuser_config.py'}"
    os.execv(
        sys.executable,
        [sys.executable, "-m", "jupyterhub.singleuser", settings, *sys.argv[1:]],
    )


if __name__ == "__main__":
    main()
