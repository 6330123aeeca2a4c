"""Models from files: whole or as adapters on a base, quantised or not; what is hostile or missing is refused."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from huggingface_hub import constants, errors

from irl_core.checkpoints.load import load_tensors
from irl_core.checkpoints.save import save_checkpoint
from irl_core.config import LoraConfig
from irl_core.errors import CheckpointError
from irl_core.models import hub, pretrained
from irl_core.models.hub import explain_hub_error, locate
from irl_core.models.precision import PRECISION_VARIABLE
from irl_core.models.pretrained import Base, load_causal_lm, load_encoder, load_whole
from tests.small_models import cached, edit_json, save_model
from tests.tiny import tiny_tokenizer
from train.optimizers import model_files

LORA = LoraConfig(rank=4, alpha=8, targets=("q_proj", "v_proj", "down_proj"))
IDS = torch.arange(4, 40).reshape(2, 18)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "small", "llama", tiny_tokenizer())


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty hub cache, and no connection."""
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def adapted(folder: Path, **base: Any) -> Any:
    """The model with adapters that change it."""
    torch.manual_seed(1)
    model = pretrained.with_adapters(pretrained.load_base(Base(str(folder), **base)), LORA)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model.eval()


def saved(model: Any, directory: Path) -> Path:
    """A checkpoint of ours with the model; returns its folder."""
    described = {"format": 1, "name": "t", "kind": "transformers"}
    save_checkpoint(directory, model_files("policy", model) | {"config.json": described})
    return directory / "policy"


@pytest.fixture(scope="module")
def adapters(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(adapted(model_folder), tmp_path_factory.mktemp("adapters") / "checkpoint")


@pytest.fixture
def broken(adapters: Path, tmp_path: Path) -> Path:
    """A copy of the adapters, to be spoilt."""
    return Path(shutil.copytree(adapters, tmp_path / "broken"))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS).logits


# -------------------------------------------------------------------------------------------------- whole models


def test_a_whole_model_keeps_weights_precision_and_end_tokens(model_folder: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        model = load_whole(model_folder, dtype=dtype)  # type: ignore[arg-type]
        loaded = load_causal_lm(saved(model, tmp_path / dtype))
        assert {p.dtype for p in loaded.parameters()} == {getattr(torch, dtype)}
        assert torch.equal(logits(model), logits(loaded))
        tokenizer = tiny_tokenizer()
        assert loaded.generation_config.eos_token_id == [tokenizer.eos_token_id, tokenizer.pad_token_id]


def test_what_is_saved_is_what_was_trained_whatever_the_configuration_says(model_folder: Path, tmp_path: Path) -> None:
    model = load_whole(model_folder, dtype="bfloat16").float()
    assert model.config.dtype == torch.bfloat16
    loaded = load_causal_lm(saved(model, tmp_path / "checkpoint"))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_nothing_of_how_to_sample_is_taken_over(model_folder: Path) -> None:
    given = json.loads((model_folder / "generation_config.json").read_text())
    assert (given["top_k"], given["repetition_penalty"]) == (20, 1.05)
    found = load_whole(model_folder).generation_config
    assert (found.top_k, found.repetition_penalty, found.do_sample) == (None, None, None)


def test_weights_that_are_missing_are_not_made_up(model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "holes"))
    tensors = load_tensors(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    from safetensors.torch import save_file

    save_file({key: value for key, value in tensors.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"holes: {name} is missing from its weights; copy it anew"):
        load_whole(folder)
    save_file(tensors | {name: torch.zeros(3, 3)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"holes: cannot be loaded \(RuntimeError: "):
        load_whole(folder)
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}" + b" " * 400_000)
    with pytest.raises(CheckpointError, match=r"holes: cannot be loaded \(SafetensorError: "):
        load_whole(folder)


# ------------------------------------------------------------------------------------------------------- adapters


def test_adapters_come_back_as_they_were(model_folder: Path, adapters: Path) -> None:
    model, loaded = adapted(model_folder), load_causal_lm(adapters)
    assert torch.equal(logits(model), logits(loaded))
    assert not torch.equal(logits(model), logits(load_whole(model_folder)))  # they do change it
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert pretrained.base_of(loaded) == Base(str(model_folder))
    assert sorted(path.name for path in adapters.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "base.json",
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_are_added_to_weights_in_which_nothing_is_lost(
    dtype: Any, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PRECISION_VARIABLE, dtype)
    folder = saved(adapted(model_folder, dtype=dtype), tmp_path / "checkpoint")
    plain, loaded = load_causal_lm(folder), load_causal_lm(folder, merge="exact")
    assert any("lora_" in name for name, _ in loaded.named_parameters()) == (dtype == "bfloat16")
    torch.testing.assert_close(logits(loaded), logits(plain), atol=1e-5, rtol=1e-5)
    assert pretrained.base_of(loaded) == pretrained.base_of(plain)


def test_adapters_to_be_trained_further_are_float32_and_alone_have_gradients(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PRECISION_VARIABLE, "bfloat16")  # else that of the processor
    folder = saved(adapted(model_folder, dtype="bfloat16"), tmp_path / "checkpoint")
    loaded = load_causal_lm(folder, trainable=True)
    trained = {name: p for name, p in loaded.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert {p.dtype for name, p in loaded.named_parameters() if name not in trained} == {torch.bfloat16}


def test_the_files_are_what_peft_reads(model_folder: Path, adapters: Path) -> None:
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(load_whole(model_folder), str(adapters)).eval()
    assert torch.equal(logits(theirs), logits(load_causal_lm(adapters)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "../other"}, r"base\.json: name is '\.\./other'; a hub name such as .* or a folder without '\.\.'"),
        ({"name": "/models/../etc"}, r"name is '/models/\.\./etc'"),
        ({"name": "~/model"}, "name is '~/model'"),
        ({"name": "https://evil.example/x"}, "name is 'https://evil.example/x'"),
        ({"name": "\\\\host\\share"}, "name is"),
        ({"name": "org/na\nme"}, "name is"),
        ({"name": "org/a..b"}, "name is 'org/a..b'"),
        ({"name": "small"}, "name is 'small'"),
        ({"name": 7}, "name is 7"),
        ({"name": ["a/b"]}, r"name is \['a/b'\]"),
        ({"revision": "../../x"}, r"revision is '\.\./\.\./x'; a branch, tag or commit is expected"),
        ({"revision": 3}, "revision is 3"),
        ({"quantisation": "gptq"}, "quantisation is 'gptq'; one of none, int8, nf4 is expected"),
        ({"dtype": "float64"}, "dtype is 'float64'; one of float32, bfloat16, float16 is expected"),
        ({"dtype": None}, "dtype is None"),
        ({"auto_map": {}}, r"the keys dtype, name, quantisation, revision are expected; look at \['auto_map'\]"),
        ({"dtype": ...}, r"are expected; look at \['dtype'\]"),
    ],
)
def test_a_hostile_base_is_refused(values: dict[str, Any], message: str, broken: Path) -> None:
    edit_json(broken / "base.json", **values)
    with pytest.raises(CheckpointError, match=message):
        load_causal_lm(broken)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"auto_mapping": {"parent_library": "os"}},
            r"only plain LoRA adapters .*: unknown key 'auto_mapping'",
        ),
        ({"auto_map": {"AutoModel": "x.y"}}, "unknown key 'auto_map'"),
        ({"modules_to_save": ["lm_head"]}, "unknown key 'modules_to_save'"),
        ({"peft_type": "XLORA"}, "peft_type is 'XLORA'; one of LORA is expected"),
        ({"peft_type": ...}, "peft_type is missing"),
        ({"bias": "all"}, "bias is 'all'; one of none is expected"),
        ({"r": 10**9}, r"r is 1000000000; it must lie in \[1, 1024\]"),
        ({"r": 0}, "r is 0"),
        ({"r": "4"}, r"r is '4' \(text\); a whole number is expected"),
        ({"r": True}, "r is True"),
        ({"lora_dropout": 1.5}, "lora_dropout is 1.5"),
        ({"lora_alpha": ...}, "lora_alpha is missing"),
        ({"target_modules": ".*"}, "target_modules is"),
        ({"target_modules": ["(a+)+$"]}, r"target_modules '\(a\+\)\+\$'; 1 to 64 names of layers are expected"),
        ({"target_modules": []}, r"target_modules \[\]"),
        ({"target_modules": ["q_proj"] * 65}, "target_modules"),
        ({"target_modules": ["nowhere"]}, r"adapters do not fit the model \(.*nowhere"),
    ],
)
def test_a_hostile_adapter_configuration_is_refused(values: dict[str, Any], message: str, broken: Path) -> None:
    edit_json(broken / "adapter_config.json", **values)
    with pytest.raises(CheckpointError, match=message):
        load_causal_lm(broken)


def test_adapters_of_another_model_are_refused(broken: Path) -> None:
    from safetensors.torch import save_file

    path = broken / "adapter_model.safetensors"
    tensors = load_tensors(path)
    name = sorted(tensors)[0]
    for changed, message in (
        ({k: v for k, v in tensors.items() if k != name}, f"{name} is missing; the adapters are of another base"),
        (tensors | {"x": torch.zeros(1)}, "x is in no layer of the model"),
        (tensors | {name: torch.zeros(2, 2)}, rf"{name} is torch.float32 \(2, 2\); the base takes \(4, 128\)"),
        (tensors | {name: tensors[name].to(torch.int8)}, f"{name} is torch.int8"),
    ):
        save_file(changed, path)
        with pytest.raises(CheckpointError, match=message):
            load_causal_lm(broken)
    path.rename(broken / "adapter_model.bin")  # a pickle would not be looked at
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: is not a plain safetensors file"):
        load_causal_lm(broken)


# ------------------------------------------------------------------------------------------------------- the base


def test_a_base_that_is_gone_is_named(broken: Path, tmp_path: Path) -> None:
    edit_json(broken / "base.json", name=str(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match=r"the base of the adapters: '.*gone' is no folder that is there"):
        load_causal_lm(broken)


def test_a_base_that_is_not_in_the_cache_is_named_with_the_cache(broken: Path, offline: Path) -> None:
    edit_json(broken / "base.json", name="Qwen/Qwen2.5-0.5B-Instruct")
    wanted = rf"Qwen/Qwen2.5-0.5B-Instruct is not \(or not whole\) in the cache {offline}, .*'hf download Qwen/Qwen2.5"
    with pytest.raises(CheckpointError, match=wanted):
        load_causal_lm(broken)


def test_a_base_is_found_in_the_cache_and_pinned(
    model_folder: Path, adapters: Path, broken: Path, offline: Path
) -> None:
    commit = "0123456789" * 4
    snapshot = cached(offline, "org/small", model_folder, commit)
    assert locate("org/small") == snapshot
    assert hub.pinned("org/small", None) == ("org/small", commit)
    edit_json(broken / "base.json", name="org/small", revision=commit)
    assert torch.equal(logits(load_causal_lm(broken)), logits(load_causal_lm(adapters)))


def test_a_folder_is_pinned_by_its_place(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_folder.parent)
    assert hub.pinned("small", "main") == (str(model_folder), None)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "no weights in safetensors there; convert or download them"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing; this is not a whole model"),
        (lambda f: (f / "pytorch_model.bin").write_bytes(b""), "pytorch_model.bin is a pickle, which can run code"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "holds adapters .* name their base"),
        (lambda f: edit_json(f / "config.json", auto_map={"AutoModel": "m.M"}), "'auto_map' would load code"),
        (lambda f: edit_json(f / "config.json", quantization_config={"quant_method": "gptq"}), "'quantization_config'"),
        (lambda f: edit_json(f / "config.json", attn_implementation="org/kernel"), "'attn_implementation' is not"),
        (lambda f: edit_json(f / "tokenizer_config.json", auto_map={"AutoTokenizer": "m.T"}), "'auto_map'"),
    ],
)
def test_a_folder_that_is_no_safe_model_is_refused(
    spoil: Any, message: str, model_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "spoilt"))
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        locate(str(folder))


# ------------------------------------------------------------------------------------------------------ quantised


def test_nf4_keeps_the_head_whole_and_comes_back_exactly(model_folder: Path, tmp_path: Path) -> None:
    import bitsandbytes as bnb

    model = adapted(model_folder, quantisation="nf4", dtype="bfloat16")
    linear = {name: m for name, m in model.named_modules() if isinstance(m, bnb.nn.Linear4bit)}
    assert len(linear) == 2 * 7  # every projection of both layers
    weight = next(iter(linear.values())).weight
    assert (weight.quant_type, weight.compress_statistics) == ("nf4", True)
    assert {m.compute_dtype for m in linear.values()} == {torch.bfloat16}
    assert model.get_output_embeddings().weight.dtype == torch.bfloat16
    loaded = load_causal_lm(saved(model, tmp_path / "checkpoint"))
    assert torch.equal(logits(model), logits(loaded))
    assert pretrained.base_of(loaded) == Base(str(model_folder), None, "nf4", "bfloat16")


def test_int8_comes_back_exactly(model_folder: Path, tmp_path: Path) -> None:
    import bitsandbytes as bnb

    model = adapted(model_folder, quantisation="int8", dtype="bfloat16")
    assert sum(isinstance(m, bnb.nn.Linear8bitLt) for m in model.modules()) == 2 * 7
    assert not isinstance(model.get_output_embeddings(), bnb.nn.Linear8bitLt)
    loaded = load_causal_lm(saved(model, tmp_path / "checkpoint"))
    assert torch.equal(logits(model), logits(loaded))


def test_float16_computes_in_float16() -> None:
    assert pretrained.quantisation_config("nf4", "float16").bnb_4bit_compute_dtype == torch.float16
    assert pretrained.quantisation_config("nf4", "float32").bnb_4bit_compute_dtype == torch.bfloat16


def test_bitsandbytes_is_needed_only_then(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    load_whole(model_folder)
    with pytest.raises(CheckpointError, match=r"quantisation nf4 needs bitsandbytes, .* pip install bitsandbytes"):
        load_whole(model_folder, quantisation="nf4")


# ----------------------------------------------------------------------------------------------- errors of the hub


def hub_error(kind: type[Exception], status: int = 404) -> Exception:
    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/x"))
    return kind("said by the hub", response=response)  # type: ignore[call-arg]


def chained(cause: BaseException) -> OSError:
    """As transformers hands it on."""
    error = OSError("something longer\nover two lines")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            hub_error(errors.GatedRepoError, 403),
            "meta-llama/Llama-3.2-1B is gated: accept its licence on https://huggingface.co/meta-llama/Llama-3.2-1B, "
            "then log in with 'hf auth login' (or set HF_TOKEN)",
        ),
        (
            hub_error(errors.RepositoryNotFoundError),
            "the hub has no model 'meta-llama/Llama-3.2-1B'; nearest is 'meta-llama/Llama-3.2-1B-Instruct'. If it is a "
            "private one, log in with 'hf auth login' (or HF_TOKEN)",
        ),
        (
            hub_error(errors.RevisionNotFoundError),
            "meta-llama/Llama-3.2-1B has no such revision; https://huggingface.co/meta-llama/Llama-3.2-1B/commits/main "
            "lists them",
        ),
    ],
)
def test_an_error_of_the_hub_says_what_to_do(error: BaseException, message: str) -> None:
    for given in (error, chained(error)):
        assert explain_hub_error(given, "meta-llama/Llama-3.2-1B") == message


def test_any_other_error_is_named_in_one_line() -> None:
    message = "org/m could not be downloaded (OSError: [Errno 28] No space left on device)"
    assert explain_hub_error(OSError(28, "No space left on device"), "org/m") == message


@pytest.mark.parametrize(
    "error",
    [
        errors.LocalEntryNotFoundError("x"), errors.OfflineModeIsEnabled("x"), httpx.ConnectError("x"),
        httpx.ReadTimeout("x"), chained(httpx.ConnectError("x")),
    ],
)  # fmt: skip
def test_offline_names_the_cache_and_the_download(error: BaseException) -> None:
    assert explain_hub_error(error, "Qwen/Qwen2.5-3B-Instruct") == (
        f"Qwen/Qwen2.5-3B-Instruct is not (or not whole) in the cache {constants.HF_HUB_CACHE}, and the hub was not "
        "reached; where there is a connection run 'hf download Qwen/Qwen2.5-3B-Instruct', or name a local folder"
    )


def test_a_name_near_one_in_the_cache_is_suggested(offline: Path) -> None:
    (offline / "models--own-org--model-7b").mkdir()
    message = explain_hub_error(hub_error(errors.RepositoryNotFoundError), "own-org/model-7B")
    assert "nearest is 'own-org/model-7b'" in message


# ----------------------------------------------------------------------------------------------------- tokenizers


@pytest.fixture
def model(model_folder: Path) -> Any:
    return load_whole(model_folder)


def test_all_end_tokens_end_a_turn_and_the_tokenizers_own_comes_first(model_folder: Path, model: Any) -> None:
    tokenizer = tiny_tokenizer()
    encoder = load_encoder(model_folder, model, "Think first.")
    assert encoder.end_ids == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert encoder.instruction == "Think first."
    model.generation_config.eos_token_id = 5
    assert load_encoder(model_folder, model).end_ids == (tokenizer.eos_token_id, 5)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, 10**6]  # a token that nothing knows ends nothing
    assert load_encoder(model_folder, model).end_ids == (tokenizer.eos_token_id,)


def test_a_missing_padding_token_is_replaced(model_folder: Path, model: Any, tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, model)
    assert encoder.tokenizer.pad_token_id is None
    assert encoder.pad_id == tokenizer.eos_token_id


def test_a_tokenizer_that_cannot_be_used_is_refused(model_folder: Path, model: Any, tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no chat template; use the tokenizer of the instruct model"):
        load_encoder(tmp_path, model)
    edit_json(tmp_path / "tokenizer_config.json", auto_map={"AutoTokenizer": ["x.y", None]})
    with pytest.raises(CheckpointError, match="'auto_map' would load code"):
        load_encoder(tmp_path, model)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"the tokenizer in .*empty: "):
        load_encoder(tmp_path / "empty", model)


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(model_folder: Path, model: Any) -> None:
    model.set_input_embeddings(torch.nn.Embedding(100, 64))
    with pytest.raises(CheckpointError, match="has tokens up to id 299, the model 100 tokens; take the model's own"):
        load_encoder(model_folder, model)


@pytest.mark.parametrize("avx", [True, False])
def test_a_model_of_4_bit_that_has_evaluated_still_has_gradients(
    model_folder: Path, avx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: avx)
    model = adapted(model_folder, quantisation="nf4", dtype="bfloat16")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        model.eval()(input_ids=ids)
    model.train()(input_ids=ids).logits.float().logsumexp(-1).sum().backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    # B starts at 0, so A has no gradient yet; every B has one, of every layer
    assert all(grad is not None and grad.abs().sum() > 0 for name, grad in trained.items() if "lora_B" in name)
