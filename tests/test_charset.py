"""Tags of old files are read in the code page that they were written in, where that shows."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from films import color, make_film

from colordaemon.media.tags import FALLBACK

JAPANESE = ["東京物語", "おばあちゃんの家 1953年", "テスト", "運動会（昭和32年）"]
WESTERN = [
    "Müller’s “Fête” – Amélie",
    "Crème brûlée, déjà vu à l’été",
    "Größe ÄÖÜ ß",
    "ÀÉÎÔÛ",
    "São João: coração, avião",
    "naïve façade… don’t",
    "Smörgåsbord på Åland",
    "¡Año Nuevo! ¿Mañana?",
    "¤ 5 £ 7 ¥",
]


@pytest.mark.parametrize("words", JAPANESE)
def test_shift_jis_is_read_as_such(words: str) -> None:
    assert words.encode("cp932").decode(errors=FALLBACK) == words


def test_euc_jp_is_read_where_it_has_kana() -> None:
    words = "おばあちゃんの家 1953年"
    assert words.encode("euc_jp").decode(errors=FALLBACK) == words


@pytest.mark.parametrize("words", WESTERN)
def test_western_words_stay_western(words: str) -> None:
    assert words.encode("cp1252").decode(errors=FALLBACK) == words


@pytest.mark.parametrize("words", [b"\x81", b"\xff\xfe\x00", b"\x82\xa0\x82", bytes(range(256))])
def test_no_words_fail(words: bytes) -> None:
    assert words.decode(errors=FALLBACK)


def test_the_title_of_an_old_japanese_film_comes_out_in_utf_8(tmp_path: Path) -> None:
    words = JAPANESE[0].encode("cp932")
    source = make_film(
        tmp_path / "film.avi", 3, codec="mpeg4", metadata={"title": "X" * len(words)}
    )
    source.write_bytes(source.read_bytes().replace(b"X" * len(words), words))
    with av.open(str(color(source))) as done:
        assert done.metadata["title"] == JAPANESE[0]
