"""The base model in plain PyTorch: Qwen3's shape and Hugging Face's tensor names, so that mlx-lm loads what is saved.

Weights are a dictionary of f32 tensors; the computation runs in f32 or bf16. Needs the extra `mlx-router[pretrain]`.
"""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from ...storage import STORAGE
from .tokenizer import FILES

Weights: TypeAlias = dict[str, torch.Tensor]
EMBEDDING_DEVIATION = 0.02
ATTENTION_PART = 256  # queries
EMBEDDING = "model.embed_tokens.weight"
OWN, PROJECTION = "embedding.own", "embedding.projection"
WORD_HEAD, TEXT_HEAD = "head.word", "head.text"  # `distil`'s
TRAINING_ONLY = (OWN, PROJECTION, WORD_HEAD, TEXT_HEAD)


@dataclass(frozen=True)
class Shape:
    """The fields of config.json that the computation depends on."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float

    @classmethod
    def read(cls, folder: Path) -> "Shape":
        """The shape that a model folder's config.json describes."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return cls(**{name: config[name] for name in cls.__dataclass_fields__})


def random_weights(shape: Shape, seed: int) -> Weights:
    """Fresh weights; what adds to the residual stream starts smaller, the deeper the model is."""
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    for name, size in tensor_sizes(shape).items():
        if len(size) == 1:
            weights[name] = torch.ones(size)
            continue
        deviation = EMBEDDING_DEVIATION if name == EMBEDDING else 0.8 / math.sqrt(size[1])
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            deviation /= math.sqrt(2 * shape.num_hidden_layers)
        weights[name] = torch.randn(size, generator=generator) * deviation
    return weights


def tensor_sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and sizes of all tensors."""
    d, f, h = shape.hidden_size, shape.intermediate_size, shape.num_attention_heads * shape.head_dim
    sizes: dict[str, tuple[int, ...]] = {EMBEDDING: (shape.vocab_size, d)}
    for layer in range(shape.num_hidden_layers):
        at = f"model.layers.{layer}."
        sizes |= {at + f"self_attn.{name}_proj.weight": (h, d) for name in "qkv"}
        sizes[at + "self_attn.o_proj.weight"] = (d, h)
        sizes |= {at + f"self_attn.{name}_norm.weight": (shape.head_dim,) for name in "qk"}
        sizes |= {at + f"mlp.{name}_proj.weight": (f, d) for name in ("gate", "up")}
        sizes[at + "mlp.down_proj.weight"] = (d, f)
        sizes |= {at + f"{name}_layernorm.weight": (d,) for name in ("input", "post_attention")}
    sizes["model.norm.weight"] = (d,)
    return sizes


def split_embedding(weights: Weights, vectors: torch.Tensor, projection: torch.Tensor | None = None) -> Weights:
    """The weights with an embedding of two parts: the vectors' projection, and each token's own.

    Fresh weights take a first `projection`. Without one they were trained: their embedding stays as it is, and what the
    vectors explain of it, by least squares, is the projection's.
    """
    rest = {name: weight for name, weight in weights.items() if name != EMBEDDING}
    embedding = weights[EMBEDDING]
    if projection is not None:
        scale = EMBEDDING_DEVIATION * math.sqrt(projection.shape[1])
        return {**rest, OWN: embedding, PROJECTION: projection * scale}
    words = vectors.norm(dim=-1) > 0
    fitted = torch.linalg.lstsq(vectors[words], embedding[words]).solution
    return {**rest, OWN: embedding - vectors @ fitted, PROJECTION: fitted}


@dataclass
class Model:
    """Shape and weights, and the computation.

    With `vectors` (vocabulary, W) the embedding is what `split_embedding` makes of it.
    """

    shape: Shape
    weights: Weights
    vectors: torch.Tensor | None = None

    def __post_init__(self) -> None:
        half = torch.arange(0, self.shape.head_dim, 2).float() / self.shape.head_dim
        device = next(iter(self.weights.values())).device
        self.frequencies = (1 / self.shape.rope_theta**half).to(device)

    def embedding(self) -> torch.Tensor:
        """(vocabulary, D): the embedding, which is the output head too."""
        if self.vectors is None:
            return self.weights[EMBEDDING]
        return self.weights[OWN] + self.vectors @ self.weights[PROJECTION]

    def states(
        self,
        embedding: torch.Tensor,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        bias: torch.Tensor,
        dtype: Any,
        blocks: int,
    ) -> list[torch.Tensor]:
        """The states (B, T, D) after each of the first blocks. `bias` (B, 1, T, T) is added to the attention scores."""
        angles = positions.unsqueeze(-1).float() * self.frequencies
        cos, sin = angles.cos().unsqueeze(2).to(dtype), angles.sin().unsqueeze(2).to(dtype)
        x = F.embedding(tokens, embedding).to(dtype)
        found = []
        for layer in range(blocks):
            at = f"model.layers.{layer}."
            x = x + self._attention(at + "self_attn.", self._norm(at + "input_layernorm", x), cos, sin, bias)
            x = x + self._mlp(at + "mlp.", self._norm(at + "post_attention_layernorm", x))
            found.append(x)
        return found

    def loss(
        self,
        tokens: torch.Tensor,
        before: torch.Tensor,
        weight: torch.Tensor,
        positions: torch.Tensor,
        bias: torch.Tensor,
        dtype: Any,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Mean cross-entropy of the tokens after the flat places `before` (K) of (B, T), each with its weight (K).

        With it come the states (B, T, D) after each block.
        """
        embedding = self.embedding()
        states = self.states(embedding, tokens, positions, bias, dtype, self.shape.num_hidden_layers)
        last = self._norm("model.norm", states[-1]).flatten(0, 1)[before]
        logits = F.linear(last, embedding.to(dtype)).float()
        losses = F.cross_entropy(logits, tokens.flatten()[before + 1], reduction="none")
        return (losses * weight).sum() / weight.sum(), states

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weights[f"{name}.weight"].to(x.dtype), self.shape.rms_norm_eps)

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}.weight"].to(x.dtype))

    def _heads(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self._linear(name, x).view(*x.shape[:2], -1, self.shape.head_dim)

    def _attention(
        self, at: str, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        q = rotate(self._norm(at + "q_norm", self._heads(at + "q_proj", x)), cos, sin).transpose(1, 2)
        k = rotate(self._norm(at + "k_norm", self._heads(at + "k_proj", x)), cos, sin).transpose(1, 2)
        v = self._heads(at + "v_proj", x).transpose(1, 2)
        mixed = attend(q, k, v, bias).transpose(1, 2)
        return self._linear(at + "o_proj", mixed.reshape(*x.shape[:2], -1))

    def _mlp(self, at: str, x: torch.Tensor) -> torch.Tensor:
        gate = F.silu(self._linear(at + "gate_proj", x))
        return self._linear(at + "down_proj", gate * self._linear(at + "up_proj", x))


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Attention of queries on keys and values (B, H, T, D); `bias` (B, 1, T, T) masks what comes later, and more."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    # On a CPU, products over all keys that a part of the queries may see are two to three times as fast, forward and
    # back, as PyTorch's fused attention, which also computes what the mask hides.
    mixed = []
    for start in range(0, q.shape[2], ATTENTION_PART):
        end = start + ATTENTION_PART
        scores = (q[:, :, start:end] * q.shape[-1] ** -0.5) @ k[:, :, :end].transpose(-1, -2)
        mixed.append(torch.softmax(scores + bias[:, :, start:end, :end], -1) @ v[:, :, :end])
    return torch.cat(mixed, 2)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions on (B, T, H, D)."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attention_bias(episodes: torch.Tensor, turns: torch.Tensor, dtype: Any) -> torch.Tensor:
    """(B, 1, T, T): 0 where a token may look, which is back, at its own catalogue and its own turn; else very low."""
    length = episodes.shape[1]
    same_episode = episodes[:, None, :] == episodes[:, :, None]
    seen = (turns[:, None, :] == 0) | (turns[:, None, :] == turns[:, :, None])
    allowed = torch.ones(length, length, dtype=torch.bool, device=turns.device).tril() & same_episode & seen
    return torch.zeros(allowed.shape, dtype=dtype, device=turns.device).masked_fill_(~allowed, -30000.0)[:, None]


def load_weights(folder: Path) -> Weights:
    """A model folder's weights as f32; those stored in 8 bits widened."""
    stored = load_file(folder / "model.safetensors")
    weights: Weights = {}
    for name, tensor in stored.items():
        part, _, kind = name.rpartition(".")
        if kind in ("scales", "biases"):
            continue
        scales = stored.get(f"{part}.scales")
        weights[name] = tensor.float() if scales is None else widened(tensor, scales, stored[f"{part}.biases"])
    return weights


def widened(packed: torch.Tensor, scales: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """(N, K) of f32 from four 8-bit numbers in each of (N, K / 4), as MLX packs them: the first in the lowest byte.

    Scales and offsets (N, K / G) are of groups of G numbers.
    """
    numbers = packed.contiguous().view(torch.uint8).float()
    groups = numbers.view(*scales.shape, -1)
    return (groups * scales.float().unsqueeze(-1) + offsets.float().unsqueeze(-1)).view(numbers.shape)


def export(model: Model, base: Path, folder: Path, dtype: Any = torch.float16) -> None:
    """Write a model folder for mlx-lm: the weights, and the base's config and tokenizer. The weights come last."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config = {name: value for name, value in config.items() if name not in STORAGE}
    config["torch_dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in FILES:
        if (base / name).resolve() != (folder / name).resolve():
            shutil.copyfile(base / name, folder / name)
    aside = folder / "model.safetensors.tmp"
    weights = {name: tensor for name, tensor in model.weights.items() if name not in TRAINING_ONLY}
    weights[EMBEDDING] = model.embedding()
    tensors = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in weights.items()}
    save_file(tensors, aside, metadata={"format": "pt"})
    aside.replace(folder / "model.safetensors")
