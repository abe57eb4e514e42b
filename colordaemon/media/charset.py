"""Decodes tags that are not UTF-8, as in AVI files from before 2005. They are in the code page of
the Windows that wrote them, which the file does not name.

Japanese in Shift-JIS or EUC-JP shows by itself: every byte fits, and what comes out has kana or
several of the common characters in a row. Western words that happen to fit have neither: their
accents would stand for rare characters, one by one. Everything else is read as Western.
"""

from __future__ import annotations

import codecs
import re

FALLBACK = "colordaemon.charset"  # a handler of errors in what should be UTF-8

_JAPANESE = ("cp932", "euc_jp")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
_IN_JAPANESE = re.compile(
    "[\\s\u0020-\u007e\u3000-\u30ff\u4e00-\u9fff\uff01-\uff9f"
    "\u2010-\u2026\u2190-\u2193\u25a0-\u2606\u00d7]+"
)  # no private use, no controls, no Greek or Cyrillic
# Two in a row of the first level of JIS X 0208, whose leading bytes Western words hardly use.
_COMMON = re.compile(rb"(?:[\x88-\x97][\x40-\x7e\x80-\xfc]){2}")


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
    """Empty if it is not."""
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
