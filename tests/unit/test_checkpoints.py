"""Atomic saves, verification of hostile directories, and finding checkpoints."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from irl_core.checkpoints import manifest, save
from irl_core.checkpoints.find import (
    CheckpointInfo,
    default_roots,
    list_checkpoints,
    newest_verified,
    resolve_checkpoint,
)
from irl_core.checkpoints.load import load_json, load_tensors
from irl_core.checkpoints.manifest import verify
from irl_core.checkpoints.save import save_checkpoint
from irl_core.errors import CheckpointError

REPOSITORY = Path(__file__).resolve().parents[2]
# A whole safetensors file by hand: 8 bytes of header length, the header, one float32 1.0 (0x3f800000, little-endian).
HEADER = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
TENSORS = len(HEADER).to_bytes(8, "little") + HEADER + b"\x00\x00\x80\x3f"


def config(**more: Any) -> dict[str, Any]:
    return {"format": 1, "name": "demo", "kind": "tiny", "head": "anchored", "provenance": {"seed": 7}} | more


def files(mark: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "config.json": config(),
        "policy/config.json": {"model_type": "llama"},
        "policy/model.safetensors": TENSORS,
        "training/state.json": {"mark": mark},
    } | more


def mark_of(path: Path) -> Any:
    return json.loads((path / "training/state.json").read_text())["mark"]


def forge(directory: Path, name: str, content: bytes) -> None:
    """Put a file in place *with* a matching manifest entry, as someone who hands on a crafted checkpoint would."""
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(content)
    document = json.loads((directory / "manifest.json").read_text())
    document["files"][name] = hashlib.sha256(content).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(document))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    directory = tmp_path / "runs" / "demo"
    save_checkpoint(directory, files())
    return directory


def test_save_then_verify_gives_the_hashes_of_what_was_written(saved: Path) -> None:
    found = verify(saved)
    assert sorted(found.files) == sorted(files())
    assert found.files["policy/model.safetensors"] == hashlib.sha256(TENSORS).hexdigest()
    assert found.created.endswith("+00:00")
    assert sorted(path.name for path in saved.parent.iterdir()) == ["demo"]  # no .new, no .old left


def test_tensors_and_json_come_back_equal(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = {"head": torch.tensor([[0.5, -1.25]]), "step": torch.tensor(3)}
    save_checkpoint(tmp_path / "c", files(**{"discriminator/head.safetensors": tensors}))
    back = load_tensors(tmp_path / "c/discriminator/head.safetensors")
    assert back["head"].tolist() == [[0.5, -1.25]] and back["step"].item() == 3
    assert load_json(tmp_path / "c/training/state.json") == {"mark": "a"}


def test_a_path_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "tokenizer.json"
    source.write_bytes(b"{}" * 3)
    save_checkpoint(tmp_path / "c", files(**{"tokenizer.json": source}))
    assert (tmp_path / "c/tokenizer.json").read_bytes() == b"{}{}{}"


def test_importing_the_module_imports_no_torch() -> None:
    code = "import sys, irl_core.checkpoints; print([m for m in ('torch', 'safetensors') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------- hostile contents


class Marker:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["policy/pytorch_model.bin", "a.pt", "a.pkl", "training/a.ckpt", "a.PTH"])
def test_a_pickle_is_refused_and_not_run(saved: Path, tmp_path: Path, name: str) -> None:
    import pickle

    forge(saved, name, pickle.dumps(Marker(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match=r"pickled weights can run code and are refused; convert them"):
        verify(saved)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_called_safetensors_is_refused_and_not_run(saved: Path, tmp_path: Path) -> None:
    import pickle

    path = saved / "policy/model.safetensors"
    forge(saved, "policy/model.safetensors", pickle.dumps(Marker(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match=r"policy/model\.safetensors: header of"):
        verify(saved)
    with pytest.raises(CheckpointError, match=r"^model\.safetensors: header of"):
        load_tensors(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["policy/config.json", "tokenizer_config.json", "discriminator/adapter_config.json"])
def test_auto_map_in_any_configuration_is_refused(saved: Path, name: str) -> None:
    forge(saved, name, json.dumps({"deep": [{"auto_map": {"AutoModel": "evil.Model"}}]}).encode())
    with pytest.raises(CheckpointError, match=f"^{name}: the key 'auto_map' would load code"):
        verify(saved)


def test_auto_map_is_refused_at_the_save_too(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"policy/config\.json: the key 'auto_map'"):
        save_checkpoint(tmp_path / "c", files(**{"policy/config.json": {"auto_map": {}}}))
    assert list(tmp_path.iterdir()) == []


def test_python_code_is_no_part_of_a_checkpoint(saved: Path) -> None:
    forge(saved, "policy/modeling_evil.py", b"print(1)")
    with pytest.raises(CheckpointError, match=r"policy/modeling_evil\.py: only \.jinja, "):
        verify(saved)


def test_wrong_hash_is_named_and_truncation_is_named(saved: Path) -> None:
    path = saved / "policy/model.safetensors"
    path.write_bytes(TENSORS[:-1] + b"\x40")
    with pytest.raises(CheckpointError, match=r"^policy/model\.safetensors: its sha256 is not the manifest's"):
        verify(saved)
    assert verify(saved, hashes=False).files  # the quick look does not read contents
    path.write_bytes(TENSORS[:-2])
    # 8 + 54 + 4 = 66 bytes whole, 64 truncated by 2
    assert len(TENSORS) == 66
    with pytest.raises(CheckpointError, match=r"64 bytes, its header says 66; truncated or padded"):
        verify(saved)
    path.write_bytes(TENSORS[:20])
    with pytest.raises(CheckpointError, match="truncated at 20 bytes, inside its header"):
        verify(saved, hashes=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((100_000_001).to_bytes(8, "little") + b"{}", "header of 100,000,001 bytes; the limit is 100,000,000"),
        (b"\xff" * 8 + b"{}", "header of 18,446,744,073,709,551,615 bytes"),
        (b"", "truncated at 0 bytes"),
        ((2).to_bytes(8, "little") + b"[]", "holds list; a JSON object is needed"),
        ((9).to_bytes(8, "little") + b'{"a":"b"}', "not a safetensors header"),
        ((28).to_bytes(8, "little") + b'{"a":{"data_offsets":[1,4]}}' + b"1234", "leave a gap at byte 0"),
        ((28).to_bytes(8, "little") + b'{"a":{"data_offsets":[0,4]}}' + b"12345", "41 bytes, its header says 40"),
        ((3000).to_bytes(8, "little") + b"[" * 3000, "not readable as JSON"),
    ],
)
def test_broken_safetensors_headers(saved: Path, content: bytes, message: str) -> None:
    forge(saved, "policy/model.safetensors", content)
    with pytest.raises(CheckpointError, match=message):
        verify(saved)


def test_files_outside_the_manifest_and_missing_files_are_named(saved: Path) -> None:
    (saved / "notes.txt").write_text("extra")
    with pytest.raises(CheckpointError, match=r"'notes\.txt' is not in the manifest"):
        verify(saved)
    (saved / "notes.txt").unlink()
    (saved / "training/state.json").unlink()
    with pytest.raises(CheckpointError, match=r"training/state\.json is missing"):
        verify(saved)


def test_symbolic_links_and_pipes_are_refused(saved: Path, tmp_path: Path) -> None:
    link = saved / "training/link.json"
    link.symlink_to("/etc/hostname")
    with pytest.raises(CheckpointError, match=r"'training/link\.json' is a symbolic link"):
        verify(saved)
    link.unlink()
    os.mkfifo(link)
    with pytest.raises(CheckpointError, match="neither a file nor a folder"):
        verify(saved)
    link.unlink()
    (saved / "folder").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(CheckpointError, match="'folder' is a symbolic link"):
        verify(saved)
    (tmp_path / "alias").symlink_to(saved)
    with pytest.raises(CheckpointError, match="behind a symbolic link"):
        verify(tmp_path / "alias")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.json",
        "/etc/secret.json",
        "a/../../secret.json",
        "secret\x00.json",
        "a//secret.json",
        "..\\secret.json",
        "",
    ],
)
def test_names_that_lead_out_are_refused_and_not_echoed(saved: Path, name: str) -> None:
    document = json.loads((saved / "manifest.json").read_text())
    document["files"][name] = "0" * 64
    (saved / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError) as caught:
        verify(saved)
    assert "leads outside it" in str(caught.value) and "secret" not in str(caught.value)
    with pytest.raises(CheckpointError, match="leads outside it"):
        save_checkpoint(saved, files(**{name: b"x"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hed": "linear"}, "config.json: unknown key 'hed'; nearest is 'head'"),
        ({"format": 2}, "config.json: format 2; this version reads format 1"),
        ({"kind": "pickle"}, "kind is 'pickle'; one of tiny, transformers is expected"),
        ({"name": 5}, r"config.json: name is 5 \(a whole number\); text is expected"),
        ({"name": "x" * 201}, "name has 201 characters; the limit is 200"),
        ({"instruction": ["Think."]}, r"instruction is .* \(a list\); text is expected"),
        ({"instruction": "x" * 20_001}, "instruction has 20,001 characters; the limit is 20,000"),
        ({"provenance": "mine"}, "config.json: provenance is 'mine'"),
        ({"train_config": {"model": 5}}, "config.json: train_config.model is 5"),
        ({"reference": {"mean": 0.0}}, "config.json: reference.std is missing"),
        ({"reference": {"mean": 0.0, "std": -1.0}}, r"reference.std is -1.0; it must lie in \[0, inf\)"),
        ({"reference": {"mean": "0", "std": 1.0}}, r"reference.mean is '0' \(text\); a number is expected"),
        ({"reference": {"mean": 0, "std": 1, "prompt_logprob_quantiles": [[2.0, 0.0]]}}, "it must lie in"),
        ({"reference": {"mean": 0, "std": 1, "prompt_logprob_quantiles": [[0.5]]}}, "has 1 entries; 2 are expected"),
        ({"localisation": [1]}, "config.json: localisation is"),
    ],
)
def test_the_checkpoints_own_configuration(saved: Path, change: dict[str, Any], message: str) -> None:
    forge(saved, "config.json", json.dumps(config(**change)).encode())
    with pytest.raises(CheckpointError, match=message):
        verify(saved)
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(saved.with_name("other"), files(**{"config.json": config(**change)}))


@pytest.mark.parametrize("text", ["", "null", "[]", '{"format": 1}', '{"format": 9, "files": {}}', "[" * 100_000])
def test_a_broken_manifest_is_an_error_of_ours(saved: Path, text: str) -> None:
    (saved / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"^manifest\.json"):
        verify(saved)


def test_too_large_json_is_refused_before_it_is_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_JSON_BYTES", 1_000)
    forge(saved, "tokenizer.json", b"[" + b" " * 1_000)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: 1,001 bytes; the limit is 1,000"):
        verify(saved)


# ---------------------------------------------------------------------------------------------------- finding


def test_resolve_finds_by_name_and_by_path_inside_a_root(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = saved.parent
    assert resolve_checkpoint("demo", [root]) == saved
    assert resolve_checkpoint(str(saved), [root]) == saved
    assert resolve_checkpoint("demo", [saved]) == saved  # a root that is itself a checkpoint
    monkeypatch.chdir(root.parent)
    assert resolve_checkpoint("runs/demo", [Path("runs")]) == saved


@pytest.mark.parametrize("asked", ["../secret", "a/../../secret", "..", "", "secret\x00", "/secret", "..\\secret"])
def test_resolve_refuses_what_leads_out_without_echo(saved: Path, asked: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint(asked, [saved.parent])
    assert "secret" not in str(caught.value)
    assert "refused" in str(caught.value) or "outside the allowed folders" in str(caught.value)


def test_resolve_refuses_a_link_out_and_names_what_there_is(saved: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "secret").symlink_to(saved)
    with pytest.raises(CheckpointError, match="outside the allowed folders") as caught:
        resolve_checkpoint("secret", [root])
    assert "secret" not in str(caught.value)
    with pytest.raises(CheckpointError, match="no checkpoint of that name; there are: demo"):
        resolve_checkpoint("dmeo", [saved.parent])
    assert list_checkpoints([root]) == []


def test_list_tells_the_damaged_from_the_whole(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", files())
    save_checkpoint(tmp_path / "run/checkpoints/step-2", files())
    (tmp_path / "run/checkpoints/step-2/training/state.json").write_text("{}")
    whole, damaged = list_checkpoints([tmp_path, tmp_path / "missing"])
    assert (whole.name, whole.verified, whole.provenance) == ("a", True, {"seed": 7})
    assert (damaged.name, damaged.verified) == ("run/checkpoints/step-2", False)
    assert damaged.reason.startswith("training/state.json: its sha256")
    assert resolve_checkpoint(damaged.name, [tmp_path]) == damaged.path


def test_default_roots_come_from_the_environment() -> None:
    roots = default_roots({"IRL_LENS_CHECKPOINTS": f"/models{os.pathsep}/more"})
    assert roots == (REPOSITORY / "assets", Path("runs"), Path("/models"), Path("/more"))


# --------------------------------------------------------------------------------------- interruption, disk full


def test_newest_is_the_highest_number_and_passes_over_the_damaged(tmp_path: Path) -> None:
    for step in (90, 100, 1000):
        save_checkpoint(tmp_path / f"step-{step}", files(str(step)))
    (tmp_path / "step-1000/policy/model.safetensors").write_bytes(TENSORS[:-1])
    (tmp_path / "step-1001").mkdir()
    (tmp_path / "samples").mkdir()
    path, passed_over = newest_verified(tmp_path)
    assert path == tmp_path / "step-100"
    assert [line.partition(":")[0] for line in passed_over] == ["step-1001", "step-1000"]
    assert "truncated" in passed_over[1]


def test_no_checkpoint_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no whole checkpoint to resume from"):
        newest_verified(tmp_path)


def test_keep_leaves_the_newest_of_the_family_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best", files())
    (tmp_path / "step-notes-1").mkdir()
    for step in (8, 9, 10, 11):
        save_checkpoint(tmp_path / f"step-{step}", files(str(step)), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "step-10", "step-11", "step-notes-1"]
    with pytest.raises(CheckpointError, match="keep is 0"):
        save_checkpoint(tmp_path / "step-12", files(), keep=0)


CHILD = textwrap.dedent(
    """
    import os, signal, sys
    sys.path.insert(0, {repository!r})
    from pathlib import Path
    from irl_core.checkpoints.save import save_checkpoint
    calls, limit = 0, int(sys.argv[2])
    def counted(real):
        def call(*args, **kwargs):
            global calls
            calls += 1
            if calls == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        return call
    for name in ("replace", "fsync", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    config = {{"format": 1, "name": "demo", "kind": "tiny", "head": "anchored"}}
    files = {{"config.json": config, "training/state.json": {{"mark": "new"}}, "policy/model.safetensors": {tensors!r}}}
    save_checkpoint(Path(sys.argv[1]), files, keep=1)
    print(calls)
    """
)


def run_child(target: Path, limit: int) -> subprocess.CompletedProcess[str]:
    code = CHILD.format(repository=str(REPOSITORY), tensors=TENSORS)
    return subprocess.run(
        [sys.executable, "-c", code, str(target), str(limit)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("target", ["step-1", "step-2"], ids=["replacing", "beside"])
def test_kill_at_every_point_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path, target: str) -> None:
    seen = set()
    for limit in range(1, 100):
        run = tmp_path / str(limit)
        save_checkpoint(run / "step-1", files("old"))
        child = run_child(run / target, limit)
        path, _ = newest_verified(run)
        seen.add(mark_of(path))
        assert mark_of(path) in ("old", "new")
        save_checkpoint(run / target, files("again"), keep=1)  # the next save mends everything
        assert mark_of(newest_verified(run)[0]) == "again"
        assert [entry.name for entry in run.iterdir()] == [target]
        if child.returncode == 0:
            # files, folders and manifest synced, renames, removals: every one of these calls was a point of death
            assert int(child.stdout) == limit - 1 >= 10
            break
        assert child.returncode == -signal.SIGKILL, child.stderr
    else:
        pytest.fail("the child never finished")
    assert seen == {"old", "new"}


def test_killed_between_the_renames_the_new_one_is_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "step-1", files("old"))
    os.replace(tmp_path / "step-1", tmp_path / "step-1.old")
    save_checkpoint(tmp_path / "step-2", files("new"))
    os.replace(tmp_path / "step-2", tmp_path / "step-1.new")
    path, _ = newest_verified(tmp_path)
    assert (path.name, mark_of(path)) == ("step-1.new", "new")
    (path / "training/state.json").unlink()
    path, passed_over = newest_verified(tmp_path)
    assert (path.name, mark_of(path)) == ("step-1.old", "old")
    assert passed_over == ["step-1.new: training/state.json is missing; copy the checkpoint anew, whole"]


class FullDisk:
    """A file that takes ``left`` writes and then has no space."""

    def __init__(self, real: Any, left: int) -> None:
        self.real, self.left = real, left

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.real.close()

    def write(self, data: bytes) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.real.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.mark.parametrize("left", [0, 1])
def test_disk_full_keeps_the_earlier_checkpoint_and_names_the_mend(
    saved: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    real_open = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        opened = real_open(path, mode, *args, **kwargs)
        return FullDisk(opened, left if path.name == "manifest.json" else 0) if "x" in mode else opened

    monkeypatch.setattr(Path, "open", full)
    for target in (saved, saved.with_name("other")):
        with pytest.raises(CheckpointError, match=r"was not saved .*the disk is full: free space or lower run\.keep"):
            save_checkpoint(target, files("new"))
    monkeypatch.undo()
    assert [path.name for path in saved.parent.iterdir()] == ["demo"]
    assert verify(saved) and mark_of(saved) == "a"


def test_a_failed_rename_puts_the_earlier_one_back(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.replace, []

    def failing(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EACCES, "Permission denied")
        real(source, target)

    monkeypatch.setattr(save.os, "replace", failing)
    with pytest.raises(CheckpointError, match="check that the folder exists and may be written to"):
        save_checkpoint(saved, files("new"))
    assert [path.name for path in saved.parent.iterdir()] == ["demo"]
    assert mark_of(saved) == "a"


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"notes\.txt: cannot write str; give bytes"):
        save_checkpoint(tmp_path / "c", files(**{"notes.txt": "text"}))
    with pytest.raises(CheckpointError, match=r"x\.json: is not JSON"):
        save_checkpoint(tmp_path / "c", files(**{"x.json": {"a": object()}}))
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        save_checkpoint(tmp_path / "c", {"x.json": {}})
    with pytest.raises(CheckpointError, match="ends like a half-finished save"):
        save_checkpoint(tmp_path / "c.new", files())
    assert list(tmp_path.iterdir()) == []


def test_a_second_save_of_the_same_name_is_refused_and_takes_nothing_from_the_first(tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    first = tmp_path / "mine.new"
    with save.claimed(first, "mine"):
        (first / "half.json").write_text("{}")
        for _ in range(2):
            with pytest.raises(CheckpointError, match="'mine' is being saved by another process; wait for it"):
                save_checkpoint(directory, files())
        assert [path.name for path in first.iterdir()] == ["half.json"]
    save_checkpoint(directory, files())  # the first one ended without it: what it left is removed
    assert verify(directory) and not first.exists()


def test_where_a_checkpoint_comes_from_is_told_in_words() -> None:
    told = CheckpointInfo("a", Path("a"), True, "", {"seed": 11, "anchored": {"weight": 0.5, "code_version": "0.1.0"}})
    assert told.origin == {"seed": "11", "log-probability added after the training": "weight 0.5, version 0.1.0"}
    assert CheckpointInfo("a", Path("a"), True).origin == {}
