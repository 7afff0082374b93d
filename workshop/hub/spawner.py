"""Starts a learner's server as a process of our own user, which a guard lets die with the hub."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import zlib
from pathlib import Path
from typing import Any, ClassVar

from jupyterhub.spawner import Spawner
from ports import free_port
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from traitlets import Dict, Integer, Unicode

from cachelab.process.guard import Guard, GuardError

LEARNER = Path(__file__).resolve().with_name("learner.py")
TRIES = 3  # ports, for one start
POLITE_SECONDS = 8.0  # what a server has to end its kernels in


class LearnerSpawner(Spawner):
    """A process with a home, a log and a cache of its own. No limit on memory or processor."""

    guard: ClassVar[Guard]

    homes = Unicode(help="the folder of the homes").tag(config=True)
    logs = Unicode(help="the folder of the logs, one a learner").tag(config=True)
    of_each = Dict(help="name to settings that only this learner gets").tag(config=True)
    # Never restored from the hub's database: what an earlier hub had started has died with it.
    pid = Integer(0)

    def get_env(self) -> dict[str, str]:
        """JupyterHub's settings and this learner's."""
        name = self.user.name
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {
            **{key: str(value) for key, value in super().get_env().items()},
            "PATH": programs,
            "HOME": str(Path(self.homes, name)),
            "USER": name,
            "LOGNAME": name,
            "CACHELAB_HUB_RUNTIME": str(self.guard.folder / f"{zlib.crc32(name.encode()):08x}"),
            "SHELL": os.environ.get("SHELL", "/bin/sh"),
            **self.of_each.get(name, {}),
        }

    async def start(self) -> tuple[str, int]:
        """Start it and wait until it answers; returns its address and port.

        Raises RuntimeError when it ends again and again instead, which JupyterHub shows.
        """
        for _ in range(TRIES):
            self.ip, self.port = "127.0.0.1", free_port()
            self.pid = self.guard.spawn(
                [sys.executable, str(LEARNER), *self.get_args()],
                env=self.get_env(),
                # An absolute path: the guard's own folder is gone when somebody wants to read it.
                log=str(Path(self.logs, f"{self.user.name}.log")),
            )
            if await self._answers():
                return self.ip, self.port
            # Its port may have been taken meanwhile: another one.
        log = Path(self.logs, f"{self.user.name}.log")
        raise RuntimeError(f"The server ended {TRIES} times while it started; {log} says why.")

    async def _answers(self) -> bool:
        """Whether it is this server that answers at its port; False as soon as it has ended."""
        url = f"http://{self.ip}:{self.port}{self.server.base_url}api"
        while await self.poll() is None:
            try:
                reply = await AsyncHTTPClient().fetch(url, raise_error=False, request_timeout=2)
                if "X-JupyterHub-Version" in reply.headers:
                    return True
            except (OSError, HTTPClientError):
                pass  # not yet, or somebody else's port
            await asyncio.sleep(0.2)
        return False

    async def poll(self) -> int | None:
        """None while it runs, else its exit code."""
        if not self.pid:
            return 0
        try:
            code = self.guard.returncode(self.pid)
        except GuardError:
            code = 1
        if code is not None:
            self.clear_state()
        return code

    async def stop(self, now: bool = False) -> None:
        """End it with its kernels, politely first unless it has to be now."""
        pid = self.pid
        if not now:
            try:
                self.guard.signal(pid, signal.SIGTERM)
            except GuardError:
                return
            for _ in range(int(POLITE_SECONDS / 0.1)):
                if await self.poll() is not None:
                    return
                await asyncio.sleep(0.1)
        self.guard.kill(pid)
        await self.poll()

    def get_state(self) -> dict[str, Any]:
        """Nothing to remember: see `pid`."""
        return {}

    def clear_state(self) -> None:
        """It does not run any more."""
        super().clear_state()
        self.pid = 0
