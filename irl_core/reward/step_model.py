"""Process-reward models of others: a pretrained body, a head built from the shapes of its weights, and a judgement
where each step ends. Which text a layout reads is in `StepReader`; no code of a model's folder runs."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import check_config
from irl_core.checkpoints.step_models import HEADS, StepLayout, found_and_known, plain_config, weight_files
from irl_core.errors import CheckpointError, InputError
from irl_core.models.hub import check_model_config
from irl_core.models.pretrained import check_file_sizes
from irl_core.models.tokenization import MAX_TEMPLATE, MAX_TEMPLATE_LINES, bounded_lines

STEP_MARKS = {"qwen-prm": "<extra_0>", "math-shepherd": "ки"}
SYSTEM = (
    "Please reason step by step, and put your final answer within \\boxed{}."  # what Qwen's models were taught with
)
GOOD, BAD = "+", "-"
_PLACE = re.compile("\x02(\\d+)\x03")


class MarkedText(NamedTuple):
    """Token ids of a problem with a solution, and the positions at which its steps are judged, one a step."""

    ids: tuple[int, ...]
    marks: tuple[int, ...]


# ------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class StepReader:
    """A layout's text of a problem with its steps, as tokens of the model's own tokenizer.

    Special tokens that are spelt out in a problem or a step are read as plain text.
    """

    layout: StepLayout
    tokenizer: Any
    plain: Any

    @classmethod
    def of(cls, layout: StepLayout, tokenizer: Any) -> StepReader:
        """The reader of a layout. Raises CheckpointError where the tokenizer does not have what the layout needs."""
        if not getattr(tokenizer, "is_fast", False):
            raise CheckpointError("the tokenizer is no fast one; tokenizer.json is expected beside the weights")
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        plain = copy.deepcopy(tokenizer.backend_tokenizer)
        plain.encode_special_tokens = True
        reader = cls(layout, tokenizer, plain)
        mark = STEP_MARKS.get(layout)
        if mark is not None and len(reader._special(mark)) != 1:
            raise CheckpointError(f"the tokenizer has no token {mark!r}, at which a {layout} model judges a step")
        if layout in ("qwen-prm", "rlhflow") and not tokenizer.chat_template:
            raise CheckpointError(f"the tokenizer has no chat template, which a {layout} model reads")
        return reader

    def read(self, problem: str, steps: Sequence[str]) -> MarkedText:
        """The tokens of a problem and its steps, each judged once. Raises InputError where they cannot be marked."""
        if self.layout == "qwen-prm":
            return self._chat([("system", [SYSTEM]), ("user", [problem]), ("assistant", steps)], "<extra_0>")
        if self.layout == "rlhflow":
            turns: list[tuple[str, Sequence[str]]] = []
            for number, step in enumerate(steps):
                turns += [("user", [f"{problem} {step}" if number == 0 else step]), ("assistant", [GOOD])]
            return self._chat(turns, "")
        if self.layout == "sequence" and self.tokenizer.chat_template:
            whole = self._chat([("user", [problem]), ("assistant", ["\n".join(steps)])], "")
            return MarkedText(whole.ids, (len(whole.ids) - 1,))
        if self.layout == "math-shepherd":
            return self._marked(problem, steps)
        ids_so_far = [*self._start(), *self._text(problem + ("\n" if self.layout != "token-classifier" else ""))]
        if self.layout == "sequence":
            ids_so_far += self._text("\n".join(steps))
            return MarkedText(tuple(ids_so_far), (len(ids_so_far) - 1,))
        marks = []
        for step in steps:
            ids_so_far += [*self._text(step), *self._text("\n")]
            marks.append(len(ids_so_far) - 1)
        return MarkedText(tuple(ids_so_far), tuple(marks))

    def pair(self) -> tuple[int, int]:
        """The tokens whose logits are compared: of a right step and of a wrong one."""
        good, bad = self._text(GOOD)[-1], self._text(BAD)[-1]
        if good == bad:
            raise CheckpointError(f"the tokenizer does not tell {GOOD!r} from {BAD!r}")
        return good, bad

    def _marked(self, problem: str, steps: Sequence[str]) -> MarkedText:
        """Math-Shepherd's text: 'Step 1: ... ки' a line, judged where the mark stands."""
        mark = STEP_MARKS[self.layout]
        (sign,) = self._special(mark)
        lines = [step if re.match(r"Step \d+", step) else f"Step {n}: {step}" for n, step in enumerate(steps, 1)]
        text = f"{problem} " + "\n".join(f"{line} {mark}" for line in lines)
        ids = (*self._start(), *self._special(text))
        marks = tuple(place for place, one in enumerate(ids) if one == sign)
        if len(marks) != len(steps):
            raise InputError(f"The text spells the mark {mark!r} itself, at which the model judges a step. Remove it.")
        return MarkedText(ids, marks)

    def _chat(self, turns: Sequence[tuple[str, Sequence[str]]], mark: str) -> MarkedText:
        """A rendered chat. With a mark the pieces of the assistant's turn are judged at a mark behind each; without one
        every turn of the assistant is judged at the token before it."""
        messages = [{"role": role, "content": f"\x02{number}\x03"} for number, (role, _) in enumerate(turns)]
        try:
            with bounded_lines(MAX_TEMPLATE_LINES):
                rendered = str(self.tokenizer.apply_chat_template(messages, tokenize=False))
        except Exception as error:  # a template is a stranger's program: it may raise whatever Python does
            raise CheckpointError(f"the chat template cannot be rendered ({type(error).__name__})") from error
        pieces = _PLACE.split(rendered)
        if len(rendered) > MAX_TEMPLATE or pieces[1::2] != [str(number) for number in range(len(turns))]:
            raise CheckpointError("the chat template does not contain every message unchanged, once, in order")
        ids, marks = self._special(pieces[0]), []
        for (role, texts), after in zip(turns, pieces[2::2], strict=True):
            if role == "assistant" and not mark:
                marks.append(len(ids) - 1)
            for text in texts:
                ids += self._text(text)
                if role == "assistant" and mark:
                    ids += self._special(mark)
                    marks.append(len(ids) - 1)
            ids += self._special(after)
        return MarkedText(tuple(ids), tuple(marks))

    def _start(self) -> list[int]:
        start = self.tokenizer.bos_token_id
        return [] if start is None else [int(start)]

    def _text(self, text: str) -> list[int]:
        return list(self.plain.encode(text, add_special_tokens=False).ids)

    def _special(self, text: str) -> list[int]:
        return list(self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)


# ------------------------------------------------------------------------------------------------------- judging


class StepModel(nn.Module):
    """A process-reward model: ``judge`` gives the logit that each step is right.

    Attributes:
        layout: how it reads and judges.
        backbone: the transformers model whose last hidden states the head reads.
        head: from hidden states to one output, or two (wrong, right).
        reader: makes its text.
    """

    def __init__(self, layout: StepLayout, backbone: Any, head: nn.Module, reader: StepReader) -> None:
        super().__init__()
        self.layout = layout
        self.backbone = backbone
        self.head = head
        self.reader = reader

    @torch.no_grad()
    def judge(self, texts: Sequence[MarkedText]) -> list[list[float]]:
        """The logit of each mark of each text, computed together; padding stands on the right."""
        width, device = max(len(text.ids) for text in texts), self.backbone.device
        limit = getattr(self.backbone.config, "max_position_embeddings", None)
        if isinstance(limit, int) and width > limit:
            raise InputError(
                f"The problem and the solution have {width:,} tokens; the model reads {limit:,}. Shorten it."
            )
        ids = torch.zeros(len(texts), width, dtype=torch.long)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
        kept = torch.arange(width) < torch.tensor([[len(text.ids)] for text in texts])
        hidden = self.backbone(ids.to(device), attention_mask=kept.to(device), use_cache=False).last_hidden_state
        judged = []
        for row, text in enumerate(texts):
            outputs: Tensor = self.head(hidden[row, list(text.marks)]).float()
            logits = outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs[:, 0]
            judged.append([float(value) for value in logits.cpu()])
        return judged


def load_step_model(folder: Path, layout: StepLayout, device: str = "cpu") -> StepModel:
    """The process-reward model in a folder, from safetensors alone, in evaluation mode.

    Raises:
        CheckpointError: its configuration, weights, head or tokenizer are not what the layout has.
    """
    from transformers import AutoModel, AutoTokenizer
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    document = plain_config(folder)
    check_model_config("config.json", document)
    kind = str(document.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise CheckpointError(f"config.json: model_type is {kind[:40]!r}, which transformers does not have")
    check_file_sizes(folder)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            check_config(name, load_json((folder / name).resolve()))
    try:
        config = CONFIG_MAPPING[kind].from_dict(document)
        check_body(folder, config)
        backbone, loading = AutoModel.from_pretrained(
            folder, config=config, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            attn_implementation="sdpa", output_loading_info=True,
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(
            folder, config=config, local_files_only=True, trust_remote_code=False, fix_mistral_regex=False
        )
    except Exception as error:  # damaged files raise errors of many classes
        if isinstance(error, torch.OutOfMemoryError | MemoryError | CheckpointError):
            raise
        reason = str(error).strip().splitlines() or [""]
        raise CheckpointError(f"{folder.name}: cannot be loaded ({type(error).__name__}: {reason[0][:200]})") from error
    if loading["missing_keys"]:
        raise CheckpointError(f"{folder.name}: {min(loading['missing_keys'])} is missing from its weights")
    reader = StepReader.of(layout, tokenizer)
    head = load_head(folder, layout, reader).to(backbone.dtype)
    return StepModel(layout, backbone, head, reader).to(device).eval()


def check_body(folder: Path, config: Any) -> None:
    """Raise CheckpointError where the configuration names more weights than the files have bytes."""
    from transformers import AutoModel

    with torch.device("meta"):
        named = sum(one.numel() for one in AutoModel.from_config(config, trust_remote_code=False).parameters())
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if named > held:
        raise CheckpointError(f"config.json names a model of {named:,} weights, which {held:,} bytes cannot hold")


def load_head(folder: Path, layout: StepLayout, reader: StepReader) -> nn.Module:
    """The head of a layout, built from the names and shapes of its weights.

    Raises:
        CheckpointError: the weights of no head that is known, or with more outputs than right and wrong.
    """
    from safetensors import safe_open

    files = weight_files(folder)

    def tensor(name: str) -> Tensor:
        with safe_open(files[name], framework="pt", device="cpu") as file:
            found: Tensor = file.get_tensor(name)
            return found

    if layout in ("math-shepherd", "rlhflow"):
        name = next((name for name in ("lm_head.weight", "model.embed_tokens.weight") if name in files), "")
        if not name:
            raise CheckpointError(
                f"no lm_head.weight, which a model that judges by two tokens has: {found_and_known(folder)}"
            )
        good, bad = reader.pair()
        return linear(tensor(name)[[bad, good]], None)
    if "score.0.weight" in files and "score.2.weight" in files:
        layers = [linear(tensor(f"score.{n}.weight"), tensor(f"score.{n}.bias") if f"score.{n}.bias" in files else None)
                  for n in (0, 2)]  # fmt: skip
        head: nn.Module = nn.Sequential(layers[0], nn.ReLU(), layers[1])
        outputs = layers[1].out_features
    else:
        name = next((name for name in HEADS if f"{name}.weight" in files), "")
        if not name:
            raise CheckpointError(f"its weights have no head that is known: {found_and_known(folder)}")
        layer = linear(tensor(f"{name}.weight"), tensor(f"{name}.bias") if f"{name}.bias" in files else None)
        head, outputs = layer, layer.out_features
    if outputs not in (1, 2):
        raise CheckpointError(f"its head has {outputs} outputs; one (a logit) or two (wrong, right) are expected")
    return head


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer of these weights."""
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise CheckpointError(f"a head's weight has the shape {tuple(weight.shape)}; two dimensions are expected")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
