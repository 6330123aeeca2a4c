"""Conversion of GGUF files (llama.cpp's format) into bfloat16 safetensors with a tokenizer, once, in a cache.

A converted model is a folder like a download from the hub, in ``$IRL_LENS_CACHE`` (default ``~/.cache/irl-lens``),
named by the sha256 of the GGUF file. It is moved into place when complete, and each of its files is verified by its
sha256 on first use.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from irl_core.checkpoints.load import load_json
from irl_core.errors import CheckpointError
from irl_core.files import not_written, write_whole
from irl_core.models.gguf_header import CONTROL, PRE_TOKENIZERS, ROPE_FACTORS, UNUSED, USER_DEFINED, Header, read_header
from irl_core.progress import progress_bar

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

SUFFIX = ".gguf"
RECORD = "converted.json"
VERSION = 1  # of the conversion: another one is made anew
SHARD, SHARD_BYTES = "model-{:05d}.safetensors", 4 * 2**30
OnProgress = Callable[[str, int, int], None]  # what is being done, how much of it, of how much
# How text is cut before byte-pair encoding, by the pre-tokenizer's name.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NUMBERS = {"qwen2": r"\p{N}", "llama3": r"\p{N}{1,3}"}


def silent(what: str, done: int, total: int) -> None:
    """Report no progress."""


def cache_home() -> Path:
    """The folder that holds what was converted or fetched: ``$IRL_LENS_CACHE``, or ``~/.cache/irl-lens``."""
    return Path(os.environ.get("IRL_LENS_CACHE") or Path.home() / ".cache" / "irl-lens")


def split_name(name: str) -> tuple[str, str] | None:
    """Repository and file of a GGUF on the hub, named ``organisation/model:file.gguf``; None for any other name."""
    repository, colon, file = name.partition(":")
    fits = re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", repository, re.ASCII)
    plain = re.fullmatch(r"[A-Za-z0-9][\w.-]{0,180}\.gguf", file, re.ASCII)
    return (repository, file) if colon and fits and plain and ".." not in name else None


def is_file_name(name: str) -> bool:
    """Whether a name is that of a GGUF file, there or not."""
    return name.endswith(SUFFIX) and ":" not in name


@contextmanager
def shown_progress(name: str) -> Iterator[OnProgress]:
    """A function that reports progress as a bar on stderr, erased at its end."""
    with progress_bar(transient=True) as bar:
        yield lambda what, done, total: bar.update(done, total=total, title=f"{what} {name}")


# -------------------------------------------------------------------------------------------------------- the cache


def sha256_of(path: Path, on_progress: OnProgress = silent) -> str:
    """sha256 (hexadecimal) of a file."""
    digest, total, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
            done += len(block)
            on_progress("verifying", done, total)
    return digest.hexdigest()


def state_of(path: Path) -> os.stat_result:
    """Size and times of a file. Raises CheckpointError where it is not there."""
    try:
        return path.stat()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error


def note_of(path: Path) -> Path:
    """Where the sha256 of a file is remembered."""
    return cache_home() / "gguf" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"


def noted_sha256(path: Path, size: int, changed: int) -> str | None:
    """The sha256 that is remembered of a file of this size and time of change."""
    note = note_of(path)
    known = load_json(note) if note.is_file() else {}
    if (known.get("path"), known.get("size"), known.get("changed")) == (str(path), size, changed):
        return str(known.get("sha256"))
    return None


@cache
def known_sha256(path: Path, size: int, changed: int) -> str:
    """sha256 of a file of this size and time of change, computed once and remembered in the cache."""
    if noted := noted_sha256(path, size, changed):
        return noted
    note, digest = note_of(path), sha256_of(path)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_whole(note, json.dumps({"path": str(path), "size": size, "changed": changed, "sha256": digest}))
    return digest


def converted(path: Path, on_progress: OnProgress = silent) -> Path:
    """The folder that a GGUF file was, or is now, turned into.

    Raises:
        CheckpointError: the file cannot be read, the cache cannot be written, or what is in it was changed.
    """
    path = path.resolve()
    state = state_of(path)
    digest = known_sha256(path, state.st_size, state.st_mtime_ns)
    folder = folder_of(digest)
    if not (folder / RECORD).is_file():
        convert(path, folder, digest, on_progress)
    verify_converted(folder)
    return folder


def folder_of(digest: str) -> Path:
    """The folder of the model of a file with this sha256."""
    return cache_home() / "gguf" / f"{digest[:16]}-{VERSION}"


def shape_config(path: Path) -> dict[str, Any]:
    """The ``config.json`` of the model of a GGUF file, its weights neither read nor written.

    It is taken from the cache where the file was converted before: a header takes seconds.

    Raises:
        CheckpointError: the file cannot be read.
    """
    path = path.resolve()
    state = state_of(path)
    noted = noted_sha256(path, state.st_size, state.st_mtime_ns)
    if noted and (folder_of(noted) / RECORD).is_file():
        return load_json(folder_of(noted) / "config.json")
    header = read_header(path)
    return header.config(tied="output.weight" not in header.tensors)


@cache
def verify_converted(folder: Path) -> None:
    """Compare every file of a converted model with its sha256, once a process. Raises CheckpointError."""
    record = load_json(folder / RECORD)
    for name, digest in record["files"].items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise CheckpointError(f"{folder}: {name} is not as it was written; remove the folder, it is made anew")


# ----------------------------------------------------------------------------------------------------- the conversion


def convert(path: Path, folder: Path, digest: str, on_progress: OnProgress = silent) -> None:
    """Write the model of a GGUF file into a new folder, all of it or nothing. Raises CheckpointError."""
    header = read_header(path)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="writing-", dir=folder.parent) as parent:
            fresh = Path(parent) / folder.name
            fresh.mkdir()
            write_model(header, fresh, on_progress)
            record = {
                "source": path.name, "sha256": digest, "bytes": path.stat().st_size, "licence": header.licence,
                "files": {file.name: sha256_of(file) for file in sorted(fresh.iterdir())},
            }  # fmt: skip
            write_whole(fresh / RECORD, json.dumps(record, indent=2))
            if not (folder / RECORD).is_file():  # which another process may have written meanwhile
                os.replace(fresh, folder)
    except OSError as error:
        raise not_written(str(folder), error) from error


def write_model(header: Header, folder: Path, on_progress: OnProgress) -> None:
    """Weights, configuration, ends and tokenizer, as a download from the hub has them."""
    tied = header.is_tied()
    write_weights(header, folder, tied, on_progress)
    write_whole(folder / "config.json", json.dumps(header.config(tied=tied), indent=2))
    generation: dict[str, Any] = {"eos_token_id": list(header.ends)}
    if header.special("padding") is not None:
        generation["pad_token_id"] = header.special("padding")
    write_whole(folder / "generation_config.json", json.dumps(generation, indent=2))
    tokenizer_of(header).save_pretrained(folder)


def write_weights(header: Header, folder: Path, tied: bool, on_progress: OnProgress) -> None:
    """All tensors as safetensors in bfloat16, in shards of at most ``SHARD_BYTES``."""
    from safetensors.torch import save_file

    shard: dict[str, torch.Tensor] = {}
    number_of: dict[str, int] = {}
    held, number = 0, 1
    for name, tensor in weights_of(header, tied, on_progress):
        if shard and held + tensor.nbytes > SHARD_BYTES:
            save_file(shard, folder / SHARD.format(number), {"format": "pt"})
            shard, held, number = {}, 0, number + 1
        shard[name], held, number_of[name] = tensor, held + tensor.nbytes, number
    if number == 1:
        save_file(shard, folder / "model.safetensors", {"format": "pt"})
        return
    save_file(shard, folder / SHARD.format(number), {"format": "pt"})
    weight_map = {name: SHARD.format(place) for name, place in number_of.items()}
    size = sum((folder / SHARD.format(place)).stat().st_size for place in range(1, number + 1))
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    write_whole(folder / "model.safetensors.index.json", json.dumps(index), durable=False)


def weights_of(header: Header, tied: bool, on_progress: OnProgress = silent) -> Iterator[tuple[str, torch.Tensor]]:
    """The model's tensors by transformers' names, in bfloat16, one after the other.

    Some files hold a tied table twice, in two quantisations: the finer one is used.
    """
    import torch

    embedding = "token_embd.weight"
    if tied and "output.weight" in header.tensors:
        embedding = max(("token_embd.weight", "output.weight"), key=lambda name: header.tensors[name].n_bytes)
    wanted = [name for name in header.tensors if name != ROPE_FACTORS and not (tied and name == "output.weight")]
    config = header.config(tied=tied)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for number, name in enumerate(wanted, start=1):
        values = torch.tensor(header.values(embedding if name == "token_embd.weight" else name))
        part = name.split(".")[-2]
        if header.family == "llama" and part in heads:
            values = halves_apart(values, heads[part])
        on_progress("converting", number, len(wanted))
        yield header.name_in_transformers(name), values.to(torch.bfloat16).contiguous()


def halves_apart(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key projection in transformers' order. llama.cpp rotates neighbouring dimensions of a head,
    transformers its first half against its second: (0, 1, 2, 3) there is (0, 2, 1, 3) here."""
    paired: torch.Tensor = values.unflatten(0, (heads, -1, 2))
    return paired.transpose(1, 2).flatten(0, 2)


def tokenizer_of(header: Header) -> PreTrainedTokenizerFast:
    """The byte-level BPE tokenizer of the header, with its template and its special tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens, kinds = header.tokens, header.token_types
    vocabulary = {token: number for number, token in enumerate(tokens) if kinds[number] != UNUSED}
    merges = [tuple(merge.split(" ")) for merge in header.keys["tokenizer.ggml.merges"]]
    kind = PRE_TOKENIZERS[header.keys["tokenizer.ggml.pre"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=kind == "llama3"))
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    if kind in NUMBERS:
        words = pre_tokenizers.Split(Regex(WORDS.replace("NUMBER", NUMBERS[kind])), "isolated")
        cut = [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        digits = [pre_tokenizers.Digits(individual_digits=True)] if kind == "smollm" else []
        cut = [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cut)
    tokenizer.decoder = decoders.ByteLevel()
    added = [
        AddedToken(token, special=kinds[number] == CONTROL, normalized=False)
        for token, number in vocabulary.items()
        if kinds[number] in (CONTROL, USER_DEFINED)
    ]
    tokenizer.add_tokens([token for token in added if not token.special])
    tokenizer.add_special_tokens([token for token in added if token.special])
    roles = {"eos_token": "eos", "bos_token": "bos", "pad_token": "padding", "unk_token": "unknown"}
    special = {name: header.special(role) for name, role in roles.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=header.chat_template,
        clean_up_tokenization_spaces=False,
        model_max_length=header.keys.get(f"{header.family}.context_length"),
        **{name: tokens[number] for name, number in special.items() if number is not None},
    )
