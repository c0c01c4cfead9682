"""A network's weights as a GGUF file, in float32: what is in memory, an adapter merged into it included.

Qwen3's blocks only, which the embedded base has too: llama.cpp rotates their queries and keys by halves, as mlx-lm
does, so no row is moved.
"""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from mlx_router.model import Model

from mlx.utils import tree_flatten  # isort: skip

ARCHITECTURE = "qwen3"


def can_write(model: Model) -> bool:
    """Whether the model is one of Qwen3's kind in float32."""
    return model.config["model_type"] == ARCHITECTURE and model.dtype == "float32" and not model.quantized


def write_gguf(model: Model, file: Path) -> Path:
    """Write the model, its adapter merged already, and its tokenizer for a reader that is given token ids."""
    assert can_write(model)
    writer = gguf.GGUFWriter(file, ARCHITECTURE)
    _add_shape(writer, model.config)
    _add_vocabulary(writer, model)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, model.config["num_hidden_layers"])
    for name, value in tree_flatten(model.network.parameters()):
        found = names.get_name(name, try_suffixes=(".weight",))
        assert found is not None, f"GGUF has no place for {name}"
        writer.add_tensor(found, np.asarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _add_vocabulary(writer: gguf.GGUFWriter, model: Model) -> None:
    """The text of every token, which a grammar is checked by; rows of the embedding that have none are unused."""
    tokenizer = json.loads((model.folder / "tokenizer.json").read_text(encoding="utf-8"))
    size = model.config["vocab_size"]
    tokens = [f"[unused{number}]" for number in range(size)]
    kinds = [gguf.TokenType.UNUSED] * size
    for text, number in tokenizer["model"]["vocab"].items():
        tokens[number], kinds[number] = text, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], gguf.TokenType.CONTROL
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    # How text is cut before the merges matters to nobody who gives token ids.
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    writer.add_eos_token_id(min(model.chat.eos_tokens))
    writer.add_add_bos_token(False)
