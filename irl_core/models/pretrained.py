"""Pretrained causal language models: a whole model, or adapters (LoRA, Hu et al. 2021) on a base model.

A folder with adapters holds ``adapter_config.json``, ``adapter_model.safetensors`` and ``base.json``. Its author is not
trusted: only safetensors are read, no code is loaded, and every key and value of the two descriptions is checked. The
base is found on the hub (or in its cache) or in a folder, and must be complete.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Strict
from pydantic.dataclasses import dataclass

from irl_core.checkpoints.load import load_json, load_tensors
from irl_core.checkpoints.manifest import check_config
from irl_core.config import LoraConfig
from irl_core.errors import CheckpointError
from irl_core.models import gguf
from irl_core.models.bases import BASES
from irl_core.models.hub import (
    ADAPTER_CONFIG,
    KNOWN_MODELS,
    check_model_config,
    is_hub_name,
    locate,
    shown,
)
from irl_core.models.sizes import check_fits_weights
from irl_core.models.tokenization import TraceEncoder
from irl_core.validation import STRICT, Range, Whole, validated

if TYPE_CHECKING:
    import torch

Quantisation = Literal["none", "int8", "nf4"]
Precision = Literal["float32", "bfloat16", "float16"]
Merge = Literal["never", "exact", "always"]

ADAPTER_WEIGHTS, BASE = "adapter_model.safetensors", "base.json"
OWN_TOKENIZER = "tokenizer"  # folder of a discriminator's tokenizer, where it is not the policy's
REFERENCE_ADAPTER = "reference"
REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,99}", re.ASCII)
TARGET = re.compile(r"[A-Za-z_][\w.]{0,99}", re.ASCII)
MAX_RANK, MAX_TARGETS = 1024, 64
MAX_TEMPLATE_BYTES, MAX_TOKENIZER_BYTES = 400_000, 60_000_000  # the largest tokenizers of open models have 35 MB


# ------------------------------------------------------------------------------------------------------- the base


@dataclass(frozen=True, slots=True, config=STRICT)
class Base:
    """The model that adapters belong to: its hub name (with ``revision``) or folder, and the precision it is held in.

    ``base.json`` holds its four fields.
    """

    name: str
    revision: str | None = None
    quantisation: Quantisation = "none"
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        odd = re.search(r"[\x00-\x1f\\]|^[~-]|^\w+:", self.name)
        plain_path = 0 < len(self.name) < 4096 and not odd and ".." not in Path(self.name).parts
        known = self.name in BASES or is_hub_name(self.name) or gguf.split_name(self.name)
        if not (known or (plain_path and Path(self.name).is_absolute())):
            raise CheckpointError(
                f"name is {shown(self.name)}; a hub name such as {KNOWN_MODELS[-2]} or a folder without '..' is "
                "expected"
            )
        if self.revision is not None and (".." in self.revision or not REVISION.fullmatch(self.revision)):
            raise CheckpointError(f"revision is {shown(self.revision)}; a branch, tag or commit is expected")


def read_base(directory: Path) -> Base:
    """The base that a folder with adapters names. Raises CheckpointError."""
    document = load_json(directory / BASE)
    keys = set(Base.__dataclass_fields__)
    if document.keys() != keys:
        odd = sorted(map(str, document.keys() ^ keys))
        raise CheckpointError(f"{BASE}: the keys {', '.join(sorted(keys))} are expected; look at {shown(odd)}")
    return validated(Base, document, CheckpointError, f"{BASE}: ")


# ------------------------------------------------------------------------------------------------------- loading


def load_causal_lm(
    directory: Path, device: str | torch.device = "cpu", *, trainable: bool = False, merge: Merge = "never"
) -> Any:
    """The causal LM in a folder of a verified checkpoint, in evaluation mode and in its saved precision.

    Adapters are applied to their base, and require gradients only if ``trainable``; a whole model's weights always do.
    ``merge``: whether they are added to the weights: for scoring alone, or ``exact``, where nothing is lost by it.

    Raises:
        CheckpointError: the files are not safe to load or incomplete, or the base is not available.
    """
    if not (directory / ADAPTER_CONFIG).exists():
        return load_whole(directory, device=device)
    model = with_adapters(load_base(read_base(directory), device), read_adapter_config(directory))
    load_adapter_weights(model, directory)
    if not trainable:
        from irl_core.models import precision

        model = precision.frozen(model, merge)
    return model.eval()


def load_base(base: Base, device: str | torch.device = "cpu") -> Any:
    """The frozen base model, quantised as ``base`` says, with ``base`` kept on it for `base_of`.

    On a CPU whose bfloat16 products are slow, a bfloat16 base is held and computes in float32.

    Raises:
        CheckpointError: the base is not available, or its files cannot be loaded.
    """
    try:
        folder = locate(base.name, base.revision)
    except CheckpointError as error:
        raise CheckpointError(f"the base of the adapters: {error}") from error
    from irl_core.models.precision import cpu_precision

    measured = base.dtype == "bfloat16" and base.quantisation == "none" and str(device) == "cpu"
    dtype = cpu_precision() if measured else base.dtype
    model = load_whole(folder, dtype=dtype, quantisation=base.quantisation, device=device)
    model.requires_grad_(False)
    model.pretrained_base = base
    return model


def base_of(model: Any) -> Base | None:
    """The base of a model with adapters, None for a whole model."""
    return getattr(model, "pretrained_base", None)


def load_whole(
    folder: Path,
    *,
    dtype: Precision | None = None,
    quantisation: Quantisation = "none",
    device: str | torch.device = "cpu",
) -> Any:
    """The model in a folder that ``locate`` or ``verify`` has accepted, without its own sampling settings.

    Args:
        folder: holds config.json and safetensors.
        dtype: precision of the weights; None keeps the files'.
        quantisation: of the linear layers, when loading.
        device: where to load it.

    Raises:
        CheckpointError: weights are missing, left over, of another shape or unreadable, the configuration names sizes
            out of bounds or no context length, or bitsandbytes is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its report on missing weights shows a stranger's names as they are; ours follows
    check_model_config("config.json", load_json((folder / "config.json").resolve()))
    settings: dict[str, Any] = {}
    if quantisation != "none" or str(device) != "cpu":
        settings["device_map"] = {"": str(device)}
    if dtype is not None:
        settings["dtype"] = getattr(torch, dtype)
    if quantisation != "none":
        settings["quantization_config"] = quantisation_config(quantisation, dtype or "bfloat16")
    try:
        check_fits_weights(folder)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, attn_implementation="sdpa",
            output_loading_info=True, **settings,
        )  # fmt: skip
    except Exception as error:  # damaged files raise errors of many classes, none of which names the folder
        if isinstance(error, torch.OutOfMemoryError | MemoryError | CheckpointError):
            raise
        reason = str(error).strip().splitlines() or [""]
        raise CheckpointError(f"{folder}: cannot be loaded ({type(error).__name__}: {reason[0][:200]})") from error
    model, loading = loaded
    if loading["missing_keys"]:
        raise CheckpointError(f"{folder}: {min(loading['missing_keys'])} is missing from its weights; copy it anew")
    if left := loading["unexpected_keys"]:
        raise CheckpointError(
            f"{folder}: {min(left)[:200]} is in its weights and in no layer that config.json names ({len(left):,} "
            "are); copy both anew"
        )
    model.generation_config = plain_generation(model.generation_config)
    # On CPUs with AVX512-BF16, bitsandbytes packs 4-bit weights anew at the first evaluation, for a kernel without a
    # backward pass, and never back: a policy that has sampled could not be trained. Keep the packing as it is.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def context_window(model: Any) -> int:
    """The longest prompt plus completion, in tokens, that a model reads. Raises CheckpointError where it says none."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(limit, int):
        raise CheckpointError("the model's config.json has no max_position_embeddings, the longest text it can read")
    return limit


def plain_generation(given: Any) -> Any:
    """End, start and padding tokens alone: a model's own top_k or repetition penalty would bias the samples."""
    from transformers import GenerationConfig

    return GenerationConfig(**{name: getattr(given, name) for name in ("eos_token_id", "bos_token_id", "pad_token_id")})


def quantisation_config(quantisation: Quantisation, dtype: Precision) -> Any:
    """Settings for NF4 with double quantisation (Dettmers et al. 2023) or LLM.int8(); the LM head is not quantised.

    NF4 computes in bfloat16, or in float16 if that is the model's precision (older GPUs lack bfloat16).

    Raises:
        CheckpointError: bitsandbytes is not installed.
    """
    import torch
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise CheckpointError(
            f"quantisation {quantisation} needs bitsandbytes, which is not installed; pip install bitsandbytes"
        )
    if quantisation == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head"])
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float16 if dtype == "float16" else torch.bfloat16,
        llm_int8_skip_modules=["lm_head"],
    )


# ------------------------------------------------------------------------------------------------------ adapters


def with_adapters(model: Any, lora: LoraConfig, name: str = "default") -> Any:
    """The frozen model with new trainable float32 adapters, which change no output yet.

    Their weights are drawn from ``torch``'s global random state. To a model that has adapters, those called ``name``
    are added.

    Raises:
        CheckpointError: none of the named layers is in the model.
    """
    import peft

    settings = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets),
        bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    try:
        if isinstance(model, peft.PeftModel):
            model.add_adapter(name, settings)
            return model
        adapted: Any = peft.get_peft_model(model, settings, adapter_name=name)
    except ValueError as error:
        raise CheckpointError(f"adapters do not fit the model ({str(error).splitlines()[0][:200]})") from error
    adapted.pretrained_base = base_of(model)
    return adapted


def adapter_weights(model: Any, name: str = "default") -> dict[str, torch.Tensor]:
    """The adapters' tensors under peft's names for files."""
    import peft

    return dict(peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class AdapterConfig:
    """What ``adapter_config.json`` holds, in peft's names; everything but plain LoRA is refused."""

    peft_type: Literal["LORA"]
    task_type: Literal["CAUSAL_LM"] = "CAUSAL_LM"
    base_model_name_or_path: str | None = None
    r: Annotated[Whole, Range(1, MAX_RANK)]
    lora_alpha: Annotated[Whole, Range(1)]
    lora_dropout: Annotated[float, Strict(), Range(0, 1, below=True)]
    target_modules: tuple[str, ...]
    bias: Literal["none"] = "none"
    inference_mode: Literal[True] = True

    def __post_init__(self) -> None:
        bad = next((target for target in self.target_modules if not TARGET.fullmatch(target)), None)
        if bad is not None or not 1 <= len(self.target_modules) <= MAX_TARGETS:
            raise CheckpointError(
                f"target_modules {shown(bad or list(self.target_modules))}; 1 to {MAX_TARGETS} names of layers are "
                "expected"
            )


def adapter_config(model: Any) -> AdapterConfig:
    """The description of a model's adapters, as saved beside their weights."""
    settings, base = model.peft_config["default"], base_of(model)
    return AdapterConfig(
        peft_type="LORA",
        base_model_name_or_path=None if base is None else base.name,
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=float(settings.lora_dropout),
        target_modules=tuple(sorted(settings.target_modules)),
    )


def read_adapter_config(directory: Path) -> LoraConfig:
    """The adapters' settings in a folder, of which every key and value is checked. Raises CheckpointError."""
    label = f"{ADAPTER_CONFIG} (only plain LoRA adapters are loaded): "
    adapter = validated(AdapterConfig, load_json(directory / ADAPTER_CONFIG), CheckpointError, label)
    return LoraConfig(
        rank=adapter.r, alpha=adapter.lora_alpha, dropout=adapter.lora_dropout, targets=adapter.target_modules
    )


def load_adapter_weights(model: Any, directory: Path, name: str = "default") -> None:
    """Load the weights of the adapters ``name`` from a folder.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of another shape or kind.
    """
    import torch

    tensors, own = load_tensors(directory / ADAPTER_WEIGHTS), adapter_weights(model, name)
    for key in sorted(own.keys() ^ tensors.keys()):
        fault = "is missing" if key in own else "is in no layer of the model"
        raise CheckpointError(f"{ADAPTER_WEIGHTS}: {key[:200]} {fault}; the adapters are of another base")
    for key, value in own.items():
        if tensors[key].shape != value.shape or not tensors[key].is_floating_point():
            raise CheckpointError(
                f"{ADAPTER_WEIGHTS}: {key[:200]} is {tensors[key].dtype} {tuple(tensors[key].shape)}; the base takes "
                f"{tuple(value.shape)}"
            )
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(tensors[key])


# ----------------------------------------------------------------------------------------------------- tokenizers


def load_encoder(folder: Path, model: Any, instruction: str = "") -> TraceEncoder:
    """The trace encoder of the tokenizer in a folder; its end tokens are the tokenizer's, then the model's.

    Raises:
        CheckpointError: no tokenizer, one that cannot be used, or one with tokens that the model does not have.
    """
    from transformers import AutoTokenizer

    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            check_config(name, load_json((folder / name).resolve()))
    check_file_sizes(folder)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False,
            fix_mistral_regex=False,  # else it warns of every byte-level tokenizer in a folder of ours
        )  # fmt: skip
        encoder = TraceEncoder(tokenizer, instruction)
        ends = model.generation_config.eos_token_id
        known = [end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)]
        end_ids = tuple(dict.fromkeys((*encoder.end_ids, *(end for end in known if 0 <= end < len(tokenizer)))))
        encoder = encoder if end_ids == encoder.end_ids else TraceEncoder(tokenizer, instruction, end_ids)
    except BaseException as error:  # of odd files, of many classes; a panic of tokenizers is not even an Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"the tokenizer in {folder}: {reason[0][:200]}") from error
    check_ids(encoder, model, folder)
    return encoder


def check_file_sizes(folder: Path) -> None:
    """Raise CheckpointError for a tokenizer's files that would take long to read."""
    for path in (*folder.glob("*"), *folder.glob("additional_chat_templates/*")):
        limit = MAX_TEMPLATE_BYTES if path.suffix == ".jinja" else MAX_TOKENIZER_BYTES
        if path.suffix in (".jinja", ".json") and (size := path.stat().st_size) > limit:
            raise CheckpointError(f"{path.name}: {size:,} bytes; the limit for a tokenizer is {limit:,}")


def check_ids(encoder: TraceEncoder, model: Any, folder: Path) -> None:
    """Raise CheckpointError where a model lacks ids of the tokenizer in a folder, which may leave numbers out."""
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max(encoder.tokenizer.get_vocab().values())
    if largest >= rows:
        raise CheckpointError(
            f"the tokenizer in {folder} has tokens up to id {largest:,}, the model {rows:,} tokens; take the "
            "model's own"
        )
