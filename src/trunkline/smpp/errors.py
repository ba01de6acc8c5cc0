"""What may go wrong in the SMPP core. All derive from `SmppError`; bytes from a peer raise nothing else."""


class SmppError(Exception):
    """Base of every error of this package."""


class FrameError(SmppError):
    """The byte stream cannot be cut into PDUs any more: answer generic_nack and close.

    `sequence` is that of the bad header.
    """

    def __init__(self, message: str, sequence: int = 0) -> None:
        super().__init__(message)
        self.sequence = sequence


class DecodeError(SmppError):
    """The body of one PDU is malformed; `status` is what to answer. The stream itself is intact."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnknownCommandError(DecodeError):
    """No such command: answer generic_nack."""


class EncodeError(SmppError, ValueError):
    """A field of a PDU to send does not fit its place on the wire."""


class SessionStateError(SmppError):
    """The session's state does not allow this PDU."""


class WindowFullError(SmppError):
    """As many requests are unanswered as the window allows."""


class ConnectError(SmppError):
    """The connection or the bind failed; `status` is the peer's bind status if it gave one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
