"""English words for numbers, years, dates and single characters: what `<say-as>` asks for."""

from typing import Final

_SMALL: Final = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS: Final = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES: Final = (
    (10**15, "quadrillion"),
    (10**12, "trillion"),
    (10**9, "billion"),
    (10**6, "million"),
    (1000, "thousand"),
)
_ORDINALS: Final = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
MONTHS: Final = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
MAX: Final = 10**18
"""Beyond it numbers are read digit by digit."""
LETTERS: Final = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz",
        [
            "ay",
            "bee",
            "see",
            "dee",
            "ee",
            "eff",
            "jee",
            "aitch",
            "eye",
            "jay",
            "kay",
            "el",
            "em",
            "en",
            "oh",
            "pee",
            "cue",
            "ar",
            "ess",
            "tee",
            "you",
            "vee",
            "double-you",
            "ex",
            "why",
            "zee",
        ],
        strict=True,
    )
)
SYMBOLS: Final = {
    ".": "dot",
    ",": "comma",
    "@": "at",
    "-": "dash",
    "_": "underscore",
    "+": "plus",
    "/": "slash",
    "#": "hash",
    "*": "star",
    "&": "and",
    ":": "colon",
    "!": "exclamation mark",
    "?": "question mark",
    "$": "dollar",
    "%": "percent",
    "=": "equals",
}


def digit(character: str) -> str:
    return _SMALL[int(character)]


def digits(text: str) -> str:
    """Each digit as a word."""
    return " ".join(digit(character) for character in text if "0" <= character <= "9")


def cardinal(value: int) -> str:
    """`1234` -> one thousand two hundred thirty-four."""
    if value < 0:
        return f"minus {cardinal(-value)}"
    if value >= MAX:
        return digits(str(value))
    for scale, name in _SCALES:
        if value >= scale:
            rest = value % scale
            return f"{cardinal(value // scale)} {name}" + (f" {cardinal(rest)}" if rest else "")
    if value >= 100:
        rest = value % 100
        return f"{_SMALL[value // 100]} hundred" + (f" {cardinal(rest)}" if rest else "")
    if value < 20:
        return _SMALL[value]
    return _TENS[value // 10] + (f"-{_SMALL[value % 10]}" if value % 10 else "")


def ordinal(value: int) -> str:
    """`22` -> twenty-second."""
    words = cardinal(value)
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    head, last = words[:cut], words[cut:]
    if last in _ORDINALS:
        return head + _ORDINALS[last]
    return head + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def year(value: int) -> str:
    """`1970` -> nineteen seventy; `2005` -> two thousand five."""
    if 1100 <= value < 10_000 and value % 100 and (value // 100 % 10 or value % 100 >= 10):
        rest = f"oh {_SMALL[value % 100]}" if value % 100 < 10 else cardinal(value % 100)
        return f"{cardinal(value // 100)} {rest}"
    if 1100 <= value < 2000:
        return f"{cardinal(value // 100)} hundred"
    return cardinal(value)


def fraction(top: int, bottom: int) -> str:
    """`3/20` -> three twentieths."""
    if bottom == 2:
        name = "half" if top == 1 else "halves"
    elif bottom == 4:
        name = "quarter" if top == 1 else "quarters"
    else:
        name = ordinal(bottom) + ("" if top == 1 else "s")
    return f"{cardinal(top)} {name}"


def character(value: str) -> str:
    """One character as it is spelled out; empty for those that are not."""
    if "0" <= value <= "9":
        return digit(value)
    return LETTERS.get(value.lower(), SYMBOLS.get(value, value if value.isalpha() else ""))
