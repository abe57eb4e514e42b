"""What the main loop waits for: whoever has something to say, but not longer than it likes."""

from __future__ import annotations

import selectors

from colordaemon.service.event_loop import Wake
from colordaemon.service.supervisor import WorkerProcess


class Listening:
    """Callers register with the selector a function that is called when they have something."""

    def __init__(self, wake: Wake) -> None:
        self.selector = selectors.DefaultSelector()
        self.selector.register(wake, selectors.EVENT_READ, wake.clear)
        self._worker: WorkerProcess | None = None
        self._worker_fd = -1

    def follow(self, worker: WorkerProcess | None) -> None:
        """Listen to the worker of this moment."""
        if worker is self._worker:
            return
        if self._worker is not None:
            self.selector.unregister(self._worker_fd)  # closed by now, perhaps
        if worker is not None:
            self._worker_fd = worker.fileno()
            self.selector.register(self._worker_fd, selectors.EVENT_READ, lambda: None)
        self._worker = worker

    def wait(self, seconds: float) -> None:
        for key, _ in self.selector.select(seconds):
            key.data()

    def close(self) -> None:
        self.selector.close()
