"""What every store raises when it cannot write now (disk full, I/O error, too many writes waiting): ask again later."""


class StoreUnavailable(Exception):
    """Nothing was written. The API answers 503 with Retry-After, connectors do not acknowledge."""
