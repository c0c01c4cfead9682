"""All that training reads, as plain texts: requests of real sets and of scenes, and what tools say of themselves."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .marks import unmarked
from .scenes import Frame, Scene, training_scenes
from .sources import load_sets, request_texts
from .speaker import Speaker, finish
from .values import Words

FILLINGS = 2  # times that a scene's frame is filled with values
LONGEST = 260  # characters


@dataclass(frozen=True)
class Text:
    """A request, or the description of a tool of this name."""

    text: str
    tool: str = ""


def corpus(data: str, seed: int) -> list[Text]:
    """Each text once, shuffled. Without a folder of real sets, those of scenes alone."""
    rng = random.Random(seed)
    sets, scenes = load_sets(Path(data)) if data else [], training_scenes()
    words = Words.of(request_texts(sets)) if sets else Words()
    requests = {row.request.strip() for real in sets for rows in real.rows.values() for row in rows}
    requests |= set(_scene_requests(rng, scenes, words))
    tools = {Text(tool.description, tool.name) for scene in scenes for tool in scene.tools if tool.description}
    found = [Text(request) for request in sorted(requests) if 2 < len(request) < LONGEST]
    found += sorted(tools, key=lambda tool: (tool.tool, tool.text))
    rng.shuffle(found)
    return found


def _scene_requests(rng: random.Random, scenes: Sequence[Scene], words: Words) -> list[str]:
    made = []
    for scene in scenes:
        speaker = Speaker(rng, words, scene)
        for _ in range(FILLINGS):
            for tool in scene.tools:
                for frame in (*tool.calls, *tool.missing, *tool.invalid):
                    text, arguments, copied = speaker.fill(tool, frame)
                    made.append(finish(rng, text, arguments, copied)[0].strip())
        for _, idle in scene.idle:
            text, _, _ = speaker.fill(None, Frame(idle))
            made.append(finish(rng, unmarked(text), {}, ())[0].strip())
    return made
