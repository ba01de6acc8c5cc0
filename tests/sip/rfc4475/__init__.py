"""The torture messages of RFC 4475, by the names that the RFC gives them.

They are written with line feeds here and get CRLFs by `wire`; octets beyond ASCII are escapes.
"""


def wire(text: str) -> bytes:
    """As sent: CRLF line ends, each character one octet; the line break after the opening quotes is dropped."""
    return text.removeprefix("\n").replace("\n", "\r\n").encode("latin-1")
