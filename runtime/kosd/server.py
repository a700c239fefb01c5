"""Runs the application under uvicorn, and tells systemd where it stands."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from types import FrameType

import uvicorn

from kosd import api
from kosd.daemon import Daemon

log = logging.getLogger("kosd")


class Server(uvicorn.Server):
    """uvicorn's server with the daemon's tasks around it."""

    def __init__(self, daemon: Daemon) -> None:
        config = daemon.loaded.config
        super().__init__(
            uvicorn.Config(
                api.build(daemon),
                host=config.listen_host,
                port=config.listen_port,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=128,
                timeout_keep_alive=10,
                timeout_graceful_shutdown=3,
            )
        )
        self._daemon = daemon
        self._tasks: list[asyncio.Task[None]] = []
        self.broken = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Looks at the node, listens, says READY, and looks again now that systemd knows this unit is up."""
        daemon = self._daemon
        await daemon.first_sample()
        await super().startup(sockets)
        if not self.started:
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, daemon.reload)
        daemon.notifier.ready(f"node is {daemon.health().status.value}")
        await daemon.observer.observe()
        daemon.after_sample()
        self._tasks = [
            asyncio.create_task(daemon.observer.run(daemon.after_sample), name="observer"),
            asyncio.create_task(daemon.notifier.keep_watchdog(), name="watchdog"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._tasks:
            task.cancel()
        self._daemon.end()
        await super().shutdown(sockets)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A daemon that no longer looks must not go on answering: it ends, and systemd starts it anew."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.critical("the %s died", task.get_name(), exc_info=error, extra={"event": "daemon.broken"})
        self.broken = True
        self.should_exit = True


def serve(daemon: Daemon) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    server = Server(daemon)
    # uvicorn raises the signal again behind its shutdown: a wanted end is not a death by signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _nothing)
    try:
        server.run()
    except SystemExit as ended:
        # uvicorn's way to say that it could not listen; its own log line says why.
        return ended.code if isinstance(ended.code, int) else 1
    return 0 if server.started and not server.broken else 1


def _nothing(number: int, frame: FrameType | None) -> None:
    return
