"""The text tags of a film: how they are decoded, which are kept, and which its result gets.

Tags that are not UTF-8, as in AVI files from before 2005, are in the code page of the Windows that
wrote them, which the file does not name. Japanese in Shift-JIS or EUC-JP is recognized: every byte
fits, and the text has kana or several of the common characters in a row. Western words that happen
to fit have neither: their accents would stand for rare characters, one by one. Everything else is
read as Western.
"""

from __future__ import annotations

import codecs
import re
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
FALLBACK = "colordaemon.charset"  # a handler of errors in what should be UTF-8

_JAPANESE = ("cp932", "euc_jp")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
_IN_JAPANESE = re.compile(
    "[\\s\u0020-\u007e\u3000-\u30ff\u4e00-\u9fff\uff01-\uff9f"
    "\u2010-\u2026\u2190-\u2193\u25a0-\u2606\u00d7]+"
)  # no private use, no controls, no Greek or Cyrillic
# Two in a row of the first level of JIS X 0208, whose leading bytes Western words hardly use.
_COMMON = re.compile(rb"(?:[\x88-\x97][\x40-\x7e\x80-\xfc]){2}")


def is_stale(key: str) -> bool:
    """Whether a tag describes the old file."""
    return key.lower().removesuffix("-eng") in _STALE_TAGS or key.lower() == "timecode"


def tags_of_result(
    source: InputContainer, film: Stream, start_timecode: str, maker: Maker, format_name: str
) -> dict[str, str]:
    """The source's tags that are still true, its timecode, and the note on the colors.

    start_timecode: as its pictures give it; the container's own takes precedence. Matroska and MXF
    have no place for XMP, so there the facts for programs are tags as well.
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
    """That of the stream if its container gives streams one, else the file's; empty if none."""
    return film.metadata.get("timecode") or find_tag(source, "timecode") or ""


def find_tag(source: InputContainer, name: str) -> str | None:
    """A tag as the start timecode (HH:MM:SS:FF), wherever its container keeps it."""
    for metadata in (source.metadata, *(stream.metadata for stream in source.streams)):
        for key in (name, name.upper()):
            if key in metadata:
                return metadata[key]
    return None


def _read(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    words, start = error.object, error.start
    if words[:start].isascii() and (found := _as_japanese(words[start:])):
        return found, len(words)
    part = words[start : error.end]
    try:
        return part.decode("cp1252"), error.end
    except UnicodeDecodeError:
        return part.decode("latin-1"), error.end


def _as_japanese(words: bytes) -> str:
    """The text if it is Japanese, else empty."""
    for name in _JAPANESE:
        try:
            text = words.decode(name)
        except UnicodeDecodeError:
            continue
        is_common = name == "cp932" and _COMMON.search(words)
        if _IN_JAPANESE.fullmatch(text) and (_KANA.search(text) or is_common):
            return text
    return ""


codecs.register_error(FALLBACK, _read)
