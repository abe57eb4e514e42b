"""Carries out one order: colors a file of an inbox, and says how that ended.

It writes only partial files: the daemon gives results their names, and changes the journal and the
sources.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import av.error

from colordaemon.convert.beside import make_beside
from colordaemon.convert.convert import NoRoom, guide_for, prepare
from colordaemon.convert.models import ModelCache, Models
from colordaemon.convert.publish import RESULT, digest_of, result_name, seal
from colordaemon.convert.routing import Routing
from colordaemon.convert.samples import samples
from colordaemon.errors import (
    NO_SPACE,
    OF_DISKS,
    AlreadyColor,
    ConfigError,
    GuideChanged,
    HelperDied,
    Interrupted,
    MediaError,
    ModelError,
    SourceChanged,
    TooLarge,
)
from colordaemon.guide.sidecars import check_for_new
from colordaemon.inbox.safe_open import (
    Obstructed,
    OpenedSource,
    anchored,
    errors_by_name,
    opened_beneath,
    read_through,
    umask_for_folders,
)
from colordaemon.media.drawing import jpeg_of
from colordaemon.memory import limit_bytes
from colordaemon.network.colorizer import Colorizer
from colordaemon.service.messages import (
    Failed,
    Fault,
    Finished,
    FromWorker,
    Heartbeat,
    Machines,
    Order,
    Progress,
)
from colordaemon.service.publisher import check_length, private_folder
from colordaemon.service.thumbnails import MOST_PICTURES, Thumbnails
from colordaemon.work_context import Stage, WorkContext

log = logging.getLogger(__name__)

ALIVE_SECONDS = 1.0  # between two messages that the work goes on
_OF_THE_MACHINE = NO_SPACE | OF_DISKS | {
    errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EBUSY, errno.ENOENT,
    errno.EAGAIN,
}  # fmt: skip
_PRUNE_AFTER = 50  # files, after which the bounds of small pictures are checked again
# The fault for each of our own errors; the first that fits.
_FAULTS: dict[type[Exception], Fault] = {
    AlreadyColor: Fault.COLOR,
    TooLarge: Fault.MEMORY,
    MediaError: Fault.MEDIA,
    SourceChanged: Fault.CHANGED,
    GuideChanged: Fault.GUIDE,
    ConfigError: Fault.SETTINGS,
    ModelError: Fault.SETTINGS,
    HelperDied: Fault.CRASH,
    Interrupted: Fault.STOPPED,
    NoRoom: Fault.ROOM,
    Obstructed: Fault.WAY,
}

Send = Callable[[FromWorker], None]  # by any thread


class OrderContext(WorkContext):
    """Tells the daemon every second that the work on one order goes on. It is called by the work
    itself and not by a timer, so no message is sent when the work hangs."""

    def __init__(self, send: Send, order: Order) -> None:
        self._send, self._order, self._sent_at = send, order, time.monotonic()

    def begin(self, source: Path, seconds: float | None) -> None:
        self._total, self._frames, self._sent_at = seconds, 0, time.monotonic()
        self._send(Progress(self._order.job, 0.0, seconds, 0))

    def advance(self, seconds: float) -> None:
        self._frames += 1
        self._tell(Progress(self._order.job, seconds, self._total, self._frames))

    def heartbeat(self) -> None:
        self._tell(Heartbeat(self._order.job))

    def stage(self, name: Stage, share: float) -> None:
        self._tell(Heartbeat(self._order.job, name, share))

    def machines(self, found: Mapping[str, object]) -> None:
        self._send(Machines(found))

    def _tell(self, message: FromWorker) -> None:
        if time.monotonic() - self._sent_at >= ALIVE_SECONDS:
            self._sent_at = time.monotonic()
            self._send(message)


class Coloring:
    """Carries out orders; those for photos may be carried out by several threads. folder_umask:
    for folders of results, while files are private until they are finished."""

    def __init__(
        self, routing: Routing, cache: ModelCache, send: Send, folder_umask: int = 0o022
    ) -> None:
        """Raises ModelError."""
        self._routing, self._send, self._folder_umask = routing, send, folder_umask
        self._models = {id(each): Models(each, cache) for each in routing.configs}
        self._here = threading.Lock()  # for what needs much memory of this machine
        self._unpruned = _PRUNE_AFTER  # files that got small pictures since the last look at all

    def predict(self) -> Colorizer:
        """Color a picture with the first model, to see that this works. Raises ModelError."""
        with self._here:
            colorizer = self._models[id(self._routing.configs[0])].model_for(Path()).load()
            colorizer.warm_up()
        return colorizer

    def run(self, order: Order, context: WorkContext) -> None:
        """Sends the result, or what went wrong. Raises SystemExit where this process has to end."""
        try:
            self._color(order, context)
        except tuple(_FAULTS) as reason:
            fault = next(fault for kind, fault in _FAULTS.items() if isinstance(reason, kind))
            if fault is Fault.MEMORY and order.share == 1:
                fault = Fault.MEDIA
            self.fail(order, fault, _message_of(reason))
        except SystemExit:  # a photo between two segments of it has broken this process
            self.fail(order, Fault.STOPPED, "the worker has to be restarted")
            raise
        except Exception as error:
            self._fail_unexpectedly(order, error)

    def _fail_unexpectedly(self, order: Order, error: Exception) -> None:
        """Report an unexpected error: of the disk, of the machine, or of this file alone."""
        if _is_out_of_memory(error):
            limit = limit_bytes(self._routing.config_for(order.source).jobs.memory_mib) >> 20
            reason = f"out of memory, {limit} MiB is the limit (jobs.memory_mib)"
            self.fail(order, Fault.UNFORESEEN if order.share == 1 else Fault.MEMORY, reason)
            return
        number = error.errno if isinstance(error, OSError) else None
        if number in NO_SPACE | OF_DISKS:
            fault = Fault.SPACE if number in NO_SPACE else Fault.MACHINE
        elif not _is_of_the_machine(error):
            fault = Fault.UNFORESEEN
        else:
            fault = Fault.FILE if self._machine_works(order) else Fault.MACHINE
        reason = repr(error)
        if isinstance(error, OSError) and fault is not Fault.UNFORESEEN:
            reason = f"{error.strerror or error} ({error.filename or order.source})"
        else:
            log.error("%s: unexpected", order.source, exc_info=error)
        self.fail(order, fault, reason)
        if fault is Fault.MACHINE and not isinstance(error, OSError):
            # After a CUDA error no call of this process succeeds; the daemon starts another one.
            raise SystemExit(1) from error

    def _machine_works(self, order: Order) -> bool:
        """Whether another file could be colored now: the inbox can be read, the outbox can be
        written to, and the model works. Without this check a few bad files would pause all work."""
        try:
            with os.scandir(order.inbox) as entries:
                next(entries, None)
            with tempfile.TemporaryFile(dir=order.outbox) as file:
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
            self.predict()
        except Exception as error:
            log.warning("the machine does not work: %r", error)
            return False
        return True

    def _color(self, order: Order, context: WorkContext) -> None:
        with (
            opened_beneath(order.inbox, order.source, order.queued) as source,
            ExitStack() as stack,
            errors_by_name(),
        ):
            try:
                finished = self._colored(order, source, context, stack)
            except (AlreadyColor, TooLarge):
                raise
            except MediaError:
                read_through(source, context.heartbeat)
                raise
        self._send(finished)

    def _colored(
        self, order: Order, source: OpenedSource, context: WorkContext, stack: ExitStack
    ) -> Finished:
        config = self._routing.config_for(order.source)
        guide = guide_for(source, config, top=order.inbox)
        prepared = prepare(source, config, guide=guide, share=order.share)
        name = result_name(source, prepared.suffix, config)
        check_length(order.source, order.folder / name, order.folder / order.tag)
        with _way(order):  # as late as this, so that a file that fails leaves no empty folder
            with umask_for_folders(self._folder_umask):
                here = stack.enter_context(anchored(order.outbox, order.folder, make=True))
            work = private_folder(here, order.tag)
        partial = work / RESULT
        model = self._models[id(config)].model_for(order.source)
        colored = prepared.run(partial, model, context, work)
        if colored.is_damaged:
            read_through(source, context.heartbeat)
        check_for_new(source, guide, order.inbox)
        told = make_beside(prepared.film, source, partial, config.output, model.maker(), context)
        # In this process, since flushing gigabytes to the disk would block the daemon.
        seal(partial, source)
        algorithm, digest = config.after.algorithm, ""
        if algorithm is not None:
            tell = functools.partial(context.stage, "checksum")
            digest = digest_of(partial, algorithm, tell)
        self._keep_thumbnails(order, source, partial, context)
        return Finished(
            order.job,
            order.folder / work.name / RESULT,
            order.folder / name,
            digest,
            colored.summary,
            (*colored.remarks, *told),
            colored.inventory,
            colored.is_whole,
        )

    def _keep_thumbnails(
        self, order: Order, source: OpenedSource, partial: Path, context: WorkContext
    ) -> None:
        """Small pictures for the page. A file is done without them, whatever the error is."""
        if order.thumbnails is None:
            return
        thumbnails, settings = Thumbnails(order.thumbnails), self._routing.config.web
        try:
            with self._here:
                pictures = []
                for pair in samples(source, partial, MOST_PICTURES):
                    pictures.append((jpeg_of(pair[0]), jpeg_of(pair[1])))
                    context.heartbeat()
                thumbnails.write(order.tag, pictures)
                self._unpruned += 1
                if self._unpruned >= _PRUNE_AFTER:
                    self._unpruned = 0
                    thumbnails.prune(settings.thumbnails, settings.thumbnails_mib << 20)
        except Exception as error:
            log.warning("%s: no small pictures of it are kept: %s", order.source, error)

    def fail(self, order: Order, fault: Fault, reason: object) -> None:
        self._send(Failed(order.job, fault, str(reason)))


@contextmanager
def _way(order: Order) -> Iterator[None]:
    """Raises Obstructed for a folder of results that we may not write to; if it is the outbox
    itself, that is a fault of the machine."""
    try:
        yield
    except PermissionError as error:
        if order.folder == order.outbox:
            raise
        reason = f"{error.strerror}; expected a folder that colordaemon may write to"
        raise Obstructed(error.errno, reason, os.fspath(order.folder)) from error


def _message_of(reason: Exception) -> str:
    """The message of an error, without its error number."""
    if isinstance(reason, Obstructed):
        return f"{reason.filename}: {reason.strerror}"
    return str(reason.strerror if isinstance(reason, OSError) else reason)


def _is_of_the_machine(error: Exception) -> bool:
    """Whether an unexpected error comes from the machine and may pass, or from the file.

    FFmpeg's own errors come from the file unless they pass on an error of the system; torch has one
    class for all errors.
    """
    if isinstance(error, av.error.FFmpegError):
        return error.errno in _OF_THE_MACHINE
    if isinstance(error, RuntimeError):
        return any(word in str(error).lower() for word in ("cuda", "cudnn", "memory", "device"))
    return isinstance(error, OSError | MemoryError | ImportError)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether this process has reached its limit; not that of a GPU, which is shared."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = str(error).lower()
    is_allocation = isinstance(error, RuntimeError) and "defaultcpuallocator" in words
    return isinstance(error, MemoryError) or is_allocation or "insufficient memory" in words
