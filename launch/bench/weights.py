"""Countdown weights: a Hugging Face folder of a Qwen3 whose answers have the lengths we want.

They make lengths exact without a hook in any system: in a random Qwen3 whose residual stream is
all but the embedding, the head's column of token t - 1 points along the embedding of t. So t is
followed by t - 1 with probability 1 to many digits, and a prompt that ends in token L + 1 is
answered by L, L - 1, ..., 2, EOS: L tokens. Attention, feed-forward and head are all computed.
"""

import json
from pathlib import Path

import numpy as np
from work import EOS, PAD, Shape

POSITIONS = 4096
GAP = 3.0  # length of the head's columns: the right token's logit is ahead by tens
QUIET = 0.05  # of what layers add to the residual stream, beside a random model


def write_model(shape: Shape, folder: Path, *, countdown: bool) -> None:
    """In float32, seed 0. Without `countdown` the head is as random as the rest."""
    rng = np.random.default_rng(0)

    def normal(rows: int, columns: int, std: float) -> np.ndarray:
        drawn = rng.standard_normal((rows, columns), np.float32)
        return drawn * np.float32(std)

    C, D, F = shape.head_dim, shape.width, shape.ff
    embed, head = normal(shape.vocab, D, 1.0), normal(shape.vocab, D, 0.02)
    if countdown:
        after = np.roll(embed, -1, axis=0)  # row v: the embedding of v + 1
        head = np.float32(GAP) * after / np.linalg.norm(after, axis=1, keepdims=True)
    tensors = {"model.embed_tokens.weight": embed, "lm_head.weight": head}
    into = 0.02 * QUIET if countdown else 0.02
    for n in range(shape.layers):
        layer = f"model.layers.{n}."
        for name, rows, columns, std in (
            ("self_attn.q_proj", shape.heads * C, D, 0.02),
            ("self_attn.k_proj", shape.kv_heads * C, D, 0.02),
            ("self_attn.v_proj", shape.kv_heads * C, D, 0.02),
            ("self_attn.o_proj", D, shape.heads * C, into),
            ("mlp.gate_proj", F, D, 0.02),
            ("mlp.up_proj", F, D, 0.02),
            ("mlp.down_proj", D, F, into),
        ):
            tensors[f"{layer}{name}.weight"] = normal(rows, columns, std)
        for name, size in (
            ("self_attn.q_norm", C), ("self_attn.k_norm", C), ("input_layernorm", D),
            ("post_attention_layernorm", D),
        ):  # fmt: skip
            tensors[f"{layer}{name}.weight"] = np.ones(size, np.float32)
    tensors["model.norm.weight"] = np.ones(D, np.float32)
    folder.mkdir(parents=True)
    write_safetensors(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(card(shape), indent=1))
    generation = {"eos_token_id": EOS, "pad_token_id": PAD, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(generation))


def card(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": shape.width,
        "intermediate_size": shape.ff, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim, "vocab_size": shape.vocab, "rope_theta": shape.rope_theta,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "hidden_act": "silu",
        "max_position_embeddings": POSITIONS, "attention_bias": False, "initializer_range": 0.02,
        "torch_dtype": "float32", "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None,
    }  # fmt: skip


def write_safetensors(tensors: dict[str, np.ndarray], file: Path) -> None:
    """float32 tensors: the header's length, the header, the numbers."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end]}
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    with file.open("wb") as out:
        out.write(len(words).to_bytes(8, "little") + words)
        for tensor in tensors.values():
            out.write(np.ascontiguousarray(tensor, "<f4").tobytes())
