"""Random models of a few kilobytes, of the families that people train, made in milliseconds for tests.

`make_model(folder, "qwen3")` writes what mlx-lm loads: weights, configuration, tokenizer and a chat template in the
family's style. `make_recipe(folder)` adds a dozen rows and a recipe that trains on them.
"""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mlx_router.config import TrainConfig
from mlx_router.model import Model
from mlx_router.runtime import prepare

prepare()

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.utils import _get_classes, quantize_model  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Qwen3 and SmolLM3 put an empty block of thought before an answer that was not thought about.
CHATML_THINK = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
HEADERS = (
    "{% set today = date_string if date_string is defined else strftime_now('%d %b %Y') %}{{ bos_token }}"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if m.role == 'system' %}Today is {{ today }}.\n\n{% endif %}{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
TURNS = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('there is no system role') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
BARS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """What sets a family apart: its template, its control tokens (the first ends a turn) and its configuration."""

    template: str
    control: tuple[str, ...]
    thought: tuple[str, ...] = ()
    bos: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


IM = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
HEADER = ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
THINK = ("<think>", "</think>")
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 48, "sliding_window_pattern": 2}
FAMILIES = {
    "qwen3": Family(CHATML_THINK, IM, THINK, config={"head_dim": 32}),
    "qwen2": Family(CHATML, IM),
    "llama": Family(HEADERS, (*HEADER, "<|begin_of_text|>"), bos="<|begin_of_text|>"),
    "smollm2": Family(CHATML, IM, config={"model_type": "llama", "rope_theta": 100000.0}),
    "smollm3": Family(CHATML_THINK, IM, THINK, config={"no_rope_layer_interval": 2}),
    "gemma3_text": Family(TURNS, ("<end_of_turn>", "<start_of_turn>", "<bos>"), bos="<bos>", config=GEMMA),
    "phi3": Family(BARS, ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>"), config={"tie_word_embeddings": False}),
}
# Families whose caches can't be trimmed: convolutions, state spaces, linear attention, alone or beside attention, and a
# window that is shorter than the catalogue.
UNTRIMMED: dict[str, dict[str, Any]] = {
    "lfm2": {
        "block_dim": 64,
        "block_ff_dim": 128,
        "block_multiple_of": 32,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "full_attn_idxs": [1],
    },
    "mamba2": {
        "num_heads": 4,
        "head_dim": 32,
        "state_size": 16,
        "layer_norm_epsilon": 1e-5,
        "conv_kernel": 4,
        "n_groups": 1,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_limit": [0.0, 100.0],
        "time_step_rank": "auto",
    },
    "falcon_h1": {
        "head_dim": 16,
        "mamba_d_head": 16,
        "mamba_d_ssm": 64,
        "mamba_d_state": 16,
        "mamba_n_heads": 4,
    },
    "qwen3_next": {
        "head_dim": 32,
        "linear_num_value_heads": 2,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
        "num_experts": 0,
        "num_experts_per_tok": 0,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 64,
        "mlp_only_layers": [],
        "moe_intermediate_size": 64,
        "partial_rotary_factor": 0.5,
        "full_attention_interval": 2,
    },
    "gpt_oss": {
        "head_dim": 16,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "sliding_window": 48,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_scaling": None,
    },
}
SHAPES = FAMILIES | {name: Family(CHATML, IM, config=config) for name, config in UNTRIMMED.items()}
CORPUS = [
    "You route customer-support requests to tools. Available tools:",
    "- track_order(order_id: str): get the status of an order.",
    "- request_refund(order_id: str, reason: str): file a refund.",
    'Respond with {"tool":"name","arguments":{}}. If no tool fits, respond with {"tool":"no_tool","reason":"..."}.',
    '{"tool":"track_order","arguments":{"order_id":"ORD-1234"}}',
    "Where's my order? I want a refund, it arrived broken.",
]


def make_model(
    folder: Path, family: str = "qwen3", *, seed: int = 0, bits: int | None = None, dtype: str = "float32", **shape: Any
) -> Path:
    """Write a random model of a family; `bits` quantizes its weights, `shape` overrides its configuration."""
    found = SHAPES[family]
    folder.mkdir(parents=True)
    tokenizer = _tokenizer(family)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", _tokenizer_config(found))
    (folder / "chat_template.jinja").write_text(found.template, encoding="utf-8")
    config = _config(family, found, tokenizer) | shape
    classes: Any = _get_classes(config)
    mx.random.seed(seed)
    network = classes[0](classes[1].from_dict(config))
    if family == "gemma3_text":
        network.sanitize({})
    network.set_dtype(getattr(mx, dtype))
    if bits is not None:
        network, config = quantize_model(network, config, 32, bits)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(network.parameters())), {"format": "mlx"})
    _write(folder / "config.json", config)
    return folder


CATALOGUE = Path(__file__).parents[1] / "data" / "support" / "catalogue.json"
ORDERS = ("ORD-1", "KX-22", "77A", "Z-9", "P-301", "LL8")
GREETINGS = ("Hi!", "Hello", "Good day to you", "Hey", "Thanks a lot!", "Bye")


def make_recipe(folder: Path, family: str = "qwen3", **fields: Any) -> TrainConfig:
    """A recipe for a dozen rows on a random model of a family, all written to `folder`; `fields` override it."""
    rows = [_row(f"Where is {order}?", "track_order", {"order_id": order}) for order in ORDERS]
    rows += [{"request": greeting, "target": {"tool": "no_tool", "reason": "greeting"}} for greeting in GREETINGS]
    train = folder / "rows.jsonl"
    if not train.exists():
        train.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    model = folder / family
    if not model.exists() and "model" not in fields:
        make_model(model, family)
    found = {
        "model": str(model),
        "adapter": str(folder / "adapter"),
        "catalogue": str(CATALOGUE),
        "train": str(train),
        "epochs": 6,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "rank": 4,
        "lora_alpha": 8.0,
        "max_tokens": 40,
        "log_every": 1,
    }
    return TrainConfig.model_validate(found | fields)


def _row(request: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"request": request, "target": {"tool": tool, "arguments": arguments}}


def break_cache(network: Any) -> None:
    """Make a network read its keys at the wrong places once there is a prefix, as some architectures do."""
    attention = network.layers[0].self_attn
    rope = attention.rope

    class Forgetful(nn.Module):
        def __call__(self, x: mx.array, offset: int = 0) -> mx.array:
            found: mx.array = rope(x, offset=0)
            return found

    attention.rope = Forgetful()


@cache
def _tokenizer(name: str) -> Any:
    family = SHAPES[name]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=440,
        special_tokens=list(family.control),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 20, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in family.thought])
    if family.bos is not None:
        # Like the originals, it begins every encoded text of its own accord, unless told not to.
        bos = (family.bos, tokenizer.token_to_id(family.bos))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{family.bos} $A", special_tokens=[bos])
    return tokenizer


def _tokenizer_config(family: Family) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": family.control[0],
        "pad_token": family.control[-1],
        "bos_token": family.bos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }


def _config(name: str, family: Family, tokenizer: Any) -> dict[str, Any]:
    return {
        "model_type": name,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "vocab_size": tokenizer.get_vocab_size(),
        "rope_theta": 10000.0,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.token_to_id(family.control[0]),
        **family.config,
    }


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def by_full_passes(model: Model, prompt: list[int], count: int) -> str:
    """Greedy decoding with no cache at all: the whole text again for every token."""
    tokens = list(prompt)
    for _ in range(count):
        logits: mx.array = model.network(mx.array([tokens]))
        token = int(mx.argmax(logits[0, -1]).item())  # type: ignore[arg-type]
        if token in model.chat.eos_tokens:
            break
        tokens.append(token)
    return str(model.chat.tokenizer.decode(tokens[len(prompt) :]))
