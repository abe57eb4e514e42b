"""The text tags of a film, and those that are added to its result."""

from __future__ import annotations

from pathlib import Path

from av.container import InputContainer
from av.stream import Stream

from colordaemon.media.originals import original_of
from colordaemon.media.provenance import OUR_TAG, SENTENCE, Maker, is_ours

# Tags that describe the old file or the old encoding.
_STALE_TAGS = frozenset(
    ("encoder", "major_brand", "minor_version", "compatible_brands", "duration", "bps",
     "number_of_frames", "number_of_bytes", "_statistics_tags", "_statistics_writing_app",
     "_statistics_writing_date_utc", "alpha_mode")
)  # fmt: skip
_COMMENTS = ("comment", "COMMENT", "comment_comment")  # the last in MXF


def is_stale(key: str) -> bool:
    """Whether a tag describes the old file."""
    return key.lower().removesuffix("-eng") in _STALE_TAGS or key.lower() == "timecode"


def tags_of_result(
    source: InputContainer, film: Stream, start_timecode: str, maker: Maker, format_name: str
) -> dict[str, str]:
    """Those of the source that are still true, its timecode, and what is said of the colors.

    start_timecode: that its pictures say; the container's own goes before. Matroska and MXF have no
    place for XMP, which says of the colors elsewhere what machines read.
    """
    tags = {k: v for k, v in source.metadata.items() if not is_stale(k)}
    timecode = timecode_of_film(source, film) or start_timecode
    if timecode:
        tags["timecode"] = timecode
    comment = next((tags[key] for key in _COMMENTS if key in tags), None)
    if not comment or not is_ours(comment):  # as is one that is colored again
        tags["comment"] = f"{comment}; {SENTENCE}" if comment else SENTENCE
    if format_name in ("matroska", "webm", "mxf"):
        tags |= maker.tags()
    if format_name == "mxf":
        tags = {key if _is_of_mxf(key) else f"comment_{key}": text for key, text in tags.items()}
    return tags


def _is_of_mxf(key: str) -> bool:
    """Whether FFmpeg writes it into MXF as it is; all others only as comments with a name."""
    return key in ("timecode", "reel_name") or key.startswith("comment_")


def is_result(source: InputContainer, path: Path) -> bool:
    """Whether a film's tags or XMP say that colordaemon made it."""
    own = any(key.upper().startswith(OUR_TAG) for key in source.metadata)
    return own or is_ours(*source.metadata.values(), original_of(source, path).xmp)


def timecode_of_film(source: InputContainer, film: Stream) -> str:
    """Its own where its container says it of streams; empty if none."""
    return film.metadata.get("timecode") or find_tag(source, "timecode") or ""


def find_tag(source: InputContainer, name: str) -> str | None:
    """A tag as the start timecode (HH:MM:SS:FF), wherever its container keeps it."""
    for metadata in (source.metadata, *(stream.metadata for stream in source.streams)):
        for key in (name, name.upper()):
            if key in metadata:
                return metadata[key]
    return None
