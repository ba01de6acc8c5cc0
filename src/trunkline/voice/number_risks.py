"""What a call to a number risks, by its prefix: see `number_risks.txt`, which an operator may replace."""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from trunkline.model.dialing import LOW, SPECIAL, TOLL_FRAUD
from trunkline.settings import SettingsError

HEAD: Final = 3
"""Digits by which prefixes are found: one look-up settles most numbers."""
KINDS: Final = {"special": SPECIAL, "tollfraud": TOLL_FRAUD, "low": LOW}
MAX_LINES: Final = 100_000


class Risks:
    """Prefixes with their kinds. Raises ValueError for a line that is none."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._heads: dict[str, list[tuple[str, str, int]]] = {}
        self.special: list[str] = []
        """Prefixes of special services, with their plus, sorted."""
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if text:
                self._add(text, number)
        for found in self._heads.values():
            found.sort(key=lambda one: -len(one[0]))
        self.special.sort()

    def _add(self, text: str, number: int) -> None:
        prefix, kind, length, *more = [*text.split(), "", ""]
        digits = prefix.removeprefix("+")
        fits = kind in KINDS and all(one.isascii() and one.isdecimal() for one in (digits, length or "0"))
        if number > MAX_LINES or not fits or any(more):
            raise ValueError(f"line {number}: {text[:60]!r} is no `+prefix special|tollfraud|low [digits]`")
        missing = max(0, HEAD - len(digits))
        for rest in range(10**missing):
            head = digits[:HEAD] + (f"{rest:0{missing}}" if missing else "")
            self._heads.setdefault(head, []).append((digits, KINDS[kind], int(length or 0)))
        if KINDS[kind] == SPECIAL:
            self.special.append("+" + digits)

    def of(self, number: str) -> str:
        """`LOW`, `SPECIAL` or `TOLL_FRAUD` of an E.164 number."""
        found = self._heads.get(number[1 : 1 + HEAD])
        if found is None:
            return LOW
        digits = number[1:]
        for prefix, kind, length in found:
            if digits.startswith(prefix) and length in (0, len(digits)):
                return kind
        return LOW


@cache
def load(path: str = "") -> Risks:
    """Those of a file, or our own. Raises SettingsError, in one line for the operator."""
    try:
        own = files("trunkline.voice").joinpath("number_risks.txt")
        text = Path(path).read_text("ascii") if path else own.read_text("ascii")
        return Risks(text.splitlines())
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        why = f"line {line}: a character that is not ASCII"
    except OSError as error:
        why = error.strerror or str(error)
    except ValueError as error:
        why = str(error)
    raise SettingsError(f"voice.high_risk_file: {path}: {why}")
