"""A sentence encoder as a second teacher, of what words and texts mean in their context.

From the base's states after block `WORD_BLOCK`, at a word's last token, a linear head is to tell the encoder's vector
of that word; after `TEXT_BLOCK`, where a text ends, that of the text. The base reads from left to right, so of a word
it can tell what the words before it give away. Texts stand alone, which costs little, since the blocks above and the
output are not run. Targets are made once and kept in files; heads are thrown away in the end.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .corpus import Text
from .model import TEXT_HEAD, WORD_HEAD, Model, Weights, attention_bias
from .packing import PADDING, Encoder

WORD_BLOCK, TEXT_BLOCK = 3, 4
CHUNK = 10_000  # texts a file
CHUNKS_AT_ONCE = 4  # files that a step's texts come from
GROUP = 96  # texts of about one length that are run together
LONGEST = 72  # tokens; longer texts are left out
ENCODED = 96  # the encoder's tokens of a text at the most
FIRST_TEXTS = 6000  # texts that the heads' first weights are fitted to
RIDGE = 10.0


class Teacher:
    """The encoder: vectors of words in their texts, and of texts."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.read = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    def vectors(self, texts: Sequence[str]) -> tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """For each text its words' vectors (words, 384), zeros for one cut off, and all texts' (texts, 384)."""
        batch: Any = self.read(
            list(texts), return_tensors="pt", padding=True, truncation=True, max_length=ENCODED,
            return_offsets_mapping=True,
        )  # fmt: skip
        offsets = batch.pop("offset_mapping").tolist()
        with torch.no_grad():
            hidden = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        whole = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
        return [_by_word(text, at, states) for text, at, states in zip(texts, offsets, hidden, strict=True)], whole


def word_ends(text: str) -> list[int]:
    """Where the words of a text end; a word is what stands between spaces."""
    return [found.end() for found in re.finditer(r"\S+", text)]


def _by_word(text: str, offsets: Sequence[Sequence[int]], states: torch.Tensor) -> np.ndarray[Any, Any]:
    ends = word_ends(text)
    sums, counts = torch.zeros(len(ends), states.shape[1]), torch.zeros(len(ends), 1)
    word = 0
    for state, (start, end) in zip(states, offsets, strict=True):
        if end <= start:
            continue  # a special token
        while start >= ends[word]:
            word += 1
        sums[word] += state
        counts[word] += 1
    means: np.ndarray[Any, Any] = (sums / counts.clamp(min=1)).numpy()
    return means


@dataclass(frozen=True)
class Lesson:
    """Texts of about one length (B, T), the flat places of words' and texts' last tokens, and their targets."""

    tokens: torch.Tensor
    episodes: torch.Tensor
    words: torch.Tensor
    word_targets: torch.Tensor
    ends: torch.Tensor
    text_targets: torch.Tensor


@dataclass(frozen=True)
class _Chunk:
    tokens: list[list[int]]
    words: list[list[int]]
    word_vectors: np.ndarray[Any, Any]
    starts: np.ndarray[Any, Any]
    text_vectors: np.ndarray[Any, Any]


class Lessons:
    """Texts with their targets, kept in the files of a folder."""

    def __init__(self, folder: Path, texts: Sequence[Text], encoder: Encoder) -> None:
        self.folder, self.texts, self.encoder = folder, texts, encoder
        self.count = -(-len(texts) // CHUNK)
        self._chunks: dict[int, _Chunk] = {}

    def prepare(self, teacher: Path, part: int = 0, parts: int = 1) -> None:
        """Make the files that are not there yet; of several processes each makes its part."""
        missing = [at for at in range(part, self.count, parts) if not self._file(at).exists()]
        if not missing:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        encoder = Teacher(teacher)
        for done, at in enumerate(missing):
            print(f"vectors of texts: part {done + 1} of {len(missing)}", flush=True)
            self._make(encoder, at)

    def batch(self, rng: random.Random, count: int) -> list[Lesson]:
        """About this many texts, in groups of one length."""
        picked = []
        for at in rng.sample(range(self.count), min(CHUNKS_AT_ONCE, self.count)):
            chunk = self._chunk(at)
            places = rng.sample(range(len(chunk.tokens)), min(len(chunk.tokens), count // CHUNKS_AT_ONCE))
            picked += [(chunk, place) for place in places if len(chunk.tokens[place]) <= LONGEST]
        picked.sort(key=lambda one: len(one[0].tokens[one[1]]))
        return [self._lesson(picked[start : start + GROUP]) for start in range(0, len(picked), GROUP)]

    def _file(self, at: int) -> Path:
        return self.folder / f"{at}.npz"

    def _make(self, teacher: Teacher, at: int) -> None:
        texts = [text.text for text in self.texts[at * CHUNK : (at + 1) * CHUNK]]
        words: list[np.ndarray[Any, Any]] = [np.zeros(0)] * len(texts)
        whole: list[np.ndarray[Any, Any]] = [np.zeros(0)] * len(texts)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), 32):
            places = order[start : start + 32]
            found, vectors = teacher.vectors([texts[place] for place in places])
            for place, of_words, of_text in zip(places, found, vectors, strict=True):
                words[place], whole[place] = of_words.astype(np.float16), of_text.astype(np.float16)
        aside = self.folder / f"{at}.part.npz"
        np.savez(aside, words=np.concatenate(words), counts=[len(one) for one in words], texts=np.stack(whole))
        aside.replace(self._file(at))

    def _chunk(self, at: int) -> _Chunk:
        if at not in self._chunks:
            made = np.load(self._file(at))
            coded = [self._coded(text) for text in self.texts[at * CHUNK : (at + 1) * CHUNK]]
            starts = np.concatenate([[0], np.cumsum(made["counts"])])
            tokens, words = [one for one, _ in coded], [one for _, one in coded]
            self._chunks[at] = _Chunk(tokens, words, made["words"], starts, made["texts"])
        return self._chunks[at]

    def _coded(self, text: Text) -> tuple[list[int], list[int]]:
        """Tokens as a request or a tool's line begins, and the places of words' last ones."""
        before = self.encoder.tool(text.tool) if text.tool else self.encoder.user
        coded = self.encoder.tokenizer.encode(text.text, add_special_tokens=False)
        places, at = [], 0
        for end in word_ends(text.text):
            while at + 1 < len(coded.offsets) and coded.offsets[at + 1][0] < end:
                at += 1
            places.append(len(before) + at)
        return [*before, *coded.ids, *self.encoder.stop], places

    def _lesson(self, picked: Sequence[tuple[_Chunk, int]]) -> Lesson:
        length = len(picked[-1][0].tokens[picked[-1][1]])
        tokens = torch.zeros(len(picked), length, dtype=torch.long)
        episodes = torch.full((len(picked), length), PADDING)
        words, targets, ends, whole = [], [], [], []
        for row, (chunk, at) in enumerate(picked):
            ids, places = chunk.tokens[at], chunk.words[at]
            tokens[row, : len(ids)] = torch.tensor(ids)
            episodes[row, : len(ids)] = 0
            vectors = chunk.word_vectors[chunk.starts[at] : chunk.starts[at + 1]].astype(np.float32)
            said = np.abs(vectors).sum(1) > 0
            words.append(row * length + np.array(places, dtype=np.int64)[said])
            targets.append(vectors[said])
            ends.append(row * length + len(ids) - 1)
            whole.append(chunk.text_vectors[at].astype(np.float32))
        word_mean, word_scale, text_mean, text_scale = self.statistics
        return Lesson(
            tokens, episodes, torch.from_numpy(np.concatenate(words)),
            torch.from_numpy((np.concatenate(targets) - word_mean) / word_scale),
            torch.tensor(ends), torch.from_numpy((np.stack(whole) - text_mean) / text_scale),
        )  # fmt: skip

    @cached_property
    def statistics(self) -> tuple[np.ndarray[Any, Any], float, np.ndarray[Any, Any], float]:
        """Mean and deviation of the first file's vectors, of words and of texts."""
        chunk = self._chunk(0)
        words, texts = chunk.word_vectors.astype(np.float32), chunk.text_vectors.astype(np.float32)
        words = words[np.abs(words).sum(1) > 0]
        word_mean, text_mean = words.mean(0), texts.mean(0)
        return word_mean, float((words - word_mean).std()), text_mean, float((texts - text_mean).std())


class Meaning:
    """The second loss of a run, and its heads, which are among the model's weights."""

    def __init__(self, lessons: Lessons, teacher: Path, weight: float, texts: int) -> None:
        self.lessons, self.teacher, self.weight, self.texts = lessons, Teacher(teacher), weight, texts

    def first_heads(self, model: Model) -> Weights:
        """Heads that tell what can be told from the model's states as they are: ridge regression."""
        found: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {WORD_HEAD: [], TEXT_HEAD: []}
        with torch.no_grad():
            for lesson in self.lessons.batch(random.Random(0), FIRST_TEXTS):
                for head, states, targets in self._told(model, lesson):
                    found[head].append((_evened(states), targets))
        heads = {}
        for head, parts in found.items():
            states, targets = (torch.cat(part).double() for part in zip(*parts, strict=True))
            square = states.t() @ states + RIDGE * torch.eye(states.shape[1], dtype=states.dtype, device=states.device)
            heads[head] = torch.linalg.solve(square, states.t() @ targets).t().float().contiguous()
        return heads

    def backward(self, model: Model, rng: random.Random) -> float:
        """Add the gradients of a step's texts; return the loss, which is 2 where nothing is told."""
        lessons = self.lessons.batch(rng, self.texts)
        counts = {WORD_HEAD: sum(len(one.words) for one in lessons), TEXT_HEAD: sum(len(one.ends) for one in lessons)}
        total = 0.0
        for lesson in lessons:
            loss = torch.zeros(())
            for head, states, targets in self._told(model, lesson):
                loss = loss + self._error(model, head, states, targets) * len(targets) / counts[head]
            (self.weight * loss).backward()
            total += loss.item()
        return total

    def in_context(
        self, model: Model, states: Sequence[torch.Tensor], asked: Sequence[tuple[int, str]]
    ) -> torch.Tensor:
        """The loss of requests that follow a catalogue: flat places of their ends in the states (B, T, D)."""
        _, vectors = self.teacher.vectors([text for _, text in asked])
        _, _, mean, scale = self.lessons.statistics
        targets = torch.from_numpy((vectors - mean) / scale)
        ends = states[TEXT_BLOCK - 1].flatten(0, 1)[torch.tensor([at for at, _ in asked])]
        return self.weight * self._error(model, TEXT_HEAD, ends, targets) / 2

    def _told(self, model: Model, lesson: Lesson) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
        """Heads, the states that they are to tell from, and what."""
        positions = torch.arange(lesson.tokens.shape[1]).expand(lesson.tokens.shape)
        bias = attention_bias(lesson.episodes, torch.zeros_like(lesson.episodes), torch.float32)
        states = model.states(model.embedding(), lesson.tokens, positions, bias, torch.float32, TEXT_BLOCK)
        words, ends = states[WORD_BLOCK - 1].flatten(0, 1)[lesson.words], states[-1].flatten(0, 1)[lesson.ends]
        return [(WORD_HEAD, words, lesson.word_targets), (TEXT_HEAD, ends, lesson.text_targets)]

    def _error(self, model: Model, head: str, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(F.linear(_evened(states), model.weights[head]), targets)


def _evened(states: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(states.float(), (states.shape[-1],))
