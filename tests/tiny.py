"""A checkpoint small enough to be made in a test: random weights, own tokenizer, a calibration set by hand."""

from __future__ import annotations

from irl_core.config import ModelConfig, RunConfig, TrainConfig
from irl_core.discriminator import Discriminator
from irl_core.encoding import TraceEncoder
from irl_core.inspection import Lens
from irl_core.localisation import Calibration, Rule
from train.backends.tiny import build_model, train_tokenizer

PROBLEM = "Ada has 3 boxes with 4 pens each. She gives away 2 pens. How many pens are left?"
SOLUTION = "There are 3 * 4 = <<3*4=12>>12 pens.\nShe keeps 12 - 2 = <<12-2=10>>10 pens.\n#### 10"
CONTEXT = 160
REFERENCE = {
    "mean": -2.0,
    "std": 0.5,
    "prompt_reward_mean": 0.0,
    "prompt_logprob_quantiles": [[0.0, -9.0], [0.01, -8.0], [0.5, -6.0], [1.0, -4.0]],
}
CALIBRATION = Calibration(
    rule=Rule("raw", "min"),
    threshold=-3.0,
    uncertain_threshold=-2.5,
    alpha=0.1,
    uncertain_alpha=0.2,
    n=2,
    null_scores=(-3.0, -2.5),
    error_logit=(0.0, 1.0),
    correct_logit=(0.0, 1.0),
)


def tiny_config() -> TrainConfig:
    """Two layers of width 16; the seed fixes every weight."""
    size = ModelConfig(hidden_size=16, layers=2, heads=2, intermediate_size=32, vocab_size=300, context=CONTEXT)
    return TrainConfig(run=RunConfig(seed=7, steps=2), model=size)


def tiny_lens() -> Lens:
    """Policy and discriminator backbone have the same weights, so raw = 0.5 * max(log p, -8) exactly."""
    tokenizer = train_tokenizer([PROBLEM, SOLUTION] * 8, 300)
    config = tiny_config()
    policy = build_model(config, tokenizer).eval()
    discriminator = Discriminator(build_model(config, tokenizer), "anchored", "own").eval()
    described = {
        "format": 1,
        "name": "tiny",
        "kind": "tiny",
        "head": "anchored",
        "provenance": {"command": "test", "seed": 7},
        "reference": REFERENCE,
        "localisation": CALIBRATION.to_json(),
        "default_trace_score": "minimum",
    }
    return Lens(
        name="tiny",
        config=described,
        policy=policy,
        discriminator=discriminator,
        encoder=TraceEncoder(tokenizer),
        calibration=CALIBRATION,
        fingerprint="0" * 64,
    )
