"""What a film says of itself in words, and what its result says in addition."""

from __future__ import annotations

from av.container import InputContainer, OutputContainer

from colordaemon.media.provenance import SENTENCE

# Tags that describe the old file or the old encoding.
_STALE_TAGS = frozenset(
    ("encoder", "major_brand", "minor_version", "compatible_brands", "duration", "bps",
     "number_of_frames", "number_of_bytes", "_statistics_tags", "_statistics_writing_app",
     "_statistics_writing_date_utc")
)  # fmt: skip


def is_stale(key: str) -> bool:
    """Whether a tag describes the old file."""
    return key.lower().removesuffix("-eng") in _STALE_TAGS or key.lower() == "timecode"


def describe(container: OutputContainer, source: InputContainer) -> None:
    metadata = {k: v for k, v in source.metadata.items() if not is_stale(k)}
    timecode = find_timecode(source)
    if timecode:
        metadata["timecode"] = timecode
    comment = metadata.get("comment", metadata.get("COMMENT"))
    metadata["comment"] = f"{comment}; {SENTENCE}" if comment else SENTENCE
    container.metadata.update(metadata)
    container.set_chapters(source.chapters())


def find_timecode(source: InputContainer) -> str | None:
    """The film's start timecode (HH:MM:SS:FF), wherever its container keeps it."""
    for metadata in (source.metadata, *(stream.metadata for stream in source.streams)):
        for key in ("timecode", "TIMECODE"):
            if key in metadata:
                return metadata[key]
    return None
