"""The worker; some files bring about errors as of the machine's ("refused"), or want more memory
than there may be ("greedy"), and while there is a file $BROKEN, the model only does to warm up."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colordaemon.convert.convert import prepare
from colordaemon.network.colorizer import Colorizer
from colordaemon.service import coloring, worker


def main() -> None:
    torch.set_num_threads(1)
    predict_ab, warm = Colorizer.predict_ab, list[Colorizer]()

    def breaking(self: Colorizer, *rest: Any, **options: Any) -> Tensor:
        if self in warm and Path(os.environ["BROKEN"]).exists():
            raise RuntimeError("CUDA error: unspecified launch failure")
        warm.append(self)
        return predict_ab(self, *rest, **options)

    def suspicious(source: Path, *rest: Any, **options: Any) -> Any:
        if "refused" in source.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(source))
        if "greedy" in source.name:
            hoard = []
            while True:
                hoard.append(bytearray(1 << 26))
        return prepare(source, *rest, **options)

    Colorizer.predict_ab = breaking  # type: ignore[method-assign]
    coloring.prepare = suspicious  # type: ignore[attr-defined]
    worker.main()
