"""Errors, sorted by who has to act.

    ColordaemonError
    ├── ConfigError      the operator corrects the configuration
    ├── ModelError       the operator supplies another model file, or a device
    ├── DataError        the operator corrects the training pictures
    ├── MediaError       nobody: this file can never be converted as it stands
    │   ├── AlreadyColor     nothing is wrong: the file has real color already
    │   │   └── OwnResult        nothing is wrong: the file was made by colordaemon
    │   └── TooLarge         it needs more memory than it may take, at least at the moment
    ├── TargetExists     the operator moves a file or asks to overwrite it
    ├── TargetTaken      the operator gives two sources different folders or names
    ├── SourceChanged    nobody: the queued file was removed or replaced; scans find the new one
    ├── GuideChanged     nobody: a reference or hints changed meanwhile; the file is colored anew
    ├── HelperLost       nobody: a machine is gone that colored a part of this film; others go on
    ├── HelperDied       nobody: a process died of a part of this film; perhaps the file is at fault
    ├── WorkerLost       the machine: no worker process can be kept alive
    └── Interrupted      a stop was asked for; the work may be done again

Every other exception (OSError, CUDA errors) is the machine's fault and may pass, so the caller may
try again later. A message names the file, what was found and what was expected.
"""

from __future__ import annotations

import errno

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
# Errors of failing disks and of shares that are down; never the fault of a file.
OF_DISKS = frozenset(
    (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO, errno.ENOTCONN,
     errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EREMOTEIO)
)  # fmt: skip


class ColordaemonError(Exception):
    """Base of every error that colordaemon raises on purpose."""


class ConfigError(ColordaemonError):
    """The configuration has mistakes; the message lists all of them, one per line."""


class ModelError(ColordaemonError):
    """A model file or device is missing, damaged, foreign or from a newer version."""


class DataError(ColordaemonError):
    """A folder of training pictures cannot be trained on."""


class MediaError(ColordaemonError):
    """A photo or film is damaged or of a kind that cannot be colored."""


class AlreadyColor(MediaError):
    """The source has real color, so coloring it would destroy information."""


class OwnResult(AlreadyColor):
    """The source is a result of colordaemon."""


class TooLarge(MediaError):
    """The file needs more memory than it may take; without others beside it, it might have more."""


class TargetExists(ColordaemonError):
    """The output file exists already, and `overwrite` is not set."""


class TargetTaken(ColordaemonError):
    """The output file was made a moment ago, in the same call, from another source, or is one."""


class SourceChanged(ColordaemonError):
    """The queued file was removed or replaced by another."""


class GuideChanged(ColordaemonError):
    """A picture that guides the colors of a file was changed or removed since work on it began."""


class HelperLost(ColordaemonError):
    """The machine is gone, or does not answer, that colored a part of a film."""


class HelperDied(ColordaemonError):
    """A process that colored a part of a film has died."""


class WorkerLost(ColordaemonError):
    """The worker process dies again and again before it is ready."""


class Interrupted(ColordaemonError):
    """Work was stopped on request before it was finished."""
