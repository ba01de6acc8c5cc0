"""The witness: the epochs in the object store that all regions share.

Each epoch is an object of its own, `region/epochs/<number>`, which is written only if there is none of that name (S3's
If-None-Match, a hard link in a folder): whoever is second learns that he is. Nothing is ever overwritten or removed.
"""

import msgspec

from trunkline.region.records import Epoch, Handover
from trunkline.storage.objects import Objects
from trunkline.storage.unavailable import StoreUnavailable

EPOCHS = "region/epochs"
HANDOVERS = "region/handovers"


class Witness:
    """The epochs. Blocks; raises StoreUnavailable."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def __repr__(self) -> str:
        return repr(self._objects)

    def _read(self, number: int) -> Epoch | None:
        body = self._objects.read(_name(number))
        return None if body is None else msgspec.json.decode(body, type=Epoch)

    def newest(self) -> Epoch | None:
        """The epoch that counts; None: there has been none."""
        numbers = [int(one.name.rpartition("/")[2]) for one in self._objects.names(EPOCHS) if _is_number(one.name)]
        return self._read(max(numbers)) if numbers else None

    def after(self, known: Epoch) -> Epoch:
        """The same, by two requests where nothing has changed. An object store that has forgotten what it knew (another
        folder is mounted) is no witness: raises StoreUnavailable."""
        found = self._read(known.epoch)
        if found is None or found.region != known.region:
            raise StoreUnavailable(f"the object store does not have epoch {known.epoch} of the regions any more")
        while (later := self._read(found.epoch + 1)) is not None:
            found = later
        return found

    def claim(self, epoch: Epoch) -> bool:
        """Write it; False: somebody else has written an epoch of that number."""
        return self._objects.write(_name(epoch.epoch), msgspec.json.encode(epoch), new=True)

    def keep(self, handover: Handover) -> None:
        """Put down how an epoch began, beside it."""
        self._objects.write(f"{HANDOVERS}/{handover.epoch.epoch:010d}", msgspec.json.encode(handover))


def _name(number: int) -> str:
    return f"{EPOCHS}/{number:010d}"


def _is_number(name: str) -> bool:
    return name.rpartition("/")[2].isdigit()
