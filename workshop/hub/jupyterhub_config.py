"""JupyterHub's settings, made from what run.py was asked for (CACHELAB_HUB, as JSON)."""

import json
import os
from pathlib import Path

from accounts import INSTRUCTOR, kept
from login import PasswordFile
from spawner import LearnerSpawner

chosen = json.loads(os.environ["CACHELAB_HUB"])
folder = Path(chosen["folder"])
c = get_config()  # noqa: F821  (given by traitlets)

# Who may come in: the class and its instructor, who sees in the admin page who is there.
c.JupyterHub.authenticator_class = PasswordFile
c.PasswordFile.hashes = kept(folder)
c.Authenticator.allowed_users = {*chosen["names"], INSTRUCTOR}
c.Authenticator.admin_users = {INSTRUCTOR}
c.Authenticator.allow_existing_users = False  # whoever is not named this time stays out

# Where: the proxy is the only door. It and the hub's own port are on this machine only.
c.JupyterHub.bind_url = chosen["url"]
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{chosen['hub_port']}"
c.ConfigurableHTTPProxy.should_start = False  # run.py starts it, under the same guard
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{chosen['proxy_api_port']}"

# What is kept: logins and servers in a database that only its owner can read (umask 077).
c.JupyterHub.cookie_secret_file = str(folder / "cookie_secret")
c.JupyterHub.db_url = f"sqlite:///{folder / 'hub.sqlite'}"

# A server for each learner, ended with the hub.
c.JupyterHub.spawner_class = LearnerSpawner
c.JupyterHub.cleanup_servers = True
c.LearnerSpawner.homes = str(folder / "homes")
c.LearnerSpawner.logs = str(folder / "logs")
c.LearnerSpawner.of_each = chosen["of_each"]
c.Spawner.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.Spawner.env_keep = [
    *("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "TZ", "VIRTUAL_ENV"),
    *("CACHELAB_BACKEND", "CACHELAB_SERVER", "CACHELAB_EDGE", "CACHELAB_REDIS_URL"),
    *("CACHELAB_DATABASE_URL", "CACHELAB_CLASS_URL"),
]
c.Spawner.environment = {
    "CACHELAB_HUB_LABS": chosen["labs"],
    "CACHELAB_HUB_IDLE_MINUTES": str(chosen["idle_minutes"]),
}
# Forty people log in at nine o'clock, on few cores.
c.Spawner.start_timeout = 300
c.Spawner.http_timeout = 300

# The log is a file; what went wrong is on the terminal too.
c.JupyterHub.logging_config = {
    "formatters": {"line": {"format": "[%(levelname)s %(asctime)s %(name)s] %(message)s"}},
    "handlers": {
        "console": {"level": "ERROR"},
        "file": {
            "class": "logging.FileHandler",
            "filename": str(folder / "logs" / "hub.log"),
            "formatter": "line",
            "level": "INFO",
        },
    },
    "loggers": {"JupyterHub": {"handlers": ["console", "file"]}},
}
