"""`colordaemon watch` with a worker that copies in place of coloring: only the daemon is measured.

python benchmarks/copying_daemon.py watch CONFIG
"""

from __future__ import annotations

import shutil
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from colordaemon.config_file import load_config
from colordaemon.logs import set_up_logging
from colordaemon.service.daemon import watch_forever
from colordaemon.service.messages import Finished, Order, Ready, Started
from colordaemon.service.supervisor import WorkerProcess

WORKER = (sys.executable, __file__, "work")


def watch(config: Path) -> None:
    set_up_logging()
    watch_forever(
        lambda: load_config(config), lambda routing, _: WorkerProcess(routing, None, WORKER)
    )


def work(descriptor: int) -> None:
    with Connection(descriptor) as connection:
        connection.recv()
        connection.send(Ready("a copier"))
        while True:
            try:
                order = connection.recv()
            except EOFError:
                break
            if isinstance(order, Order):
                copy(order, connection)


def copy(order: Order, connection: Connection) -> None:
    connection.send(Started(order.job))
    order.folder.mkdir(parents=True, exist_ok=True)
    partial = order.folder / f"{order.tag}.partial"
    shutil.copyfile(order.source, partial)
    target = order.folder / order.source.name
    connection.send(Finished(order.job, partial, target, "", "copied", ()))


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch(Path(sys.argv[2]))
    else:
        work(int(sys.argv[2]))
