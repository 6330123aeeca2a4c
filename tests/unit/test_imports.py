"""The direction of imports, read from the source: pure modules below, models above, entry points on top."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = {
    "types", "config", "config_values", "segmentation", "layouts", "carry", "answers", "expressions", "perturbations",
    "sums", "departure", "verifiable", "arithmetic", "rewards", "losses", "localisation", "metrics", "choosing",
    "correlations", "intervals", "signals", "word_problems",
}  # fmt: skip
MIDDLE = {"datasets", "json_rows", "encoding", "discriminator", "policy", "packing"}
HEAVY = {"torch", "transformers", "datasets", "peft", "accelerate", "streamlit", "plotly", "unsloth", "bitsandbytes"}
NOT_IN_CORE = {"train", "app", "streamlit", "plotly", "unsloth", "bitsandbytes", "wandb"}


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """The full names of the modules that a file imports; ``top_level``: only those imported when it is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _loaded(tree) if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _loaded(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when a module is loaded: not in functions, not under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from _loaded(node)


def packages(path: Path, **options: bool) -> set[str]:
    return {name.split(".")[0] for name in imported(path, **options)}


def core_modules(path: Path) -> set[str]:
    """The modules of irl_core that a file imports, by their first name."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("irl_core.")}


def pure_files() -> list[Path]:
    return [path for path in files("irl_core") if path.relative_to(ROOT / "irl_core").parts[0].split(".")[0] in PURE]


def test_the_rules_are_read_from_something() -> None:
    assert len(files("irl_core")) > 10 and len(pure_files()) > 5


@pytest.mark.parametrize("path", files("irl_core"), ids=lambda path: path.stem)
def test_the_library_knows_no_entry_point_and_no_page(path: Path) -> None:
    assert not packages(path) & NOT_IN_CORE


@pytest.mark.parametrize("path", pure_files(), ids=lambda path: path.stem)
def test_pure_modules_know_neither_models_nor_data_sets(path: Path) -> None:
    assert not packages(path) & {"transformers", "datasets", "peft"}
    above = core_modules(path) - PURE
    assert not above, f"{path.name} imports {above} from above"


@pytest.mark.parametrize("name", ["rewards", "losses"])
def test_the_mathematics_needs_torch_alone(name: str) -> None:
    outside = packages(ROOT / "irl_core" / f"{name}.py") - set(sys.stdlib_module_names) - {"__future__"}
    assert outside <= {"torch", "irl_core"}


@pytest.mark.parametrize("name", sorted(MIDDLE))
def test_models_and_data_do_not_know_what_is_made_of_them(name: str) -> None:
    path = ROOT / "irl_core" / f"{name}.py"
    if path.exists():
        assert not core_modules(path) & {"adversarial", "store", "inspection", "supervised"}


@pytest.mark.parametrize("path", files("app"), ids=lambda path: path.stem)
def test_the_app_starts_training_as_a_process_and_never_imports_it(path: Path) -> None:
    assert "train" not in packages(path)


@pytest.mark.parametrize("path", files("app/views"), ids=lambda path: path.stem)
def test_views_reach_models_only_through_services(path: Path) -> None:
    assert not packages(path) & {"torch", "transformers"}
    assert not core_modules(path) & {"discriminator", "policy", "encoding"}
    assert not set(imported(path)) & {"irl_core.inspection.Lens", "irl_core.checkpoints.load_tensors"}


@pytest.mark.parametrize(
    "path", [*files("app"), ROOT / "train/cli.py", ROOT / "irl_core/inspection.py"], ids=lambda path: path.stem
)
def test_nothing_heavy_is_imported_before_it_is_needed(path: Path) -> None:
    allowed = {"streamlit", "plotly"} if "app" in path.relative_to(ROOT).parts else set()
    assert not (packages(path, top_level=True) & HEAVY) - allowed


@pytest.mark.parametrize(
    "path", [*files("irl_core", "train", "app"), *files("benchmarks")], ids=lambda path: str(path.relative_to(ROOT))
)
def test_nothing_executes_or_unpickles(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not calls & {"eval", "exec", "torch.load", "os.system"}
    assert not packages(path) & {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "unsafe_allow_html", "shell"):
            assert ast.unparse(node.value) == "False", f"{path.name}: {node.arg}"


@pytest.mark.parametrize("module", ["irl_core.inspection", "irl_core.checkpoints", "irl_core.config", "train.cli"])
def test_modules_load_without_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'streamlit'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
