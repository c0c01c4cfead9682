"""Values of synthetic requests: how a value is said, and the JSON it stands for."""

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...grounding import TENS, UNITS
from . import lexicon


@dataclass(frozen=True)
class Said:
    """A value as a request says it. `copied` tells that the value is the very text."""

    text: str
    value: Any
    copied: bool = True


@dataclass
class Words:
    """A pool of words for free-text values; the more of it is foreign to the lexicon, the better copying is learnt."""

    texts: Sequence[str] = ()
    words: Sequence[str] = field(default_factory=lambda: lexicon.VALUE_WORDS)
    vocabulary: Sequence[str] = ()  # the tokenizer's whole words: each has to be copied now and then, or it is unlearnt

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Words":
        """The words of real requests, and the requests themselves for longer stretches."""
        found = sorted({word for text in texts for word in text.split() if word.isalpha() and len(word) > 1})
        return cls(tuple(texts), tuple(found) or lexicon.VALUE_WORDS)

    def stretch(self, rng: random.Random, least: int, most: int) -> str:
        """A few words in a row, from one text if there are any."""
        if not self.texts or rng.random() < 0.4:
            return " ".join(rng.choice(self.words) for _ in range(rng.randint(least, most)))
        words = rng.choice(self.texts).split()
        length = min(len(words), rng.randint(least, most))
        start = rng.randint(0, len(words) - length)
        return " ".join(words[start : start + length])

    def scramble(self, rng: random.Random, least: int, most: int) -> str:
        """Words that never stood together, some of them invented."""
        return " ".join(self._odd_word(rng) for _ in range(rng.randint(least, most)))

    def _odd_word(self, rng: random.Random) -> str:
        chance = rng.random()
        if chance < 0.4:
            return rng.choice(self.vocabulary or self.words)
        if chance < 0.55:
            return rng.choice(self.words)
        if chance < 0.7:
            return rng.choice(self.words) + rng.choice(self.words).lower()
        return invented(rng)


def clean(text: str, fallback: str = "thing") -> str:
    """A text that can stand in a request as a value: no quotes, no punctuation at its ends."""
    return text.replace('"', "").strip(" .,?!;:'-()") or fallback


def invented(rng: random.Random) -> str:
    """A pronounceable word that means nothing."""
    syllables = (
        rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") + (rng.choice("nrslmtk") if rng.random() < 0.3 else "")
        for _ in range(rng.randint(1, 4))
    )
    return "".join(syllables)[:12]


def digits(rng: random.Random, least: int, most: int) -> str:
    """A string of random digits."""
    return "".join(rng.choice(string.digits) for _ in range(rng.randint(least, most)))


def identifier(rng: random.Random, thing: str) -> str:
    """An identifier as systems give them: BK-1234, 83710, a1f09c, inv_22, so48213, #P771."""
    if rng.random() < 0.12:
        # Of consonants alone, so that it is none of the little words that have a token of their own with the space.
        start = rng.choice(("".join(rng.choices("bcdfghklmnpqrstvwxz", k=rng.randint(1, 3))), "ref", "inv", "case"))
        text = rng.choice(("", "", "#")) + start + digits(rng, 2, 7)
        return text.upper() if rng.random() < 0.4 else text
    letters = "".join(rng.choice(string.ascii_uppercase) for _ in range(rng.randint(1, 4)))
    if rng.random() < 0.35:
        letters = (thing.replace(" ", "")[: rng.randint(1, 4)]).upper()
    chance = rng.random()
    if chance < 0.5:
        return letters + rng.choice("--- _/#.").strip() + digits(rng, 2, 7)
    if chance < 0.65:
        return digits(rng, 2, 9)
    if chance < 0.72:
        return digits(rng, 2, 4) + "-" + digits(rng, 2, 5)
    if chance < 0.82:
        return "".join(rng.choice(string.ascii_uppercase + string.digits) for _ in range(rng.randint(4, 9)))
    if chance < 0.9:
        return "".join(rng.choice("0123456789abcdef") for _ in range(rng.randint(5, 10)))
    if chance < 0.95:
        return f"{letters}-{digits(rng, 2, 4)}-{rng.choice(string.ascii_uppercase)}"
    return letters.lower() + rng.choice("-_.") + digits(rng, 1, 5)


def person(rng: random.Random, words: Words) -> str:
    """A person's name."""
    if rng.random() < 0.2:
        return " ".join(word.capitalize() for word in clean(words.scramble(rng, 1, 2)).split())
    first = rng.choice(lexicon.FIRST_NAMES) if rng.random() < 0.65 else invented(rng).capitalize()
    last = rng.choice(lexicon.LAST_NAMES) if rng.random() < 0.65 else invented(rng).capitalize()
    return rng.choices((first, f"{first} {last}", f"Dr. {last}", f"Mrs {last}"), (45, 45, 5, 5))[0]


def place(rng: random.Random, words: Words) -> str:
    """A city, a room, or an invented place."""
    chance = rng.random()
    if chance < 0.45:
        return rng.choice(lexicon.CITIES)
    if chance < 0.6:
        return rng.choice(lexicon.ROOMS)
    if chance < 0.7:
        return f"{rng.randint(1, 250)} {invented(rng).capitalize()} {rng.choice(('Street', 'Road', 'Avenue', 'Lane'))}"
    return clean(words.scramble(rng, 1, 2)).title() if chance < 0.85 else invented(rng).capitalize()


def ordinal(number: int) -> str:
    """1 -> 1st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def date(rng: random.Random) -> str:
    """A date as people say it."""
    day, month = rng.randint(1, 28), rng.choice(lexicon.MONTHS)
    weekday = rng.choice(lexicon.DAYS)
    year, number = rng.randint(2023, 2029), rng.randint(1, 12)
    forms = (
        f"{year}-{number:02d}-{day:02d}",
        rng.choice((f"{month} {day}", f"{month} {ordinal(day)}", f"{month[:3]} {day}")),
        rng.choice((f"{day} {month}", f"the {ordinal(day)} of {month}", f"the {ordinal(day)}")),
        rng.choice((f"{number}/{day}", f"{day}.{number}.", f"{month} {day}, {year}")),
        rng.choice((weekday, f"next {weekday}", f"this {weekday}", f"{weekday} next week", f"{weekday} morning")),
        rng.choice(
            ("tomorrow", "today", "tonight", "next week", "next month", "the day after tomorrow", "the weekend")
        ),
        f"in {rng.choice(('two', 'three', '3', '10', 'five'))} {rng.choice(('days', 'weeks', 'months'))}",
    )
    return clean(rng.choices(forms, (20, 20, 12, 8, 20, 16, 4))[0])


def clock(rng: random.Random) -> str:
    """A time of day as people say it."""
    hour, minute = rng.randint(1, 12), rng.choice((0, 15, 30, 45, 5, 20, 50))
    forms = (
        f"{rng.randint(0, 23):02d}:{minute:02d}",
        f"{hour}{rng.choice(('', ':30', ':15', ':45'))}{rng.choice(('am', 'pm', ' am', ' pm', ' AM', 'PM'))}",
        rng.choice(("noon", "midnight", "lunchtime")),
        rng.choice(
            (f"{hour} o'clock", f"half past {UNITS[hour]}", f"quarter to {UNITS[hour]}", f"{UNITS[hour]} at night")
        ),
    )
    return rng.choices(forms, (40, 45, 5, 10))[0]


def moment(rng: random.Random) -> str:
    """A date with a time of day as people say them."""
    day, hour = date(rng), clock(rng)
    return rng.choice(
        (f"{day} at {hour}", f"{day} at {hour}", f"{day} {hour}", f"{hour} {day}", f"{hour} on {day}", day)
    )


def email(rng: random.Random) -> str:
    """An e-mail address."""
    first = rng.choice(lexicon.FIRST_NAMES).lower() if rng.random() < 0.5 else invented(rng)
    last = rng.choice(lexicon.LAST_NAMES).lower() if rng.random() < 0.5 else invented(rng)
    host = rng.choice(("example.com", "mail.net", f"{invented(rng)}.{rng.choice(('com', 'org', 'io'))}"))
    return f"{first}{rng.choice(('.', '_', ''))}{last}@{host}"


def path(rng: random.Random, words: Words) -> str:
    """A file name or a path."""
    name = clean(words.scramble(rng, 1, 1)).lower() + rng.choice(("", f"_{digits(rng, 1, 4)}"))
    folder = rng.choice(("", "", "/{}/", "~/{}/", "{}/", "C:\\{}\\")).format(invented(rng))
    return folder + name + rng.choice((".pdf", ".csv", ".txt", ".json", ".docx", ".png", ".zip", "", ".log"))


def clause(rng: random.Random, words: Words) -> str:
    """A reason: a short clause."""
    if rng.random() < 0.2:
        return clean(words.stretch(rng, 2, 7))
    subject = rng.choice(lexicon.SUBJECTS) if rng.random() < 0.75 else f"the {clean(words.scramble(rng, 1, 1))}"
    predicate = rng.choice(lexicon.PREDICATES) if rng.random() < 0.8 else f"is {clean(words.scramble(rng, 1, 2))}"
    return f"{subject} {predicate}"


def text(rng: random.Random, words: Words) -> str:
    """Free text: a message, a note, a description."""
    chance = rng.random()
    if chance < 0.3:
        return clause(rng, words)
    if chance < 0.6:
        return clean(words.stretch(rng, 2, rng.choice((4, 7, 14))))
    if chance < 0.8:
        return clean(words.scramble(rng, 1, 6))
    return " ".join(rng.choices(lexicon.VALUE_WORDS, k=rng.randint(1, 4)))


def name(rng: random.Random, words: Words) -> str:
    """What something is called."""
    chance = rng.random()
    if chance < 0.35:
        given = " ".join(rng.choices(lexicon.VALUE_WORDS, k=rng.randint(1, 3)))
    elif chance < 0.75:
        given = clean(words.scramble(rng, 1, 3))
    else:
        given = clean(words.stretch(rng, 1, 4))
    return given.title() if rng.random() < 0.4 and given.isascii() and "'" not in given else given


def number_words(number: int) -> str:
    """0 to 100 in words, 21 -> twenty one."""
    if number < 20:
        return UNITS[number]
    if number == 100:
        return "a hundred"
    tens, ones = divmod(number, 10)
    return TENS[tens - 2] + (f" {UNITS[ones]}" if ones else "")


def integer(rng: random.Random, least: int = 1, most: int | None = None) -> Said:
    """A whole number, as digits or in words."""
    top = most if most is not None else rng.choice((12, 12, 30, 100, 100, 5000))
    number = rng.randint(least, top)
    if 0 <= number <= 100 and rng.random() < 0.4:
        words = number_words(number)
        hyphenated = rng.random() < 0.5 and number < 100
        return Said(words.replace(" ", "-") if hyphenated else words, number, False)
    return Said(str(number), number, False)


def decimal(rng: random.Random) -> Said:
    """A number that may have a fraction."""
    if rng.random() < 0.45:
        return integer(rng)
    places = rng.choice((1, 1, 2))
    number = round(rng.uniform(0, rng.choice((5, 40, 300))), places)
    shown = f"{number:.{places}f}"
    return Said(shown, float(shown), False)
