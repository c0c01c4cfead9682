"""What a docstring says: its first paragraph, and what its Google, NumPy or Sphinx section says about parameters."""

import inspect
import re
from collections.abc import Iterator

SPHINX = re.compile(r":(?:param|parameter|arg|argument|key)\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)")
GOOGLE_HEAD = re.compile(r"(?:Args|Arguments|Params|Parameters):")
GOOGLE_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\((?:[^()]|\([^()]*\))*\))?\s*:\s*(.*)")
NUMPY_HEAD = re.compile(r"(?:Other )?Parameters")
NUMPY_ENTRY = re.compile(r"((?:\*{0,2}\w+)(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?")
ANY_HEAD = re.compile(r"[A-Z]\w+(?: [A-Z]?\w+)?:")
RULE = re.compile(r"-{3,}")


def summary(doc: str | None) -> str:
    """The first paragraph, as one line."""
    lines = inspect.cleandoc(doc or "").splitlines()
    taken: list[str] = []
    for number, line in enumerate(lines):
        if not line.strip() or _begins_section(lines, number):
            break
        taken.append(line.strip())
    return " ".join(taken)


def parameter_descriptions(doc: str | None) -> dict[str, str]:
    """What the docstring says about each parameter, as one line each."""
    lines = inspect.cleandoc(doc or "").splitlines()
    found: dict[str, list[str]] = {}
    for names, words in (*_sphinx(lines), *_google(lines), *_numpy(lines)):
        for name in names:
            found.setdefault(name, []).extend(words)
    described = {name: " ".join(word.strip() for word in words if word.strip()) for name, words in found.items()}
    return {name: text for name, text in described.items() if text}


def _begins_section(lines: list[str], number: int) -> bool:
    line = lines[number].rstrip()
    underlined = number + 1 < len(lines) and RULE.fullmatch(lines[number + 1].strip()) is not None
    return underlined or GOOGLE_HEAD.fullmatch(line) is not None or line.startswith(":param ")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _section(lines: list[str], start: int) -> Iterator[str]:
    """The lines after `start` that belong to it: blank ones and indented ones."""
    for line in lines[start:]:
        if line.strip() and not _indent(line):
            return
        yield line


def _sphinx(lines: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    for number, line in enumerate(lines):
        if match := SPHINX.fullmatch(line.strip()):
            yield [match[1]], [match[2], *_paragraph(lines[number + 1 :], _indent(line))]


def _paragraph(lines: list[str], indent: int) -> Iterator[str]:
    """The lines that go on with an entry: deeper than it, up to a blank one."""
    for line in lines:
        if not line.strip() or _indent(line) <= indent:
            return
        yield line


def _google(lines: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    for number, line in enumerate(lines):
        if not GOOGLE_HEAD.fullmatch(line.rstrip()):
            continue
        section = list(_section(lines, number + 1))
        level = min((_indent(entry) for entry in section if entry.strip()), default=0)
        for at, entry in enumerate(section):
            if _indent(entry) == level and (match := GOOGLE_ENTRY.fullmatch(entry.strip())):
                yield [match[1]], [match[2], *_paragraph(section[at + 1 :], level)]


def _numpy(lines: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    for number, line in enumerate(lines[:-1]):
        if not (NUMPY_HEAD.fullmatch(line.strip()) and RULE.fullmatch(lines[number + 1].strip())):
            continue
        for at in range(number + 2, len(lines)):
            if at + 1 < len(lines) and RULE.fullmatch(lines[at + 1].strip()):
                break
            if not _indent(lines[at]) and (match := NUMPY_ENTRY.fullmatch(lines[at].strip())):
                names = [name.strip(" *") for name in match[1].split(",")]
                yield names, list(_paragraph(lines[at + 1 :], 0))
