"""Sample values for JSON Schemas, with the words in which a request would state them."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from .catalogue import Tool
from .patterns import NoSample, from_pattern
from .schemas import Schema

MAX_DEPTH = 8
OPTIONAL_SHARE = 0.3
LIKELY_STEPS = 100

# Words of a parameter's name, and what such a parameter is often given. The name's last word counts most.
HINTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("city town location place destination origin region area station airport", ("Lisbon", "Oslo", "Kyoto", "Quito")),
    ("country nation", ("Portugal", "Norway", "Japan", "Ecuador")),
    ("address street", ("12 Mill Lane", "8 Harbour Road", "41 Rue Verte", "3 Station Square")),
    ("email mail", ("maria@example.org", "sam.okafor@example.com", "info@example.net", "li.wei@example.org")),
    ("phone mobile telephone", ("+44 20 7946 0911", "+1 202 555 0143", "030 23125 042", "555-0178")),
    ("url link website site uri", ("https://example.org/map", "example.com", "https://example.net/a/7", "example.org")),
    ("date day when deadline until", ("tomorrow", "next Friday", "3 March", "the 21st", "2026-12-04")),
    ("time hour start end", ("5 pm", "half past nine", "17:30", "noon", "8:15 in the morning")),
    ("reason cause why problem issue complaint", ("it arrived cracked", "the wrong size came", "it stopped working")),
    ("message text body content comment note notes feedback", ("running ten minutes late", "the door code changed")),
    ("description details instructions", ("leave it with the neighbour", "blue box with a dent", "second floor, left")),
    ("title subject label headline summary caption", ("Quarterly review", "Dentist", "Garden plans", "Team lunch")),
    ("query search keyword keywords term terms question topic", ("lentil soup", "used bicycles", "night trains")),
    ("file filename path document attachment", ("report.pdf", "notes.txt", "budget-2026.xlsx", "photo_17.jpg")),
    ("folder directory dir", ("Downloads", "Projects", "Invoices 2026", "Desktop")),
    ("app application program software", ("Firefox", "Calendar", "Spreadsheet Pro", "Mail")),
    ("language lang locale", ("French", "Hindi", "Portuguese", "Swahili")),
    ("currency", ("EUR", "USD", "JPY", "CHF")),
    ("color colour", ("dark green", "red", "sky blue", "grey")),
    ("product item article object goods", ("desk lamp", "rain jacket", "coffee grinder", "running shoes")),
    ("song track music", ("Blue Harbour", "Slow Train Home", "Paper Moons", "Nightjar")),
    ("artist band singer composer", ("The Lanterns", "Ada Quill", "North Pier", "Josef Lind")),
    ("album playlist", ("Road Trip", "Quiet Evenings", "Kitchen Mix", "Rain")),
    ("movie film book show series", ("The Glass Orchard", "Winter Ferry", "A Small Map", "Copper Hill")),
    ("tag tags category categories genre type kind", ("urgent", "travel", "household", "work")),
    ("company brand team organisation organization department", ("Brightwater", "Acme", "Finch and Sons", "Logistics")),
    ("name person user recipient contact customer author", ("Maria", "Sam Okafor", "Li Wei", "Dr Ahmed")),
    ("assignee owner guest sender attendee member", ("Jonas", "Priya Nair", "Ana", "Mr Kowalski")),
)
IDENTIFIERS = frozenset(("id", "ids", "code", "number", "no", "ref", "reference", "sku", "key", "token", "identifier"))
NEUTRAL = ("Juniper", "Aurora", "Marlow", "Cobalt", "Sparrow", "Tundra", "Velvet", "Harbour")

FORMATS: Mapping[str, Callable[[Random], str]] = {
    "date": lambda rng: f"{rng.randint(2026, 2028)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
    "time": lambda rng: f"{rng.randint(0, 23):02}:{rng.choice((0, 15, 30, 45)):02}:00Z",
    "date-time": lambda rng: f"{FORMATS['date'](rng)}T{FORMATS['time'](rng)}",
    "duration": lambda rng: f"PT{rng.randint(1, 59)}M",
    "email": lambda rng: f"{rng.choice(('maria', 'sam', 'li.wei', 'office'))}{rng.randint(1, 99)}@example.org",
    "hostname": lambda rng: f"host{rng.randint(1, 99)}.example.org",
    "ipv4": lambda rng: f"192.0.2.{rng.randint(1, 254)}",
    "ipv6": lambda rng: f"2001:db8::{rng.randint(1, 9999)}",
    "uri": lambda rng: f"https://example.org/{rng.choice(('map', 'news', 'a'))}/{rng.randint(1, 99)}",
    "uuid": lambda rng: "-".join(f"{rng.getrandbits(4 * size):0{size}x}" for size in (8, 4, 4, 4, 12)),
    "regex": lambda rng: f"^[a-z]{{{rng.randint(1, 9)}}}$",
    "json-pointer": lambda rng: f"/items/{rng.randint(0, 99)}",
    "relative-json-pointer": lambda rng: f"{rng.randint(0, 9)}/items",
    "uri-template": lambda rng: f"https://example.org/{rng.randint(1, 99)}/{{id}}",
}
SAME_FORMAT = {
    **{"idn-email": "email", "idn-hostname": "hostname"},
    **dict.fromkeys(("iri", "uri-reference", "iri-reference"), "uri"),
}


@dataclass(frozen=True)
class Sample:
    """A value, and how a request states it; empty where it need not be said."""

    value: Any
    said: str


def sample_arguments(tool: Tool, rng: Random) -> dict[str, Sample]:
    """Samples for the required parameters and some of the optional ones, in the schema's order.

    Raises `NoSample` where what was drawn does not fit the tool's schema; another draw may.
    """
    sampler = _Sampler(tool, rng)
    found = sampler.fields(tool.parameters)
    errors = tool.argument_errors({name: sample.value for name, sample in found.items()})
    if errors:
        raise NoSample("; ".join(f"{error.where}: {error.message}" for error in errors))
    return found


def words(name: str) -> list[str]:
    """The words of an identifier: "order_id", "orderId" and "OrderID" are all order, id."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word.lower() if not word.isupper() or len(word) > 4 else word for word in re.findall(r"[^\W_]+", parted)]


def label(name: str) -> str:
    """A parameter's name as people would say it."""
    return " ".join(words(name)) or name


class _Sampler:
    def __init__(self, tool: Tool, rng: Random) -> None:
        self.rng = rng
        self.tool = tool
        self.defs = {**tool.parameters.get("definitions", {}), **tool.parameters.get("$defs", {})}

    def fields(self, schema: Schema, depth: int = 0) -> dict[str, Sample]:
        required = schema.get("required", ())
        return {
            name: self.sample(name, child, depth + 1)
            for name, child in schema.get("properties", {}).items()
            if name in required or self.rng.random() < OPTIONAL_SHARE
        }

    def sample(self, name: str, schema: Any, depth: int) -> Sample:
        schema = self._plain(schema, depth)
        if "const" in schema:
            return Sample(schema["const"], "")
        if "enum" in schema:
            value = self.rng.choice([value for value in schema["enum"] if value is not None] or schema["enum"])
            return Sample(value, _said(value))
        kinds = schema.get("type", "string" if "properties" not in schema else "object")
        kind = next((kind for kind in kinds if kind != "null"), "null") if isinstance(kinds, list) else kinds
        make = getattr(self, f"_{kind}", None)
        if make is None:
            raise NoSample(f"{name}: no value of type {kind!r} can be made")
        found: Sample = make(name, schema, depth)
        return found

    def _plain(self, schema: Any, depth: int) -> Schema:
        """The schema without references and branches: one of the alternatives that is not null."""
        if depth > MAX_DEPTH:
            raise NoSample(f"the schema of {self.tool.name} nests deeper than {MAX_DEPTH}")
        plain: Schema = dict(schema) if isinstance(schema, Mapping) else {}
        if "$ref" in plain:
            target = self.defs.get(str(plain.pop("$ref")).rpartition("/")[2], {})
            return self._plain({**target, **plain} if isinstance(target, Mapping) else plain, depth + 1)
        for key in ("anyOf", "oneOf"):
            if key in plain:
                options = [dict(option) for option in plain.pop(key) if _is_usable(option)]
                return self._plain({**plain, **(self.rng.choice(options) if options else {})}, depth + 1)
        for part in plain.pop("allOf", ()):
            plain = _merged(plain, self._plain(part, depth + 1))
        return plain

    def _string(self, name: str, schema: Schema, depth: int) -> Sample:
        value = self._text(name, schema)
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        if "pattern" not in schema and "format" not in schema:
            while len(value) < least:
                value += f" {self.rng.choice(NEUTRAL)}"
            value = value[:most].strip()
        if not value.strip() or value != value.strip():
            raise NoSample(f"{name}: {value!r} can't be stated in a request")
        return Sample(value, value)

    def _text(self, name: str, schema: Schema) -> str:
        examples = [value for value in schema.get("examples", ()) if isinstance(value, str)]
        if examples:
            return str(self.rng.choice(examples))
        if "pattern" in schema:
            return from_pattern(schema["pattern"], self.rng)
        format_ = str(schema.get("format", ""))
        make = FORMATS.get(SAME_FORMAT.get(format_, format_))
        if make is not None:
            return make(self.rng)
        return self._hinted(words(name), words(str(schema.get("description", ""))))

    def _hinted(self, name: Sequence[str], description: Sequence[str]) -> str:
        for word in map(str.casefold, [*reversed(name), *description]):
            if word in IDENTIFIERS:
                return self._identifier(name)
            for hint, values in HINTS:
                if word in hint.split():
                    return self.rng.choice(values)
        return self.rng.choice(NEUTRAL)

    def _identifier(self, name: Sequence[str]) -> str:
        """An identifier that begins with what it identifies: ORD-4821 for order_id."""
        named = [word for word in [*name, *reversed(words(self.tool.name))] if word.casefold() not in IDENTIFIERS]
        return f"{(named[0] if named else 'ref')[:3].upper()}-{self.rng.randint(1000, 9999)}"

    def _integer(self, name: str, schema: Schema, depth: int) -> Sample:
        value = self._multiple(name, _range(schema, 1), schema.get("multipleOf", 1))
        return Sample(int(value), str(int(value)))

    def _number(self, name: str, schema: Schema, depth: int) -> Sample:
        low, high = _range(schema, 0)
        if "multipleOf" in schema:
            value = self._multiple(name, (low, high), schema["multipleOf"])
        else:
            value = round(self.rng.uniform(low, high), 1 if high - low >= 2 else 3)
        return Sample(value, str(value))

    def _multiple(self, name: str, bounds: tuple[float, float], step: float) -> float:
        # People name small numbers, even where large ones are allowed.
        first = math.ceil(bounds[0] / step)
        last = min(math.floor(bounds[1] / step), first + LIKELY_STEPS)
        if first > last:
            raise NoSample(f"{name}: no multiple of {step} lies between {bounds[0]} and {bounds[1]}")
        return round(self.rng.randint(first, last) * step, 9)

    def _boolean(self, name: str, schema: Schema, depth: int) -> Sample:
        value = self.rng.random() < 0.5
        return Sample(value, _said(value))

    def _null(self, name: str, schema: Schema, depth: int) -> Sample:
        return Sample(None, "")

    def _array(self, name: str, schema: Schema, depth: int) -> Sample:
        least = schema.get("minItems", 0)
        length = max(least, min(self.rng.randint(1, 2), schema.get("maxItems", 2)))
        prefix = schema.get("prefixItems", [])
        found: list[Sample] = []
        for number in range(50):
            if len(found) >= length:
                break
            items = prefix[len(found)] if len(found) < len(prefix) else schema.get("items", {})
            sample = self.sample(_singular(name), items, depth + 1)
            # Saying one thing twice makes no list; the last attempts take what there is.
            if number > 40 or sample not in found:
                found.append(sample)
        return Sample([sample.value for sample in found], listed([sample.said for sample in found if sample.said]))

    def _object(self, name: str, schema: Schema, depth: int) -> Sample:
        found = self.fields(schema, depth)
        said = [f"{label(field)} {sample.said}" for field, sample in found.items() if sample.said]
        return Sample({field: sample.value for field, sample in found.items()}, listed(said))


def _said(value: Any) -> str:
    """How a request states a value chosen from a list."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return re.sub(r"[_\s]+", " ", str(value)).strip()


def _is_usable(option: Any) -> bool:
    return isinstance(option, Mapping) and option.get("type") != "null"


def _merged(one: Schema, other: Schema) -> Schema:
    merged = {**one, **other}
    merged["properties"] = {**one.get("properties", {}), **other.get("properties", {})}
    merged["required"] = [*one.get("required", ()), *other.get("required", ())]
    return merged if merged["properties"] else {**one, **other}


def _range(schema: Schema, least_step: int) -> tuple[float, float]:
    """The bounds within which to draw; bounds that are not given are set near the others."""
    lows = [schema[key] + extra for key, extra in (("minimum", 0), ("exclusiveMinimum", least_step)) if key in schema]
    highs = [schema[key] - extra for key, extra in (("maximum", 0), ("exclusiveMaximum", least_step)) if key in schema]
    width = 20 * max(1, schema.get("multipleOf", 1))
    if lows:
        return max(lows), min(highs) if highs else max(lows) + width
    return (min(1, min(highs) - width if min(highs) < 1 else 1), min(highs)) if highs else (1, width)


def _singular(name: str) -> str:
    return name[:-1] if name.endswith("s") and not name.endswith("ss") else name


def listed(said: Sequence[str]) -> str:
    """Several things in one phrase: "a, b and c"."""
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
