"""Tokenisation of traces, with the character span of every token.

Prompt and completion are tokenised separately, as in sampling: no token crosses from the prompt into the completion,
and no template adds anything after the end-of-turn token. Special tokens that are spelt out in a problem or a solution
are encoded as plain text, so that a pasted ``<|eot_id|>`` does not end the turn.
"""

from __future__ import annotations

import codecs
import copy
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cached_property
from types import FrameType
from typing import TYPE_CHECKING, Any

from irl_core.errors import EncodingError
from irl_core.text.segmentation import make_trace
from irl_core.types import EncodedTrace, Source, Span, Trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LARGEST_ID = 2**31 - 1  # tokenizers raises OverflowError above
MAX_TEMPLATE = 100_000  # characters; the longest of open models have some 20,000
MAX_TEMPLATE_LINES = 20_000_000  # of Python, compiling the template (100 a character) and running it: some 3 s
TraceFunction = Callable[[FrameType, str, object], "TraceFunction"]
_SENTINEL = "\x02problem\x03"
# The date that chat templates see in place of today's, and its key in the tokenizer's settings.
PROMPT_DATE = date(2024, 7, 26)
_DATE_KEY = "prompt_date"


def spans_of_bytes(pieces: Sequence[bytes]) -> tuple[str, tuple[Span, ...]]:
    """Decode pieces of bytes as one UTF-8 text; returns it with the character span of each piece.

    Pieces that share one character (an emoji split over tokens) share its span. Invalid bytes become U+FFFD.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text, spans = "", []
    for number, piece in enumerate(pieces):
        start = len(text)
        text += decoder.decode(piece, final=number == len(pieces) - 1)
        unfinished = bool(decoder.getstate()[0])
        spans.append((start, len(text) + unfinished))
    return text, tuple((min(start, len(text)), min(end, len(text))) for start, end in spans)


def spellable(text: str) -> str:
    """The text itself. Raises EncodingError for a lone surrogate, which has no encoding."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EncodingError(f"character {error.start} is half of a surrogate pair; remove it") from error
    return text


def closed(offsets: Sequence[Span], length: int) -> tuple[Span, ...]:
    """Spans without gaps: characters that a normaliser dropped belong to the token before them."""
    starts = [*(start for start, _ in offsets[1:]), length]
    return tuple((start, max(end, following)) for (start, end), following in zip(offsets, starts, strict=True))


def byte_of_symbol() -> dict[str, int]:
    """The byte of each printable symbol of byte-level BPE (Radford et al. 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


@contextmanager
def bounded_lines(limit: int) -> Iterator[None]:
    """Stop Python code of this thread that runs more than ``limit`` lines within the block, by a RuntimeError."""
    left, before = limit, sys.gettrace()

    def count(frame: FrameType, event: str, argument: object) -> TraceFunction:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError(f"it runs more than {limit:,} lines")
        return count

    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)


class TraceEncoder:
    """Encoder of traces: the prompt by the tokenizer's chat template, the completion as tokens with character spans.

    Args:
        tokenizer: a fast byte-level BPE tokenizer with a chat template (Llama 3, Qwen2, the bundled one).
        instruction: text before every problem.
        end_tokens: ids that end a turn; default: the tokenizer's eos and, where it has one, ``<|eot_id|>``.

    Raises:
        EncodingError: the tokenizer is not byte-level, or has no chat template, one that is too long or cannot be
            rendered, or no end token.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, instruction: str = "", end_tokens: Sequence[int] = ()
    ) -> None:
        if not getattr(tokenizer, "is_fast", False) or '"ByteLevel"' not in tokenizer.backend_tokenizer.to_str():
            raise EncodingError("the tokenizer is not a fast byte-level BPE one; Llama 3 and Qwen2 tokenizers are")
        if not tokenizer.chat_template:
            raise EncodingError("the tokenizer has no chat template; use the tokenizer of the instruct model")
        if (length := len(str(tokenizer.chat_template))) > MAX_TEMPLATE:
            raise EncodingError(f"the chat template has {length:,} characters; the limit is {MAX_TEMPLATE:,}")
        # A tokenizer's file may say that texts are cut, padded, or split by chance: then tokens would not be the text.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.model.dropout = None
        self.tokenizer = tokenizer
        self.instruction = instruction
        self._special = tokenizer.backend_tokenizer
        self._plain = copy.deepcopy(tokenizer.backend_tokenizer)
        self._plain.encode_special_tokens = True
        self._added = {token_id: str(token).encode() for token_id, token in tokenizer.added_tokens_decoder.items()}
        self._symbols = byte_of_symbol()
        named = (tokenizer.get_vocab().get("<|eot_id|>"), tokenizer.eos_token_id)
        self.end_ids = tuple(end_tokens) or tuple(dict.fromkeys(i for i in named if i is not None))
        if not self.end_ids:
            raise EncodingError("the tokenizer names no end-of-turn token; set eos_token")
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.end_ids[0]
        self._before, self._after = self._render()

    def _render(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of the rendered prompt before and after the problem."""
        content = f"{self.instruction}\n\n{_SENTINEL}" if self.instruction else _SENTINEL
        try:
            with bounded_lines(MAX_TEMPLATE_LINES):
                rendered = self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True, **self._clock()
                )
        except Exception as error:  # a template is a stranger's program: it may raise whatever Python does
            reason = str(error).strip().splitlines() or [""]
            raise EncodingError(
                f"the chat template cannot be rendered ({type(error).__name__}: {reason[0][:200]})"
            ) from error
        if len(str(rendered)) > MAX_TEMPLATE + len(content):
            raise EncodingError(f"the chat template renders to {len(rendered):,} characters; limit {MAX_TEMPLATE:,}")
        before, sentinel, after = str(rendered).partition(_SENTINEL)
        if not sentinel:
            raise EncodingError("the chat template does not contain the user's message unchanged")
        encode = self._special.encode
        return tuple(encode(before, add_special_tokens=False).ids), tuple(encode(after, add_special_tokens=False).ids)

    def _clock(self) -> dict[str, Any]:
        """Template arguments with a fixed date, for a template that writes today's date.

        The date is kept in the tokenizer's settings: a checkpoint saves it, and the prompt stays the same.
        """
        template = str(self.tokenizer.chat_template)
        if "strftime_now" not in template and "date_string" not in template:
            return {}
        day = date.fromisoformat(self.tokenizer.init_kwargs.setdefault(_DATE_KEY, PROMPT_DATE.isoformat()))
        return {"strftime_now": day.strftime, "date_string": day.strftime("%d %b %Y")}

    def encode_prompt(self, problem: str) -> tuple[int, ...]:
        """Token ids of the rendered prompt, ready for sampling."""
        ids = self._plain.encode(spellable(problem.strip()), add_special_tokens=False).ids
        return (*self._before, *ids, *self._after)

    def encode(self, trace: Trace) -> EncodedTrace:
        """A trace as tokens with spans; a sampled trace keeps the ids that it was sampled with.

        Raises:
            EncodingError: a text that cannot be encoded, or ids that do not spell the trace's text.
        """
        prompt_ids = self.encode_prompt(trace.problem)
        if trace.token_ids is not None:
            text, spans = self.spans_of_ids(trace.token_ids)
            if text != trace.text:
                raise EncodingError(f"the ids of trace {trace.trace_id!r} do not spell its text; score it unsampled")
            return EncodedTrace(trace, prompt_ids, trace.token_ids, spans)
        encoding = self._plain.encode(spellable(trace.text), add_special_tokens=False)
        ids = tuple(encoding.ids)
        decoded, spans = self.spans_of_ids(ids)
        if decoded != trace.text:  # a normaliser (NFC) changed the text
            spans = closed(encoding.offsets, len(trace.text))
        if not trace.finished:
            return EncodedTrace(trace, prompt_ids, ids, spans)
        end = len(trace.text)
        return EncodedTrace(trace, prompt_ids, (*ids, self.end_ids[0]), (*spans, (end, end)))

    def spans_of_ids(self, ids: Sequence[int]) -> tuple[str, tuple[Span, ...]]:
        """Text and character spans of token ids; an end-of-turn token at the end has an empty span."""
        body = ids[:-1] if ids and ids[-1] in self.end_ids else ids
        text, spans = spans_of_bytes([self._bytes_of(token_id) for token_id in body])
        return text, spans if len(body) == len(ids) else (*spans, (len(text), len(text)))

    def _bytes_of(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id]
        piece = self._special.id_to_token(token_id) if 0 <= token_id <= LARGEST_ID else None
        if piece is None:
            raise EncodingError(f"token id {token_id} is not in the tokenizer's vocabulary of {len(self.tokenizer)}")
        try:
            return bytes(self._symbols[symbol] for symbol in piece)
        except KeyError as error:
            raise EncodingError(f"token {token_id} of the tokenizer, {piece[:40]!r}, spells no bytes") from error

    def sampled_trace(self, problem: str, token_ids: Sequence[int], logprobs: Sequence[float], **fields: Any) -> Trace:
        """A rollout as a segmented trace with its token ids and log-probabilities."""
        text, _ = self.spans_of_ids(token_ids)
        finished = bool(token_ids) and token_ids[-1] in self.end_ids
        return make_trace(
            problem, text, source=Source.POLICY, token_ids=tuple(token_ids), logprobs=tuple(logprobs),
            finished=finished, **fields,
        )  # fmt: skip

    @cached_property
    def line_ends(self) -> tuple[int, ...]:
        """Ids of the tokens that hold a line end, the special ones aside."""
        end = next(symbol for symbol, byte in self._symbols.items() if byte == ord("\n"))
        found = self.tokenizer.get_vocab().items()
        return tuple(sorted(number for token, number in found if end in token and number not in self._added))

    def fingerprint(self) -> str:
        """Hash of the vocabulary, equal for encoders that share one."""
        import hashlib

        return hashlib.sha256(json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()
