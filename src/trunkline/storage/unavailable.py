"""What every store raises when it cannot write now (disk full, I/O error, too many writes waiting): ask again later."""


class StoreUnavailable(Exception):
    """Nothing was written. The API answers 503 with Retry-After, connectors do not acknowledge."""


class NotOwned(StoreUnavailable):
    """This part of the queue belongs to another node, now or since a moment ago; nothing was written, nor will be."""


class Spill(StoreUnavailable):
    """This part of the queue takes no writes now, others do: make the work anew, in a shard of one of them."""
