"""Content type and character encoding of a document.

The encoding is taken, in this order, from the byte order mark, the `charset` of the content type (RFC 7303
section 3.2), the XML declaration, else UTF-8. Only the codecs of the table are ever run on foreign bytes.
"""

from __future__ import annotations

import re
from typing import Final

XML_TYPES: Final = frozenset({"text/xml", "application/xml", "text/html"})
PLAIN_TYPE: Final = "text/plain"

# Name as written by servers, in lower case -> Python codec.
CODECS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "iso8859-1": "latin-1",
    "latin1": "latin-1",
    "iso-8859-2": "iso8859-2",
    "iso-8859-9": "iso8859-9",
    "iso-8859-15": "iso8859-15",
    "windows-1250": "cp1250",
    "windows-1251": "cp1251",
    "windows-1252": "cp1252",
    "shift_jis": "shift_jis",
    "euc-jp": "euc_jp",
    "gb2312": "gb2312",
    "gbk": "gbk",
    "gb18030": "gb18030",
    "big5": "big5",
    "euc-kr": "euc_kr",
}

_MARKS: Final = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_CHARSET: Final = re.compile(r';\s*charset\s*=\s*"?([A-Za-z0-9_.:-]{1,40})"?', re.IGNORECASE)
_DECLARATION: Final = re.compile(rb"^<\?xml\s[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_.:-]{1,40})[\"']")
_DECLARATION_BYTES: Final = 256


class UnsupportedEncoding(ValueError):
    """The bytes cannot be read: the encoding is unknown or they are not valid in it."""


def media_type(content_type: str) -> str:
    """`Text/XML; charset=utf-8` -> `text/xml`."""
    return content_type.partition(";")[0].strip().lower()


def decode(document: bytes, content_type: str) -> str:
    """The document's characters, without byte order mark.

    Raises UnsupportedEncoding.
    """
    for mark, codec in _MARKS:
        if document.startswith(mark):
            return _decode(document[len(mark) :], codec)
    match = _CHARSET.search(content_type[:200])
    if match is not None:
        return _decode(document, _codec(match[1]))
    declared = _DECLARATION.match(document[:_DECLARATION_BYTES])
    if declared is not None:
        return _decode(document, _codec(declared[1].decode("ascii")))
    return _decode(document, "utf-8")


def _codec(name: str) -> str:
    try:
        return CODECS[name.lower()]
    except KeyError:
        raise UnsupportedEncoding(f"unsupported encoding {name}") from None


def _decode(document: bytes, codec: str) -> str:
    try:
        return document.decode(codec)
    except UnicodeDecodeError as error:
        raise UnsupportedEncoding(f"byte {error.start} is not valid {codec}") from None
