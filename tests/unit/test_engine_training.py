"""Training with samples of an engine: it gets every round's adapters, and tells each token, or is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from irl_core.config import LoraConfig
from irl_core.errors import ConfigError, EngineError
from irl_core.models.pretrained import Base, load_base, with_adapters
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.engine_requests import Engine
from irl_core.policy.engine_training import FOLDER_VARIABLE, URL_VARIABLE, EngineSampler
from irl_core.policy.sampling import LoopSampler
from irl_core.presets import load_config
from tests.engine_server import Answer, Body, FakeEngine, completion, engine_server
from tests.runs import metrics_of
from tests.small_models import save_model
from tests.tiny import tiny_tokenizer
from train.run import train

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7, 8], [9, 10, 11]]


class ReloadingEngine:
    """What vLLM does with ``--enable-lora`` and runtime updates on: a base model, adapters by name that are read from a
    folder when they are loaded, and completions whose tokens are drawn and told by the named one."""

    def __init__(self, base: Path, encoder: TraceEncoder) -> None:
        self.base, self.encoder = base, encoder
        self.models: dict[str, Any] = {}
        self.names: list[str] = []
        self.change: Any = lambda choice: choice

    def load(self, body: Body) -> Answer:
        name, path = body["lora_name"], Path(body["lora_path"])
        if not (path / "adapter_config.json").is_file():
            return 404, {"error": {"message": f"No adapter found for {path}", "code": 404}}
        if name in self.models:
            return 400, {"error": {"message": f"The lora adapter '{name}' has already been loaded."}}
        base = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32)
        self.models[name] = PeftModel.from_pretrained(base, str(path)).eval()
        self.names.append(name)
        return 200, f"Success: LoRA adapter '{name}' added successfully.".encode()

    def unload(self, body: Body) -> Answer:
        del self.models[body["lora_name"]]
        return 200, b"Success"

    def complete(self, body: Body) -> Answer:
        if body["model"] not in self.models:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        sampler = LoopSampler(body["stop_token_ids"], self.encoder.pad_id)
        ((row,),) = sampler(
            self.models[body["model"]], [body["prompt"]], num_samples=1, max_new_tokens=body["max_tokens"],
            seeds=[body["seed"]], temperature=body["temperature"], top_p=body["top_p"],
        )  # fmt: skip
        choice = {
            "index": 0, "text": self.encoder.tokenizer.decode(row.token_ids), "token_ids": list(row.token_ids),
            "finish_reason": "stop" if row.finished else "length",
            "logprobs": {"token_logprobs": list(row.logprobs), "tokens": ["?"] * len(row.token_ids)},
        }  # fmt: skip
        return 200, {"choices": [self.change(choice)], "usage": {"prompt_tokens": len(body["prompt"])}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base") / "llama", "llama", tiny_tokenizer(), seed=1)


@pytest.fixture
def encoder() -> TraceEncoder:
    return TraceEncoder(tiny_tokenizer())


@pytest.fixture
def model(base: Path) -> Any:
    torch.manual_seed(0)
    adapted = with_adapters(load_base(Base(str(base), None, "none", "float32"), CPU), LoraConfig(rank=4))
    return adapted.eval()


def change_adapters(model: Any, amount: float) -> None:
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=amount)


@contextmanager
def engine(base: Path, encoder: TraceEncoder) -> Iterator[tuple[FakeEngine, ReloadingEngine]]:
    served = ReloadingEngine(base, encoder)
    with engine_server(served.complete, "base") as server:
        server.others = {"/v1/load_lora_adapter": served.load, "/v1/unload_lora_adapter": served.unload}
        yield server, served


def drawn(sampler: EngineSampler, model: Any, **options: Any) -> Any:
    return sampler(model, PROMPTS, num_samples=3, max_new_tokens=12, seeds=[1, 2**61], **options)


def own_logprobs(model: Any, prompt: list[int], ids: tuple[int, ...]) -> torch.Tensor:
    """Of the completion's tokens, by a forward pass of the model itself: (T,)."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]


def test_every_round_is_drawn_by_the_adapters_as_they_are_then(
    base: Path, encoder: TraceEncoder, model: Any, tmp_path: Path
) -> None:
    with engine(base, encoder) as (server, served):
        sampler = EngineSampler(Engine(server.url), encoder, tmp_path)
        for amount in (0.0, 0.5):
            change_adapters(model, amount)
            rounds = drawn(sampler, model)
            assert [len(rows) for rows in rounds] == [3, 3]
            for prompt, rows in zip(PROMPTS, rounds, strict=True):
                for row in rows:
                    torch.testing.assert_close(
                        torch.tensor(row.logprobs), own_logprobs(model, prompt, row.token_ids), atol=1e-4, rtol=1e-4
                    )
                    assert row.finished == (row.token_ids[-1] in encoder.end_ids)
    assert len(served.names) == len(set(served.names)) == 2 and not served.models, "the engine keeps none"
    assert {body["model"] for body in server.asked} == set(served.names)
    assert all(body["stop_token_ids"] == list(encoder.end_ids) for body in server.asked)
    assert len({body["seed"] for body in server.asked}) == 6 and max(b["seed"] for b in server.asked) < 2**31
    assert not list(tmp_path.iterdir()), "nor are they left on the disk"


def without(*keys: str) -> Any:
    return lambda choice: {key: value for key, value in choice.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("token_ids"), "does not tell the tokens of what it drew"),
        (without("logprobs"), "does not tell the log-probabilities of what it drew"),
        (without("logprobs", "token_ids"), "does not tell the tokens and log-probabilities of"),
        (
            lambda c: c | {"finish_reason": "stop", "token_ids": [5] * len(c["token_ids"])},
            "without telling its end token",
        ),
    ],
)
def test_what_is_not_told_is_refused_with_the_reason(
    base: Path, encoder: TraceEncoder, model: Any, tmp_path: Path, change: Any, said: str
) -> None:
    with engine(base, encoder) as (server, served):
        served.change = change
        with pytest.raises(ConfigError, match=f"{said}.*set policy.sampler to loop"):
            drawn(EngineSampler(Engine(server.url), encoder, tmp_path), model)
        assert not served.models


def test_another_prompt_than_was_asked_for_is_refused(
    base: Path, encoder: TraceEncoder, model: Any, tmp_path: Path
) -> None:
    with engine(base, encoder) as (server, served):
        whole = served.complete
        server.answer = lambda body: (200, whole(body)[1] | {"usage": {"prompt_tokens": len(body["prompt"]) + 1}})
        with pytest.raises(ConfigError, match=r"read . tokens where the prompt has"):
            drawn(EngineSampler(Engine(server.url), encoder, tmp_path), model)


def test_an_engine_that_takes_no_adapters_or_no_tokens_is_refused(
    base: Path, encoder: TraceEncoder, model: Any, tmp_path: Path
) -> None:
    with engine(base, encoder) as (server, served):
        sampler = EngineSampler(Engine(server.url), encoder, tmp_path)
        server.answer = lambda body: (400, {}) if isinstance(body["prompt"], list) else completion("4")
        with pytest.raises(ConfigError, match="refuses prompts of tokens"):
            drawn(sampler, model)
        server.others["/v1/load_lora_adapter"] = lambda body: served.load(body | {"lora_path": "/elsewhere"})
        with pytest.raises(ConfigError, match=r"No adapter found for /elsewhere.*VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
            drawn(sampler, model)
        server.others["/v1/load_lora_adapter"] = lambda body: (400, {"message": "rank 4 is more than max_lora_rank"})
        with pytest.raises(ConfigError, match=rf"max_lora_rank.*it must see .*{FOLDER_VARIABLE}"):
            drawn(sampler, model)
        del server.others["/v1/load_lora_adapter"]
        with pytest.raises(ConfigError, match=r"does not take new adapters.*--enable-lora.*'irl-lens engine start'"):
            drawn(sampler, model)


def test_a_lost_sample_ends_the_round_and_says_how_to_go_on(
    base: Path, encoder: TraceEncoder, model: Any, tmp_path: Path
) -> None:
    with engine(base, encoder) as (server, served):
        whole = served.complete
        server.answer = lambda body: (500, {}) if len(body["prompt"]) == 3 else whole(body)
        sampler = EngineSampler(Engine(server.url, retries=0), encoder, tmp_path)
        with pytest.raises(EngineError, match=r"3 of 6 samples did not come .*status 500.*with --resume"):
            drawn(sampler, model)
        assert not served.models and not list(tmp_path.iterdir())


def test_a_model_without_adapters_and_a_missing_engine_are_refused(
    base: Path, encoder: TraceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = AutoModelForCausalLM.from_pretrained(base)
    with pytest.raises(ConfigError, match=r"takes new adapters alone, no whole model; set model\.lora\.rank"):
        drawn(EngineSampler(Engine("http://127.0.0.1:9"), encoder, tmp_path), whole)
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="no engine is named; give --engine"):
        EngineSampler.from_environment(encoder)
    monkeypatch.setenv(URL_VARIABLE, "ftp://somewhere")
    with pytest.raises(ConfigError, match="http://HOST:PORT is expected"):
        EngineSampler.from_environment(encoder)


def test_a_training_learns_from_an_engines_samples_and_logs_the_gap(
    base: Path, encoder: TraceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [
        "run.steps=2", "run.eval_every=0", "run.calibration_problems=4", "model.backend=transformers",
        f"model.policy={base}", f"model.discriminator={base}", "model.lora.rank=4", "model.compile=false",
        "data.train_problems=20", "data.max_completion_tokens=200", "data.max_prompt_tokens=300",
        "policy.prompts_per_round=2", "policy.num_generations=2", "policy.max_new_tokens=16", "policy.sampler=engine",
        "discriminator.warmup_rounds=0",
    ]  # fmt: skip
    with engine(base, encoder) as (server, served):
        monkeypatch.setenv(URL_VARIABLE, server.url)
        monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
        (tmp_path / "tiny.yaml").write_text(json.dumps({"run": {"seed": 3}}))
        final = train(load_config(str(tmp_path / "tiny.yaml"), settings), tmp_path / "run")
    steps = metrics_of(final.parent)
    assert [step["rollout/samples"] for step in steps] == [4, 4]
    assert all(step["rollout/logprob_mismatch"] < 1e-3 for step in steps)
    assert len(served.names) >= 2 and len(server.asked) >= 8
