"""Where models and data come from, with a hub that is faked: no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from irl_core.errors import ConfigError
from train.planning import sources
from train.planning.architectures import KNOWN
from train.planning.sources import Origin, cached_folder, find_data, find_model, part_of, shape_of

NAME = "Qwen/Qwen2.5-0.5B-Instruct"
GATED = "meta-llama/Llama-3.2-1B-Instruct"
OTHER = "someone/a-model"
CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that is not there."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    offline(monkeypatch, errors.OfflineModeIsEnabled("the hub is off"))
    return folder


def offline(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Whatever asks the hub gets this error."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)


def hub_error(kind: type[Exception], status: int) -> Exception:
    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/x"))
    return kind("said by the hub", response=response)  # type: ignore[call-arg]


def not_whole(cause: Exception) -> Exception:
    """As the hub's library raises it in a dry run."""
    error = errors.DryRunError("Dry run cannot be performed")
    error.__cause__ = cause
    return error


def put(cache: Path, name: str, files: dict[str, str], commit: str = "a" * 40) -> Path:
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(commit)
    folder = home / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text)
    return folder


WHOLE = {"config.json": json.dumps(CONFIG), "tokenizer.json": "{}", "model.safetensors": ""}


# ------------------------------------------------------------------------------------------------------------ models


def test_a_folder_and_a_checkpoint_are_found_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert find_model("policy", str(tmp_path)) == Origin("policy", str(tmp_path), "folder", str(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    assert find_model("policy", str(tmp_path)).kind == "checkpoint"


def test_a_name_that_is_neither_folder_nor_hub_name() -> None:
    with pytest.raises(ConfigError, match=r"model\.policy: 'runs/no-such/final' is no folder that is there, nor a hub"):
        find_model("policy", "runs/no-such/final")
    with pytest.raises(ConfigError, match=r"^base of the policy: '/gone' is no folder that is there"):
        find_model("base of the policy", "/gone")


def test_a_whole_model_in_the_cache_needs_no_hub(cache: Path) -> None:
    folder = put(cache, NAME, WHOLE)
    found = find_model("policy", NAME)
    assert (found.kind, found.where, found.download_bytes) == ("cache", str(folder), 0)
    assert cached_folder(NAME) == folder and cached_folder(NAME, "another") is None


@pytest.mark.parametrize("missing", ["tokenizer.json", "model-00002.safetensors", "model-00001.safetensors"])
def test_a_half_downloaded_model_does_not_count(cache: Path, missing: str) -> None:
    shards = {"weight_map": {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}}
    files = {
        "config.json": json.dumps(CONFIG), "tokenizer.json": "{}", "model.safetensors.index.json": json.dumps(shards),
        "model-00001.safetensors": "", "model-00002.safetensors": "",
    }  # fmt: skip
    folder = put(cache, NAME, files)
    assert find_model("policy", NAME, ask_hub=False).kind == "cache"
    (folder / missing).unlink()
    assert find_model("policy", NAME, ask_hub=False).kind == "download"


def test_a_known_models_size_is_known_without_the_hub() -> None:
    found = find_model("policy", GATED, ask_hub=False)
    assert (found.kind, found.download_bytes) == ("download", 2 * 1_235_814_400)
    assert found.note == f"Llama Community License, to be accepted on https://huggingface.co/{GATED}"
    assert find_model("policy", NAME, ask_hub=False).note == f"Apache 2.0, https://huggingface.co/{NAME}"
    assert find_model("policy", OTHER, ask_hub=False).download_bytes is None


def test_the_hub_says_what_is_still_to_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def answer(name: str, **options: Any) -> list[Any]:
        asked.update(options, name=name)
        weights, tokenizer = ("model.safetensors", 988_000_000, True), ("tokenizer.json", 7_000_000, True)
        return [
            huggingface_hub.DryRunFileInfo("c" * 40, size, file, file, is_cached=not new, will_download=new)
            for file, size, new in (("config.json", 700, False), weights, tokenizer)
        ]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    found = find_model("policy", NAME, "v1")
    assert (found.kind, found.download_bytes) == ("download", 995_000_000)
    assert (asked["name"], asked["revision"], asked["dry_run"]) == (NAME, "v1", True)
    assert "*.safetensors" in asked["allow_patterns"] and not any("bin" in p for p in asked["allow_patterns"])


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            GATED,
            hub_error(errors.GatedRepoError, 403),
            f"{GATED} is gated: accept its licence on https://huggingface.co/{GATED}, then log in with 'hf auth login'",
        ),
        (
            "Qwen/Qwen2.5-3B-Instuct",
            hub_error(errors.RepositoryNotFoundError, 404),
            "the hub has no model 'Qwen/Qwen2.5-3B-Instuct'; nearest is 'Qwen/Qwen2.5-3B-Instruct'",
        ),
        (OTHER, not_whole(errors.OfflineModeIsEnabled("off")), "is not (or not whole) in the cache {cache}"),
        (OTHER, errors.LocalEntryNotFoundError("not here"), f"where there is a connection run 'hf download {OTHER}'"),
        (OTHER, httpx.ConnectError("no route"), "the hub was not reached"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, message: str
) -> None:
    offline(monkeypatch, error)
    found = find_model("policy", name)
    assert found.kind == "missing" and found.obstacle
    assert message.format(cache=cache) in found.note
    if name not in KNOWN:
        with pytest.raises(ConfigError) as caught:
            shape_of(found)
        assert message.format(cache=cache) in str(caught.value)


def test_progress_bars_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import utils

    for before in (True, False):
        (utils.disable_progress_bars if before else utils.enable_progress_bars)()
        find_model("policy", NAME)
        assert utils.are_progress_bars_disabled() is before
    utils.enable_progress_bars()


# ------------------------------------------------------------------------------------------------------------ shapes


def test_shapes_of_known_models_need_nothing() -> None:
    assert shape_of(find_model("policy", NAME)) == KNOWN[NAME].shape


def test_shapes_come_from_a_folder_or_the_cache(cache: Path, tmp_path: Path) -> None:
    put(cache, OTHER, {"config.json": json.dumps(CONFIG)})  # not whole, but its shape is there
    assert shape_of(find_model("policy", OTHER)).hidden == 64
    local = tmp_path / "local"
    local.mkdir()
    (local / "config.json").write_text(json.dumps(CONFIG | {"hidden_size": 32}))
    assert shape_of(find_model("policy", str(local))).hidden == 32


def test_the_shape_of_an_unknown_model_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file, revision: str(tmp_path / file))
    found = find_model("policy", OTHER, ask_hub=False)
    assert shape_of(found).layers == 2
    with pytest.raises(ConfigError, match=f"the shape of {OTHER} is not known before it is downloaded"):
        shape_of(found, download=False)


def test_an_unreadable_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json"):
        shape_of(find_model("policy", str(tmp_path)))


def test_the_shapes_of_a_checkpoint_are_those_of_its_parts(tmp_path: Path) -> None:
    for part, hidden in (("policy", 64), ("discriminator", 32)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(CONFIG | {"hidden_size": hidden}))
    (tmp_path / "manifest.json").write_text("{}")
    assert shape_of(find_model("policy", str(tmp_path))).hidden == 64
    assert shape_of(find_model("discriminator", str(tmp_path))).hidden == 32
    (tmp_path / "discriminator" / "config.json").unlink()
    (tmp_path / "discriminator").rmdir()
    assert part_of(tmp_path, "discriminator") == tmp_path / "policy"
    assert shape_of(find_model("discriminator", str(tmp_path))).hidden == 64


def test_adapters_have_the_shape_of_their_base(tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    base = {"name": NAME, "revision": None, "quantisation": "nf4", "dtype": "bfloat16"}
    (tmp_path / "policy" / "base.json").write_text(json.dumps(base))
    assert shape_of(find_model("policy", str(tmp_path))) == KNOWN[NAME].shape
    (found,) = sources.bases("policy", tmp_path / "policy", ask_hub=False)
    assert (found.role, found.name, found.kind) == ("base of the policy", NAME, "download")


# -------------------------------------------------------------------------------------------------------------- data


def test_data_that_is_made_or_lies_here(tmp_path: Path) -> None:
    assert find_data("demo").kind == "made"
    (tmp_path / "rows.jsonl").write_text("")
    assert find_data(str(tmp_path / "rows.jsonl")).kind == "folder"
    with pytest.raises(ConfigError, match=r"data\.source 'nowhere\.jsonl' is not there; demo, gsm8k, a JSONL file"):
        find_data("nowhere.jsonl")


def test_gsm8k_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "datasets" / "openai___gsm8k" / "main"
    folder.mkdir(parents=True)
    assert find_data("gsm8k") == Origin("data", "openai/gsm8k", "cache", str(folder))
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("HF_DATASETS_CACHE", str(elsewhere))
    assert find_data("gsm8k", ask_hub=False).kind == "download"


def test_gsm8k_out_of_reach_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_data("gsm8k")
    assert found.obstacle and found.download_bytes == 2_725_633
    assert f"openai/gsm8k is not in the cache {tmp_path / 'datasets'}" in found.note
    assert "(OfflineModeIsEnabled); go online once, or set data.source to a folder with its train.jsonl" in found.note
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *arguments, **options: None)
    assert find_data("gsm8k").kind == "download"
