"""Opens reference pictures for the network, which needs axes to compare them along."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from colordaemon.errors import MediaError
from colordaemon.guide.guide import Guide, GuidePicture
from colordaemon.guide.pictures import read_reference
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.match import Reference, make_reference


def check_axes(guide: Guide, colorizer: Colorizer, model: str) -> None:
    """Raises MediaError if a guide needs what a model lacks. model: its name."""
    if guide and not colorizer.compares:
        raise MediaError(
            f"{guide.pictures[0].path}: found the model {model}, which has no axes to compare"
            " pictures along, expected a model of a later training; `colordaemon train DIR"
            " --fit-axes MODEL` adds them to its file"
        )


def open_references(
    pictures: Sequence[GuidePicture],
    colorizer: Colorizer,
    heartbeat: Callable[[], None] = lambda: None,
) -> list[Reference]:
    """Pictures in color as the network compares them. Raises MediaError."""
    references = []
    for picture in pictures:
        heartbeat()
        rgb, opaque = read_reference(picture)
        references.append(
            make_reference(colorizer, rgb, opaque, start=picture.start, end=picture.end)
        )
    return references
