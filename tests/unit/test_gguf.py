"""GGUF files against the same model from safetensors: weights, ends, tokenizer, samples; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf as library
import numpy
import pytest
import torch
from transformers import AutoTokenizer

from irl_core.errors import CheckpointError, ConfigError
from irl_core.models import gguf, hub
from irl_core.models.gguf import cache_home, converted, halves_apart, split_name, tokenizer_of
from irl_core.models.gguf_header import READABLE_TYPES, Header, llama3_factors, read_header
from irl_core.models.pretrained import Base, load_base, load_encoder, load_whole
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.sampling import LoopSampler
from tests.gguf_files import neighbours_together, write_gguf
from tests.small_models import random_model
from tests.tiny import PROBLEM, tiny_tokenizer
from train.planning import sources

TOKENIZER = tiny_tokenizer()
TEXTS = ("There are 3 * 4 = 12 pens.", " a\n\n  b", "naïve 1234 €", "<|im_start|>", "I'm   here\r\n\tnow 5.25")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRL_LENS_CACHE", str(tmp_path / "cache"))
    gguf.known_sha256.cache_clear()
    gguf.verify_converted.cache_clear()
    return tmp_path / "cache"


def a_model(kind: str, **options: Any) -> Any:
    return random_model(kind, len(TOKENIZER), **options)


def file_of(path: Path, kind: str = "llama", model: Any = None, **options: Any) -> Path:
    return write_gguf(path / "model.gguf", model or a_model(kind), TOKENIZER, **options)


# ----------------------------------------------------------------------------------------- as from safetensors


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_gguf_is_the_model_from_safetensors(kind: str, tied: bool, tmp_path: Path) -> None:
    model = a_model(kind, tie_word_embeddings=tied).bfloat16()
    model.save_pretrained(tmp_path / "folder")
    TOKENIZER.save_pretrained(tmp_path / "folder")
    folders = [tmp_path / "folder", hub.locate(str(file_of(tmp_path, kind, model)))]
    models = [load_whole(folder) for folder in folders]
    one, other = (dict(each.state_dict()) for each in models)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert models[1].dtype == torch.bfloat16 and models[1].config.tie_word_embeddings is tied
    if kind == "qwen2":
        return  # transformers' own class for tokenizers of this family adds to so small a vocabulary
    encoders = [load_encoder(folder, one) for folder, one in zip(folders, models, strict=True)]
    assert encoders[0].end_ids == encoders[1].end_ids and encoders[0].pad_id == encoders[1].pad_id
    assert encoders[0].fingerprint() == encoders[1].fingerprint()
    prompts = [encoder.encode_prompt("How many pens are 3 * 4?") for encoder in encoders]
    assert prompts[0] == prompts[1]
    samples = [
        LoopSampler(encoder.end_ids, encoder.pad_id)(each, [prompts[0]], num_samples=3, max_new_tokens=6, seeds=[1])
        for encoder, each in zip(encoders, models, strict=True)
    ]
    assert samples[0] == samples[1]


@pytest.mark.parametrize(("stored", "error"), [("F16", 1e-3), ("Q8_0", 0.01), ("Q5_1", 0.06), ("Q4_0", 0.15)])
def test_quantised_weights_are_those_of_the_file_within_its_rounding(stored: str, error: float, tmp_path: Path) -> None:
    model = a_model("qwen2")
    found = load_whole(converted(file_of(tmp_path, "qwen2", model, default=stored)))
    for name, values in model.state_dict().items():
        read = found.state_dict()[name].float()
        assert (read - values).norm() <= (error + 2**-8) * values.norm()


@pytest.mark.parametrize("finer", ["output.weight", "token_embd.weight"])
def test_a_table_that_is_there_twice_is_tied_and_the_finer_one_is_taken(finer: str, tmp_path: Path) -> None:
    model = a_model("qwen2")
    table = model.model.embed_tokens.weight.detach().numpy()
    types = {"output.weight": "Q4_0", "token_embd.weight": "Q4_0"} | {finer: "Q8_0"}
    folder = converted(file_of(tmp_path, "qwen2", model, tensors={"output.weight": table}, types=types))
    found = load_whole(folder)
    assert found.config.tie_word_embeddings and found.lm_head.weight is found.model.embed_tokens.weight
    assert (found.lm_head.weight.float() - model.lm_head.weight).norm() < 0.015 * model.lm_head.weight.norm()


def test_large_models_are_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = a_model("llama").bfloat16()
    monkeypatch.setattr(gguf, "SHARD_BYTES", 40_000)
    folder = converted(file_of(tmp_path, "llama", model))
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    found = load_whole(folder).state_dict()
    assert all(torch.equal(found[name], values) for name, values in model.state_dict().items())


def test_rotary_order_by_hand() -> None:
    # two heads of width 4: llama.cpp turns (0, 1) and (2, 3), transformers (0, 2) and (1, 3)
    rows = torch.arange(8)
    assert halves_apart(rows, 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(halves_apart(neighbours_together(rows, 2), 2), rows)


def test_llama3s_rotary_scaling_is_found_again(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    model = a_model("llama", rope_parameters=rope, head_dim=64)
    plain = a_model("llama", rope_parameters={"rope_type": "default", "rope_theta": 500000.0}, head_dim=64)
    factors = (plain.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq).numpy()
    assert factors == pytest.approx(llama3_factors(500000.0, 32, 32.0), rel=1e-5) and factors.max() == 32
    path = file_of(tmp_path, "llama", model, tensors={"rope_freqs.weight": factors})
    found = load_whole(converted(path))
    assert torch.equal(found.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    path = file_of(tmp_path, "llama", model, tensors={"rope_freqs.weight": factors**2})
    with pytest.raises(CheckpointError, match="scales the rotary embedding otherwise than Llama 3's"):
        converted(path)


# ------------------------------------------------------------------------------------------------------ tokenizers


@pytest.mark.parametrize(
    ("family", "pre", "ends"),
    [
        ("qwen2", "qwen2", ["<|im_end|>", "<|endoftext|>"]),
        ("llama3", "llama-bpe", ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"]),
    ],
)
def test_real_tokenizers_come_back(family: str, pre: str, ends: list[str], shared: Path, tmp_path: Path) -> None:
    folder = shared / "tokenizers" / family
    own = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    document = json.loads((folder / "tokenizer.json").read_text())
    padding = ["[PAD0]", "[PAD1]"]  # as files of Qwen's have: rows of the table that no token has
    tokens = sorted(own.get_vocab(), key=own.get_vocab().__getitem__) + padding
    added = {entry["content"] for entry in document["added_tokens"]}
    header = Header(
        tmp_path / "model.gguf",
        {
            "general.architecture": "llama" if family == "llama3" else family,
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [5 if one in padding else 3 if one in added else 1 for one in tokens],
            "tokenizer.ggml.merges": [" ".join(pair) for pair in document["model"]["merges"]],
            "tokenizer.ggml.eos_token_id": own.eos_token_id,
            "tokenizer.ggml.padding_token_id": own.pad_token_id,
            "tokenizer.chat_template": own.chat_template,
        },
        {},
    )
    found = tokenizer_of(header)
    assert found.get_vocab() == own.get_vocab() and found.chat_template == own.chat_template
    assert (found.eos_token, found.pad_token) == (own.eos_token, own.pad_token)
    for text in TEXTS:
        assert found(text, add_special_tokens=False)["input_ids"] == own(text, add_special_tokens=False)["input_ids"]
    assert found.convert_ids_to_tokens(list(header.ends)) == ends
    if family == "qwen2":  # as it is read again, by the class that transformers has for the family
        found.save_pretrained(tmp_path)
        model = random_model("qwen2", len(tokens), eos_token_id=list(header.ends))
        model.config.save_pretrained(tmp_path)
        encoder, known = load_encoder(tmp_path, model), TraceEncoder(own)
        assert encoder.encode_prompt(PROBLEM) == known.encode_prompt(PROBLEM)
        assert (encoder.end_ids[0], encoder.pad_id) == (known.end_ids[0], known.pad_id)


def test_ends_are_the_headers_and_the_familys(tmp_path: Path) -> None:
    keys = {"tokenizer.ggml.eot_token_id": 7}
    header = read_header(file_of(tmp_path, keys=keys))
    assert header.ends[:2] == (TOKENIZER.eos_token_id, 7)
    folder = converted(header.path)
    assert load_whole(folder).generation_config.eos_token_id == list(header.ends)


# ------------------------------------------------------------------------------------------------------- the cache


def test_it_is_converted_once_and_wherever_the_file_lies(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(tmp_path)
    told: list[tuple[str, int, int]] = []
    folder = converted(path, lambda *step: told.append(step))
    assert folder.parent == own_cache / "gguf" and cache_home() == own_cache
    assert told[-1] == ("converting", len(told), len(told)) and len(told) == 20  # 2 layers of 9, a table and a norm
    record = json.loads((folder / "converted.json").read_text())
    assert (record["source"], record["licence"], record["bytes"]) == ("model.gguf", "apache-2.0", path.stat().st_size)
    monkeypatch.setattr(gguf, "convert", None)
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "other.gguf"
    copy.write_bytes(path.read_bytes())
    assert converted(path) == converted(copy) == folder
    assert not list(own_cache.glob("gguf/writing-*"))


def test_what_was_changed_in_the_cache_is_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    weights = converted(path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    gguf.verify_converted.cache_clear()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not as it was written; remove the folder"):
        converted(path)


def test_a_conversion_that_fails_leaves_nothing(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    path = file_of(tmp_path)
    monkeypatch.setattr(gguf, "write_weights", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        converted(path)
    assert [entry.name for entry in (own_cache / "gguf").iterdir() if entry.is_dir()] == []


def test_a_file_that_changes_is_another_model(tmp_path: Path) -> None:
    first = converted(file_of(tmp_path))
    second = converted(file_of(tmp_path, model=a_model("llama", seed=1)))
    assert first != second and (first / "config.json").is_file()


# --------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct-GGUF:model-q4_k_m.gguf", ("Qwen/Qwen2.5-0.5B-Instruct-GGUF", "model-q4_k_m.gguf")),
        ("Qwen/Qwen2.5-0.5B-Instruct", None),
        ("Qwen/Qwen2.5:sub/model.gguf", None),
        ("Qwen/Qwen2.5:../model.gguf", None),
        ("C:model.gguf", None),
        ("a/b:model.safetensors", None),
    ],
)
def test_names_of_files_on_the_hub(name: str, parts: tuple[str, str] | None) -> None:
    assert split_name(name) == parts


def test_a_file_of_the_hub_is_pinned_to_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789" * 4
    (tmp_path / commit).mkdir()
    path = file_of(tmp_path / commit)
    asked: list[Any] = []

    def download(repository: str, file: str, **settings: Any) -> str:
        asked.append((repository, file, settings["revision"]))
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert hub.pinned("someone/small:model.gguf", "main") == ("someone/small:model.gguf", commit)
    assert hub.locate("someone/small:model.gguf", commit) == converted(path)
    assert asked == [("someone/small", "model.gguf", "main"), ("someone/small", "model.gguf", commit)]
    assert Base("someone/small:model.gguf", commit).name == "someone/small:model.gguf"
    with pytest.raises(ValueError, match="a hub name such as"):
        Base("someone/small:../model.gguf")


def test_adapters_remember_the_file(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    name, revision = hub.pinned(str(path), None)
    assert (name, revision) == (str(path), None)
    model = load_base(Base(name, revision, dtype="bfloat16"))
    assert model.pretrained_base.name == str(path) and not any(one.requires_grad for one in model.parameters())
    path.unlink()
    with pytest.raises(CheckpointError, match=r"the base of the adapters: .*is no file that is there"):
        load_base(Base(name, revision))


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"general.architecture": "phi3"},
            "the architecture is 'phi3'; llama and qwen2 can be read",
        ),
        ({"llama.rope.scaling.type": "yarn"}, r"rope\.scaling\.type is 'yarn'; none and linear are read"),
        ({"llama.expert_count": 8}, "a llama with experts or an attention window"),
        ({"llama.embedding_length": ...}, r"llama\.embedding_length is None; a whole number above 0 is expected"),
        ({"llama.block_count": 3}, r"the tensor blk\.2\.attn_norm\.weight is missing; the file is not whole"),
        ({"tokenizer.ggml.model": "llama"}, r"the tokenizer is of the kind 'llama'; byte-level BPE"),
        ({"tokenizer.ggml.eos_token_id": ...}, r"of the kind 'gpt2' without tokenizer\.ggml\.eos_token_id"),
        ({"tokenizer.ggml.pre": "tekken"}, "the pre-tokenizer is 'tekken'; can be read: smollm, gpt-2, qwen2"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_named(keys: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=told):
        converted(file_of(tmp_path, keys=keys))


def test_tensors_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    norm = numpy.ones(16, dtype=numpy.float32)
    with pytest.raises(CheckpointError, match=r"the tensor 'blk\.0\.attn_q_norm\.weight' is in no llama that is read"):
        converted(file_of(tmp_path, tensors={"blk.0.attn_q_norm.weight": norm}))
    path = file_of(tmp_path, "qwen2", default="TQ1_0", model=a_model("qwen2", hidden_size=256, intermediate_size=256))
    with pytest.raises(CheckpointError, match=r"is of type TQ1_0; can be read: F32, F16, BF16, Q4_0"):
        converted(path)


@pytest.mark.parametrize("name", READABLE_TYPES)
def test_every_type_that_is_offered_can_be_read(name: str) -> None:
    kind = library.GGMLQuantizationType[name]
    block, size = library.GGML_QUANT_SIZES[kind]
    held = {"F32": numpy.float32, "F16": numpy.float16}.get(name)
    data = numpy.zeros((2, size if held is None else block), dtype=held or numpy.uint8)
    assert library.dequantize(data, kind).shape == (2, block)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\x03\x04 and more", b"GGUF\x03\x00\x00\x00" + b"\xff" * 40])
def test_what_is_no_gguf_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"broken\.gguf: not a GGUF that can be read"):
        converted(path)


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="not a GGUF that can be read"):
        converted(path)
    with pytest.raises(CheckpointError, match="No such file"):
        converted(tmp_path / "absent.gguf")


# ----------------------------------------------------------------------------------------------------- the plan


def test_the_plan_knows_the_shape_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(tmp_path, "qwen2")
    found = sources.find_model("policy", str(path))
    assert (found.kind, found.where) == ("folder", str(path))
    shape = sources.shape_of(found)
    assert (shape.family, shape.layers, shape.hidden, shape.vocabulary, shape.tied) == ("qwen2", 2, 64, 300, True)
    assert shape.parameters == sum(one.numel() for one in a_model("qwen2").parameters())
    converted(path)
    with monkeypatch.context() as patched:
        patched.setattr(gguf, "read_header", None)  # which takes seconds: what was converted is asked
        assert sources.shape_of(found) == shape
    with path.open("ab") as file:
        file.write(b"\0")  # another file now, which the cache does not know
    monkeypatch.setattr(gguf, "read_header", lambda path: (_ for _ in ()).throw(CheckpointError("read anew")))
    with pytest.raises(ConfigError, match="read anew"):
        sources.shape_of(found)
    with pytest.raises(ConfigError, match=r"model\.policy: '/nowhere/model\.gguf' is no file that is there"):
        sources.find_model("policy", "/nowhere/model.gguf")
    assert sources.find_model("policy", "someone/small:model.gguf").kind == "download"
