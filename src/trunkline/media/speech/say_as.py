"""`<say-as interpret-as format>`: the text as it is to be read.

In English everything is put into words here; in other languages the engine reads numbers by its own rules, and only
what is said character by character is taken apart.
"""

import re
from collections.abc import Callable
from typing import Final

from trunkline.media.speech import numbers
from trunkline.media.speech.voices import is_english

MAX_SPELLED: Final = 200
"""Characters that are spelled out at most; the rest is left out."""
_WHOLE: Final = re.compile(r"[+-]?\d{1,18}")
_FRACTION: Final = re.compile(r"(?:(\d{1,9})\s*\+\s*)?(\d{1,9})\s*/\s*(\d{1,9})")
_DURATION: Final = re.compile(r"(?:(\d{1,4})')?(?:(\d{1,4})\")?")
_DATE_PARTS: Final = re.compile(r"\d+")


def spoken(text: str, kind: str, form: str, language: str) -> str:
    """The text that stands for `<say-as interpret-as="kind" format="form">text</say-as>`. An unknown kind, or a text
    that does not fit it, is read as it is."""
    reader = _READERS.get(kind.strip().lower())
    if reader is None or not text.strip():
        return text
    return reader(text.strip(), form.strip().lower(), is_english(language)) or text


def _characters(text: str, _form: str, english: bool) -> str:
    names = [numbers.character(c) if english else (c.upper() if c.isalnum() else "") for c in text[:MAX_SPELLED]]
    return ", ".join(name for name in names if name)


def _digits(text: str, _form: str, english: bool) -> str:
    found = [c for c in text[:MAX_SPELLED] if "0" <= c <= "9"]
    return " ".join(numbers.digit(c) if english else c for c in found)


def _telephone(text: str, _form: str, english: bool) -> str:
    groups = re.split(r"[\s().,-]+", text[:MAX_SPELLED])
    plus = "plus " if english and text.startswith("+") else ""
    return plus + ", ".join(read for group in groups if (read := _digits(group, "", english)))


def _number(text: str) -> int | None:
    plain = text.replace(",", "").replace(" ", "")
    return int(plain) if _WHOLE.fullmatch(plain) else None


def _cardinal(text: str, _form: str, english: bool) -> str:
    value = _number(text)
    return numbers.cardinal(value) if english and value is not None else ""


def _ordinal(text: str, _form: str, english: bool) -> str:
    value = _number(re.sub(r"(?i)(st|nd|rd|th)$", "", text))
    return numbers.ordinal(value) if english and value is not None else ""


def _fraction(text: str, _form: str, english: bool) -> str:
    found = _FRACTION.fullmatch(text)
    if not english or found is None or not int(found[3]):
        return ""
    whole = f"{numbers.cardinal(int(found[1]))} and " if found[1] else ""
    return whole + numbers.fraction(int(found[2]), int(found[3]))


def _date(text: str, form: str, english: bool) -> str:
    """`form` names the order of year, month and day."""
    order = re.sub(r"(.)\1+", r"\1", form) or "mdy"
    parts = _DATE_PARTS.findall(text)
    if len(parts) == 1 and len(parts[0]) == 8 and order == "ymd":
        parts = [parts[0][:4], parts[0][4:6], parts[0][6:]]
    if not english or len(parts) != len(order) or any(len(part) > 4 for part in parts):
        return ""
    value = {name: int(part) for name, part in zip(order, parts, strict=True)}
    month, day = value.get("m", 0), value.get("d", 0)
    if ("m" in value and not 1 <= month <= 12) or ("d" in value and not 1 <= day <= 31):
        return ""
    words = [numbers.MONTHS[month - 1]] if month else []
    if day:
        words.append(numbers.ordinal(day))
    if "y" in value:
        words.append((", " if words else "") + numbers.year(value["y"]))
    return " ".join(words).replace(" ,", ",")


def _time(text: str, _form: str, english: bool) -> str:
    """A duration such as 1'21"; times of day are read by the engine."""
    found = _DURATION.fullmatch(text)
    if not english or found is None:
        return ""
    named = ((found[1], "minute"), (found[2], "second"))
    return " ".join(f"{numbers.cardinal(int(n))} {unit}{'' if int(n) == 1 else 's'}" for n, unit in named if n)


_READERS: Final[dict[str, Callable[[str, str, bool], str]]] = {
    "characters": _characters,
    "spell-out": _characters,
    "cardinal": _cardinal,
    "number": _cardinal,
    "ordinal": _ordinal,
    "digits": _digits,
    "fraction": _fraction,
    "date": _date,
    "time": _time,
    "telephone": _telephone,
}
"""`unit` and `address` are read as they are; `expletive` is dealt with in `ssml`."""
