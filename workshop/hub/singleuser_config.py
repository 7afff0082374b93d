"""JupyterLab on a hub: the workbook's own settings, and an end for kernels that nobody uses."""

import os
from pathlib import Path

from cachelab.command.jupyter import settings

c = get_config()  # noqa: F821  (given by traitlets)
c.merge(settings(Path(os.environ["CACHELAB_ROOT"])))

# A kernel that nobody looks at ends, and its cache with it; one with an open page does not.
idle_seconds = 60 * int(os.environ.get("CACHELAB_HUB_IDLE_MINUTES", "60"))
c.MappingKernelManager.cull_idle_timeout = idle_seconds
c.MappingKernelManager.cull_interval = 60
c.MappingKernelManager.cull_connected = False
# The server itself, when its last kernel is long gone; the next login starts it again.
c.ServerApp.shutdown_no_activity_timeout = 2 * idle_seconds

# Kernels on sockets instead of five ports each: of forty that start at once two would meet.
LONGEST = 50  # a socket's path may have 103 bytes on macOS and 107 on Linux; a kernel's name has 49
if 0 < len(os.environ.get("CACHELAB_HUB_RUNTIME", "")) <= LONGEST:
    c.KernelManager.transport = "ipc"
