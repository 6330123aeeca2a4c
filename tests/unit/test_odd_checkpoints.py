"""Checkpoints whose hashes are right and whose values are odd: each is refused in words, before it costs anything."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from irl_core.checkpoints.save import save_checkpoint
from irl_core.errors import CheckpointError, EncodingError
from irl_core.models.pretrained import load_encoder, load_whole
from irl_core.models.tokenization import MAX_TEMPLATE, TraceEncoder
from irl_core.reward.discriminator import HEAD, HEAD_WEIGHTS, head_description
from irl_core.scorer import Lens
from irl_core.text.segmentation import make_trace
from tests.small_models import edit_json, save_model
from tests.tiny import PROBLEM, SOLUTION, tiny_lens, tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", "llama", tiny_tokenizer())


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


# ------------------------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("key", "value", "limit"),
    [
        ("num_hidden_layers", 100_000, "512"), ("num_hidden_layers", 0, "512"), ("num_hidden_layers", 2.0, "512"),
        ("num_hidden_layers", True, "512"), ("num_hidden_layers", "2", "512"), ("hidden_size", 10**9, "65,536"),
        ("num_attention_heads", 10**6, "1,024"), ("vocab_size", 10**30, "1,000,000"), ("head_dim", -1, "1,024"),
        ("intermediate_size", [128], "524,288"), ("max_position_embeddings", 1e30, "100,000,000"),
    ],
)  # fmt: skip
def test_a_size_out_of_bounds_is_refused_before_anything_is_built(
    key: str, value: Any, limit: str, folder: Path
) -> None:
    edit_json(folder / "config.json", **{key: value})
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=rf"config\.json: {key} is .*; a whole number from 1 to {limit} is exp"):
        load_whole(folder)
    assert time.monotonic() - started < 1


def test_a_size_within_another_section_counts_too(folder: Path) -> None:
    edit_json(folder / "config.json", text_config={"num_hidden_layers": 10**5})
    with pytest.raises(CheckpointError, match="num_hidden_layers is 100000"):
        load_whole(folder)
    edit_json(folder / "config.json", text_config=..., layer_types=["full_attention"] * 10_001)
    with pytest.raises(CheckpointError, match="a list of 10,001 values; the limit is 10,000"):
        load_whole(folder)


def test_a_model_that_its_files_cannot_hold_is_not_built(folder: Path) -> None:
    edit_json(folder / "config.json", hidden_size=65_536, vocab_size=1_000_000)
    with pytest.raises(CheckpointError, match=r"names a model of [\d,]+ weights, which [\d,]+ bytes of files cannot"):
        load_whole(folder)


# ---------------------------------------------------------------------------------------------------- weights


def test_layers_that_are_not_in_the_weights_are_refused(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"model\.layers\.2\..* is missing from its weights"):
        load_whole(folder)


def test_weights_that_are_left_over_are_refused(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.\S+ is in its weights and in no layer .* \(9 are\)"):
        load_whole(folder)


def test_a_tied_head_may_be_there_or_not(folder: Path) -> None:
    expected = load_whole(folder).get_output_embeddings().weight
    change_weights(folder, lambda all_: all_ | {"lm_head.weight": all_["model.embed_tokens.weight"].clone()})
    assert torch.equal(load_whole(folder).get_output_embeddings().weight, expected)
    edit_json(folder / "config.json", tie_word_embeddings=False)
    assert torch.equal(load_whole(folder).get_output_embeddings().weight, expected)
    change_weights(folder, lambda all_: {name: one for name, one in all_.items() if name != "lm_head.weight"})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing"):
        load_whole(folder)


# -------------------------------------------------------------------------------------------------- tokenizers


def test_a_tokenizer_that_cuts_pads_or_draws_reads_the_whole_text(folder: Path, tmp_path: Path) -> None:
    trace = make_trace(PROBLEM, SOLUTION)
    expected = TraceEncoder(tiny_tokenizer()).encode(trace)
    assert len(expected.completion_ids) > 20
    odd = copy.deepcopy(tiny_tokenizer())
    odd.backend_tokenizer.enable_truncation(5)
    odd.backend_tokenizer.enable_padding(length=500)
    odd.backend_tokenizer.model.dropout = 0.9
    odd.save_pretrained(tmp_path / "odd")
    document = json.loads((tmp_path / "odd" / "tokenizer.json").read_text())
    assert document["truncation"]["max_length"] == 5 and document["padding"] and document["model"]["dropout"]
    for encoder in (TraceEncoder(odd), load_encoder(tmp_path / "odd", load_whole(folder))):
        encoded = encoder.encode(trace)
        assert (encoded.prompt_ids, encoded.completion_ids) == (expected.prompt_ids, expected.completion_ids)
        assert encoded.spans == expected.spans


def test_an_id_that_the_model_does_not_have_is_refused_wherever_the_numbers_leave_a_gap(
    folder: Path, tmp_path: Path
) -> None:
    model = load_whole(folder)
    tiny_tokenizer().save_pretrained(tmp_path / "gap")
    path = tmp_path / "gap" / "tokenizer.json"
    document = json.loads(path.read_text())
    last = max(document["model"]["vocab"], key=document["model"]["vocab"].__getitem__)
    document["model"]["vocab"][last] = 5_000  # 300 tokens, as many as the model has
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="has tokens up to id 5,000, the model 300 tokens; take the model's own"):
        load_encoder(tmp_path / "gap", model)


def test_a_token_that_spells_no_bytes_is_named() -> None:
    odd = copy.deepcopy(tiny_tokenizer())
    document = json.loads(odd.backend_tokenizer.to_str())
    document["model"]["vocab"]["\u4e2d"] = 300
    odd._tokenizer = odd.backend_tokenizer.from_str(json.dumps(document))
    with pytest.raises(EncodingError, match=r"token 300 of the tokenizer, '\u4e2d', spells no bytes"):
        TraceEncoder(odd).spans_of_ids([300])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{# " + "x" * MAX_TEMPLATE + " #}", "the chat template has 100,006 characters; the limit is 100,000"),
        ("{% for x in 5 %}{% endfor %}", r"cannot be rendered \(TypeError: 'int' object is not iterable\)"),
        ("{{ 1 / 0 }}", r"cannot be rendered \(ZeroDivisionError: division by zero\)"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", r"cannot be rendered \(RecursionError: "),
        (
            "{% for i in range(9) %}{% for j in range(99999) %}a{% endfor %}{% endfor %}",
            "renders to 899,991 characters",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template: str, message: str) -> None:
    odd = copy.deepcopy(tiny_tokenizer())
    odd.chat_template = template
    with pytest.raises(EncodingError, match=message):
        TraceEncoder(odd)


def test_a_template_without_an_end_is_stopped() -> None:
    odd = copy.deepcopy(tiny_tokenizer())
    odd.chat_template = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(EncodingError, match=r"RuntimeError: it runs more than 20,000,000 lines"):
        TraceEncoder(odd)


def test_files_of_a_tokenizer_that_take_long_to_read_are_refused(folder: Path) -> None:
    model = load_whole(folder)
    (folder / "chat_template.jinja").write_text("x" * 400_001)
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja: 400,001 bytes; the limit for a tokenizer is 400"):
        load_encoder(folder, model)


def test_a_panic_of_the_tokenizer_is_an_error_of_the_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panics(*_: Any, **__: Any) -> Any:
        raise PanicException("no entry found for key")

    model = load_whole(folder)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", panics)
    with pytest.raises(CheckpointError, match=r"the tokenizer in .*: no entry found for key"):
        load_encoder(folder, model)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: [][0])
    with pytest.raises(CheckpointError, match=r"the tokenizer in .*: list index out of range"):
        load_encoder(folder, model)


# ------------------------------------------------------------------------------------------- a whole checkpoint


def saved(folder: Path, **config: Any) -> Path:
    """A whole checkpoint of the tiny pair, with other values in its configuration."""
    lens = tiny_lens()
    lens.policy.save_pretrained(folder / "policy")
    lens.discriminator.backbone.save_pretrained(folder / "discriminator")
    lens.encoder.tokenizer.save_pretrained(folder)
    files: dict[str, Any] = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    shutil.rmtree(folder)
    files[f"discriminator/{HEAD}"] = head_description(lens.discriminator)
    files[f"discriminator/{HEAD_WEIGHTS}"] = lens.discriminator.head.state_dict()
    save_checkpoint(folder, {**files, "config.json": lens.config | config})
    return folder


def test_the_checkpoint_itself_is_loaded(tmp_path: Path) -> None:
    assert Lens.load(saved(tmp_path / "whole"), "cpu").context_window == 160


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"default_trace_score": "best"}, "default_trace_score is 'best'; one of mean_discounted, mean, last,"),
        ({"localisation": {"rule": "min"}}, "calibration: rule is 'min'"),
    ],
)
def test_a_value_that_nothing_can_use_is_named(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        Lens.load(saved(tmp_path / "odd", **config), "cpu")


def test_a_discriminator_without_some_of_the_ids_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lens = tiny_lens()
    lens.discriminator.backbone.resize_token_embeddings(50)
    monkeypatch.setattr("tests.unit.test_odd_checkpoints.tiny_lens", lambda: lens)
    with pytest.raises(CheckpointError, match="has tokens up to id 299, the model 50 tokens"):
        Lens.load(saved(tmp_path / "narrow"), "cpu")
