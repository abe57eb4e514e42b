"""What comes with a decoded picture beside its pixels."""

from __future__ import annotations

from typing import Any, cast

from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame

from colordaemon.media.captions import CARRIED, Messages


def all_side_data(picture: VideoFrame) -> list[SideData]:
    return list(cast(Any, picture.side_data))  # PyAV's types take all of it for one


def messages_of(picture: VideoFrame) -> Messages:
    """Captions and the like, to be put into the new coded picture."""
    return tuple(
        (side.type.name, bytes(side))
        for side in all_side_data(picture)
        if side.type.name in CARRIED
    )
