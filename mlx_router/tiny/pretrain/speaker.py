"""Requests of scenes: frames filled with values, then put as people put them."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import lexicon, values
from .marks import CLOSE, MARKED, OPEN, changed, mark, unmarked, with_typos
from .scenes import CHOICE, OPTIONAL, SLOT, Frame, Parameter, Scene, SceneTool
from .values import Said, Words


def _plain(make: Callable[[random.Random, Words], str]) -> Callable[[random.Random, Words, str], Said]:
    def said(rng: random.Random, words: Words, about: str) -> Said:
        text = make(rng, words)
        return Said(text, text)

    return said


def duration(rng: random.Random, words: Words) -> str:
    """A stretch of time as people say it."""
    unit = rng.choice(("minute", "minute", "hour", "second", "day", "week", "month"))
    number = values.integer(rng, 1, 60 if unit in ("minute", "second") else 12)
    plain = f"{number.text} {unit}{'' if number.value == 1 else 's'}"
    short = f"{number.value}{rng.choice(('', ' '))}{rng.choice(('min', 'mins', 'h', 'hrs', 'sec', 's'))}"
    fixed = ("half an hour", "an hour", "an hour and a half", "a couple of hours", "a week", "two and a half hours")
    return rng.choices((plain, short, rng.choice(fixed)), (65, 20, 15))[0]


def phone(rng: random.Random, words: Words) -> str:
    """A telephone number."""
    form = rng.choice(("###-###-####", "+## ### #######", "0## #### ####", "(###) ###-####", "0#########", "### ####"))
    return re.sub("#", lambda _: rng.choice("0123456789"), form)


def url(rng: random.Random, words: Words) -> str:
    """A web address."""
    host = (
        f"{rng.choice(('', 'www.', ''))}{values.invented(rng)}.{rng.choice(('com', 'org', 'net', 'io', 'co.uk', 'de'))}"
    )
    return rng.choice(("", "", "https://")) + host + rng.choice(("", "", f"/{values.invented(rng)}"))


MAKERS: dict[str, Callable[[random.Random, Words, str], Said]] = {
    "id": lambda rng, words, about: (lambda text: Said(text, text))(values.identifier(rng, about or "ref")),
    "person": _plain(values.person),
    "place": _plain(values.place),
    "date": _plain(lambda rng, words: values.date(rng)),
    "time": _plain(lambda rng, words: values.clock(rng)),
    "when": _plain(
        lambda rng, words: rng.choice((values.moment(rng), values.moment(rng), values.date(rng), values.clock(rng)))
    ),
    "duration": _plain(duration),
    "email": _plain(lambda rng, words: values.email(rng)),
    "phone": _plain(phone),
    "url": _plain(url),
    "path": _plain(values.path),
    "text": _plain(values.text),
    "clause": _plain(values.clause),
}


@dataclass
class Speaker:
    """Fills a scene's frames with words."""

    rng: random.Random
    words: Words
    scene: Scene

    def said(self, parameter: Parameter) -> Said:
        """A value for a parameter."""
        rng = self.rng
        if parameter.kind == "enum":
            value = rng.choice(list(parameter.choices))
            return Said(rng.choice(parameter.choices[value]), value, False)
        if parameter.kind == "int":
            number = values.integer(rng, int(parameter.low), int(parameter.high))
            return Said(number.text, number.value, False)
        if parameter.kind == "float":
            return self._float(parameter)
        if parameter.kind.startswith("many "):
            return self._many(parameter)
        return self.one(parameter.kind, parameter.name)

    def one(self, kind: str, about: str = "") -> Said:
        """A text value of a kind; now and then words that never stood together, so that it learns to copy any."""
        if kind.startswith("="):
            return Said(*(self._listed(kind[1:]),) * 2)
        return MAKERS[kind](self.rng, self.words, about)

    def _listed(self, name: str) -> str:
        rng = self.rng
        chance = rng.random()
        if chance < 0.72:
            return rng.choice(self.scene.lists[name])
        if chance < 0.86:
            return values.clean(self.words.scramble(rng, 1, 3))
        if chance < 0.94:
            one, two = (rng.choice(self.scene.lists[name]).split() for _ in range(2))
            return values.clean(" ".join([*one[: rng.randint(1, len(one))], *two[-rng.randint(1, len(two)) :]]))
        return values.clean(self.words.stretch(rng, 1, 3))

    def _float(self, parameter: Parameter) -> Said:
        rng = self.rng
        if rng.random() < 0.5:
            number = values.integer(rng, max(0, int(parameter.low)), max(1, int(parameter.high)))
            return Said(number.text, number.value, False)
        value = round(rng.uniform(parameter.low, parameter.high), rng.choice((1, 1, 2)))
        return Said(str(value), value, False)

    def _many(self, parameter: Parameter) -> Said:
        rng, kind = self.rng, parameter.kind.removeprefix("many ").strip()
        items = list(dict.fromkeys(self.one(kind).text for _ in range(rng.randint(1, 4))))
        items = [item for item in items if "," not in item and " and " not in item] or [values.invented(rng)]
        joined = ", ".join(items[:-1]) + rng.choice((" and ", ", and ", " & ")) + items[-1] if items[1:] else items[0]
        return Said(joined, items)

    def fill(self, tool: SceneTool | None, frame: Frame) -> tuple[str, dict[str, Any], list[str]]:
        """The frame's request with its values marked, the arguments, and those that are copied from it."""
        rng, arguments, copied = self.rng, dict(frame.fixed), []
        text = frame.text
        text = OPTIONAL.sub(lambda match: match[1] if rng.random() < 0.45 else "", text)
        text = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)

        def slot(match: re.Match[str]) -> str:
            sign, name = match.groups()
            if sign:
                return self.one("=" + name).text
            parameter = tool.parameter(name) if tool else None
            assert parameter is not None, frame
            said = self.said(parameter)
            arguments[name] = said.value
            if said.copied:
                copied.append(name)
            shown = mark(said.text)
            if rng.random() < 0.03 and not parameter.kind.startswith(("many", "text", "clause")):
                other = self.said(parameter)
                if other.value != said.value:
                    shown = rng.choice(lexicon.CORRECTIONS).format(w=other.text, v=shown)
            return shown

        text = re.sub(r"\s+([,.;:?!])", r"\1", re.sub(r"\s+", " ", SLOT.sub(slot, text))).strip(" ,;")
        for name, value in frame.fixed.items():
            if isinstance(value, str) and value in text and tool and tool.parameter(name).kind != "enum":  # type: ignore[union-attr]
                copied.append(name)
        return text, arguments, copied


def finish(
    rng: random.Random, text: str, arguments: dict[str, Any], copied: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """The request with opening, ending, typing errors, dictation or capitals; and the arguments as it has them."""
    ends_open = text.endswith(CLOSE)
    if rng.random() < 0.16:
        opening = rng.choice(lexicon.WISH_OPENINGS)
        text = opening + (text if text.startswith(OPEN) or not opening.endswith(", ") else text[:1].lower() + text[1:])
    if rng.random() < 0.06:
        text = rng.choice(lexicon.CONTEXTS) + rng.choice((". ", " - ", "! ", "... ")) + text
    if text[-1] not in ".?!":
        text += rng.choice(lexicon.SAFE_ENDINGS if ends_open else lexicon.ENDINGS) if rng.random() < 0.4 else ""
    if rng.random() < 0.35 and not text.startswith(OPEN):
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.14:
        text = with_typos(rng, text)
    chance = rng.random()
    if chance < 0.2:
        text = text.lower()
        arguments = changed(arguments, copied, str.lower)
        if chance < 0.12:
            pieces = MARKED.split(text)
            text = "".join(p if p.startswith(OPEN) else re.sub(r"(?<!\d)[,.?!;](?=\s|$)", "", p) for p in pieces)
    elif chance < 0.215:
        text = text.upper()
        arguments = changed(arguments, copied, str.upper)
    return unmarked(text).strip(), arguments
