"""The metadata by which photos and films say that their colors are synthetic.

Every result says in a sentence that its colors are synthetic, names who made them with which
model, and carries the IPTC's term for "a picture with parts that a trained model made". By the same
marks a result is known when it comes in again. https://cv.iptc.org/newscodes/digitalsourcetype/
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from colordaemon import __version__

NOTE = "colordaemon: synthetic colors"  # in photos, where Software names the programs
SENTENCE = f"Colors are synthetic, made by colordaemon {__version__}"  # in films
_BY_US = ("colordaemon: synthetic colors", "Colors are synthetic, made by colordaemon")

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
OUR_TAG = "COLORDAEMON_"
OURS = "urn:colordaemon:1.0/"

# What the source said of its own origin is no longer true; a second value would be no valid XMP.
_REPLACED = ("DigitalSourceType", "DigitalSourcefileType", "AISystemUsed", "AISystemVersionUsed")


@dataclass(frozen=True)
class Maker:
    """The model that guessed the colors. sha256: of its file, in hexadecimal; empty if unknown."""

    model: str = "built-in"
    sha256: str = ""

    def facts(self) -> dict[str, str]:
        """Names and values in our own vocabulary, the same in photos and films."""
        facts = {"Software": f"colordaemon {__version__}", "Model": self.model}
        return facts | ({"ModelSHA256": self.sha256} if self.sha256 else {})

    def tags(self) -> dict[str, str]:
        """The same as tags, for containers that have no place for XMP."""
        own = {f"{OUR_TAG}{name.upper()}": value for name, value in self.facts().items()}
        return {"DIGITAL_SOURCE_TYPE": SOURCE_TYPE} | own


def is_ours(*texts: str | bytes) -> bool:
    """Whether one of these texts (comments, Software, XMP) is a mark that we write."""
    plain = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in texts]
    return any(mark in text for text in plain for mark in (*_BY_US, OURS))


def packet(maker: Maker, source: bytes = b"") -> bytes:
    """An XMP packet that says all this. source: the packet of the source, whose contents stay."""
    text = _text(source)
    if "</rdf:RDF>" in text:
        text = _without_former_claims(text)
        head, tail = text.rsplit("</rdf:RDF>", 1)
        found = re.search(r"rdf:about\s*=\s*(\"[^\"]*\"|'[^']*')", head)
        own = _description(maker, found[1] if found else _NOTHING)
        return f"{head}{own}</rdf:RDF>{tail}".encode()
    rdf = f'<rdf:RDF xmlns:rdf="{_RDF}">{_description(maker, _NOTHING)}</rdf:RDF>'
    if "</x:xmpmeta>" in text:
        head, tail = text.rsplit("</x:xmpmeta>", 1)
        return f"{head}{rdf}</x:xmpmeta>{tail}".encode()
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{rdf}</x:xmpmeta><?xpacket end="w"?>'
    ).encode()


_NOTHING = '""'


def _description(maker: Maker, about: str) -> str:
    facts = maker.facts()
    version = f"{__version__}, model {maker.model}" + (
        f", sha256 {maker.sha256}" if maker.sha256 else ""
    )
    own = "".join(
        f"<colordaemon:{name}>{escape(facts[name])}</colordaemon:{name}>" for name in facts
    )
    return (
        f'<rdf:Description rdf:about={about} xmlns:Iptc4xmpExt="{_IPTC}"'
        f' xmlns:colordaemon="{OURS}"'
        f" Iptc4xmpExt:DigitalSourceType={quoteattr(SOURCE_TYPE)}"
        f' Iptc4xmpExt:AISystemUsed="colordaemon"'
        f" Iptc4xmpExt:AISystemVersionUsed={quoteattr(version)}>{own}</rdf:Description>"
    )


def _without_former_claims(text: str) -> str:
    for name in _REPLACED:
        text = without_property(text, f"Iptc4xmpExt:{name}")
    return re.sub(
        r"<rdf:Description[^>]*" + re.escape(OURS) + r"[^>]*>.*?</rdf:Description>", "", text,
        flags=re.DOTALL,
    )  # fmt: skip


def without_property(text: str, name: str) -> str:
    """XMP without a property, which may be an attribute, an element or an empty element."""
    quoted = re.escape(name)
    text = re.sub(rf"\s{quoted}\s*=\s*(\"[^\"]*\"|'[^']*')", "", text)
    text = re.sub(rf"<{quoted}(\s[^>]*)?/>", "", text)
    return re.sub(rf"<{quoted}(\s[^>]*)?>.*?</{quoted}\s*>", "", text, flags=re.DOTALL)


def _text(source: bytes) -> str:
    """XMP is UTF-8 in photos; some programs write UTF-16 with a mark at its beginning."""
    for mark, coding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if source.startswith(mark):
            return source.decode(coding, "replace")
    return source.rstrip(b"\0").decode("utf-8", "replace")
