"""Write a small, valid GGUF of a Llama 3 shape with a byte-level tokenizer: one layer, random weights.

python tiny_gguf.py FILE.gguf
"""

from __future__ import annotations

import sys

import gguf
import numpy

WIDTH, CONTEXT, BASE = 64, 16384, 500000.0
MERGES = ["1 2", "3 4", "12 34"]


def byte_symbols() -> list[str]:
    """The printable symbols that byte-level BPE writes bytes with."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def rope_factors() -> numpy.ndarray:
    """What llama.cpp's converter writes for Llama 3.2: by how much each frequency is divided (factor 32, from 8192)."""
    wavelengths = 2 * numpy.pi * BASE ** (numpy.arange(WIDTH // 2) / (WIDTH // 2))
    share = (8192 / wavelengths - 1.0) / (4.0 - 1.0)
    smooth = 1 / ((1 - share) / 32.0 + share)
    return numpy.where(share <= 0, 32.0, numpy.where(share >= 1, 1.0, smooth)).astype(numpy.float32)


def main() -> None:
    """Write the file."""
    tokens = ["<|end_of_text|>", "<|begin_of_text|>", "<|eot_id|>", *byte_symbols(), "12", "34", "1234"]
    writer = gguf.GGUFWriter(sys.argv[1], "llama")
    writer.add_block_count(1)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(BASE)
    writer.add_rope_dimension_count(WIDTH)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    random = numpy.random.default_rng(0)
    writer.add_tensor("token_embd.weight", random.normal(0, 0.02, (len(tokens), WIDTH)).astype(numpy.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", numpy.ones(WIDTH, numpy.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        values = random.normal(0, 0.02, (WIDTH, WIDTH)).astype(numpy.float32)
        writer.add_tensor(f"blk.0.{name}.weight", values)
    writer.add_tensor("rope_freqs.weight", rope_factors())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
