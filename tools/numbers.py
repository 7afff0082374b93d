"""Numbers in a text, written in digits or as English words."""

import re
from collections.abc import Iterator

_SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_TEENS = ["eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"]
_ONES = {word: value for value, word in enumerate([*_SMALL, *_TEENS, "eighteen", "nineteen"])}
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60}
_TENS |= {"seventy": 70, "eighty": 80, "ninety": 90}
_TIMES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}
WORDS = _ONES | _TENS
WORDS |= {f"{ten}-{one}": _TENS[ten] + _ONES[one] for ten in _TENS for one in list(_ONES)[1:10]}

_WORD = "|".join(sorted(WORDS, key=len, reverse=True))
NUMBER = rf"(?<![\w.])\d[\d,_]*(?:\.\d+)?|\b(?:{_WORD})(?: (?:{'|'.join(_TIMES)}))?\b"
_NUMBER = re.compile(NUMBER, re.IGNORECASE)


def value_of(written: str) -> float:
    """What a number is that matches NUMBER: 1200 of "1,200", 2000 of "two thousand"."""
    if written[0].isdigit():
        return float(re.sub("[,_]", "", written))
    word, _, times = written.lower().partition(" ")
    return float(WORDS[word] * _TIMES.get(times, 1))


def numbers_in(text: str) -> Iterator[tuple[float, str, int]]:
    """Each number of a text: its value, how it is written, and where it begins."""
    for found in _NUMBER.finditer(text):
        written = found[0].rstrip(",_")
        yield value_of(written), written, found.start()
