"""The permanent link: back and forth, and what is refused."""

from __future__ import annotations

import base64
import random
import zlib

import pytest

from app.inspect.links import MAX_LINK, Link, LinkError, pack, read, unpack, write
from irl_core.scorer import MAX_SAMPLES


def test_a_link_leads_back_to_the_same_page() -> None:
    steps = ((0, 1), (2, 4))
    link = Link(
        "Two \U0001f600 cost $5.", "a\nb\x00", "5", "demo", 12, 99, 0.7, "raw", 0.85, 3, 1, steps, "self-revision"
    )  # fmt: skip
    assert read(write(link)) == link


def test_a_link_may_ask_for_as_many_samples_as_the_page() -> None:
    assert read({"problem": pack("x"), "n": str(MAX_SAMPLES)}) == Link("x", n=MAX_SAMPLES)
    with pytest.raises(LinkError):
        read({"problem": pack("x"), "n": str(MAX_SAMPLES + 1)})


def test_no_parameters_are_no_link() -> None:
    assert read({}) is None


def packed_bomb() -> str:
    return base64.urlsafe_b64encode(zlib.compress(b"a" * 10_000_000, 9)).decode()[:5000]


@pytest.mark.parametrize(
    "parameters",
    [
        {"trace": "missing"},
        {"problem": "%%%"},
        {"problem": "plain text"},
        {"problem": pack("x"), "solution": pack("ab"), "steps": "0.1.1.9"},
        {"problem": pack("x"), "solution": pack("ab"), "steps": "0.1.1"},
        {"problem": pack("   ")},
        {"problem": pack("x")[:-3]},
        {"problem": pack("x"), "n": "0"},
        {"problem": pack("x"), "n": "1e3"},
        {"problem": pack("x"), "gamma": "nan"},
        {"problem": pack("x"), "gamma": "2"},
        {"problem": pack("x"), "view": "<script>"},
        {"problem": pack("x"), "chosen": "-1"},
        {"problem": pack("x"), "way": "by chance"},
        {"problem": packed_bomb()},
        {"problem": pack("a" * 20_001)},
        {"problem": base64.urlsafe_b64encode(zlib.compress(b"\xff\xfe")).decode()},
    ],
)
def test_a_damaged_or_hostile_link_is_not_readable(parameters: dict[str, str]) -> None:
    with pytest.raises(LinkError, match="This link is not readable"):
        read(parameters)


def test_an_oversized_link_is_refused_with_the_limit() -> None:
    with pytest.raises(LinkError, match="longer than 6,000 characters"):
        read({"problem": "A" * (MAX_LINK + 1)})


def test_a_page_too_large_for_a_link_says_so() -> None:
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=12_000))
    with pytest.raises(LinkError, match=r"the limit is 6,000\. Send the HTML export"):
        write(Link(noise))


def test_pack_and_unpack_are_inverse() -> None:
    assert [unpack(pack(text)) for text in ("", "a", "\u05d0\x00\n")] == ["", "a", "\u05d0\x00\n"]
