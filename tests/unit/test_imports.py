"""The direction of imports, read from the source: pure modules below, models above, entry points on top."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The rooms of irl_core from the bottom up: a module imports from its own level and from those before it.
LEVELS = (
    {
        "types",
        "errors",
        "files",
        "home",
        "sqlite",
        "progress",
        "config",
        "config_checks",
        "settings",
        "presets",
        "validation",
        "distributed",
        "methods",
    },
    {"text", "statistics"},
    {"data", "checkpoints"},
    {"models", "reward"},
    {"policy", "training", "storage"},
    {"evaluation"},
    {"report"},
    {"scorer"},
    {"reward_function", "notebook", "strategies"},
)
PURE = ("text", "statistics")  # know neither torch nor transformers
MOST_FILES = 20  # side by side in a folder
MOST_LINES = 400  # in a file
HEAVY = {"torch", "transformers", "datasets", "peft", "accelerate", "streamlit", "plotly", "unsloth", "bitsandbytes"}
NOT_IN_CORE = {"train", "app", "streamlit", "unsloth", "bitsandbytes", "wandb"}


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


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in files("irl_core", "train", "app")}


def neighbours(path: Path) -> set[str]:
    """The modules of this repository that a file imports, wherever in the file; not the packages around them."""
    found = set(imported(path)) & set(MODULES)
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)} - {module_of(path)}


def level(module: str) -> int:
    room = module.split(".")[1]
    return next(number for number, rooms in enumerate(LEVELS) if room in rooms)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The cycles of an import graph, one a strongly connected component, each with a way round it."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [error.args[1]]
    return []


def test_the_rules_are_read_from_something() -> None:
    assert len(MODULES) > 150 and "irl_core.training.adversarial" in MODULES
    assert neighbours(MODULES["irl_core.training.adversarial"]) >= {"irl_core.training.discriminator_step"}
    assert circles({"a": {"b"}, "b": {"a"}}) and not circles({"a": {"b"}, "b": set()})


@pytest.mark.parametrize("path", files("irl_core"), ids=lambda path: path.stem)
def test_the_library_knows_no_entry_point_and_no_page(path: Path) -> None:
    assert not packages(path) & NOT_IN_CORE
    if "charts" not in path.parts:
        assert "plotly" not in packages(path), "plotly belongs to irl_core/report/charts"


@pytest.mark.parametrize("name", [name for name in MODULES if name.count(".") and name.startswith("irl_core.")])
def test_rooms_import_only_from_below(name: str) -> None:
    above = {
        other for other in neighbours(MODULES[name])
        if other.startswith("irl_core.") and level(other) > level(name)
    }  # fmt: skip
    assert not above, f"{name} imports {above} from above"


def test_no_module_imports_itself_in_a_circle() -> None:
    assert circles({name: neighbours(path) for name, path in MODULES.items()}) == []


@pytest.mark.parametrize("path", files(*(f"irl_core/{room}" for room in PURE)), ids=lambda path: path.stem)
def test_pure_rooms_know_no_models(path: Path) -> None:
    assert not packages(path) & {"torch", "transformers", "datasets", "peft"}


@pytest.mark.parametrize("name", ["reward/rewards", "training/losses"])
def test_the_mathematics_needs_torch_alone(name: str) -> None:
    outside = packages(ROOT / "irl_core" / f"{name}.py") - set(sys.stdlib_module_names) - {"__future__"}
    assert outside <= {"torch", "irl_core"}


@pytest.mark.parametrize("path", files("train"), ids=lambda path: path.stem)
def test_training_knows_no_page(path: Path) -> None:
    assert "app" not in packages(path)


@pytest.mark.parametrize("path", files("app"), ids=lambda path: path.stem)
def test_the_app_starts_training_as_a_process_and_only_plans_it(path: Path) -> None:
    of_train = {name for name in imported(path) if name.split(".")[0] == "train"}
    assert all(name.startswith("train.planning") for name in of_train - {"train"})


def defined_and_imported(path: Path) -> tuple[set[str], set[str]]:
    """The names that a module defines at its top, and those that it takes from modules of this repository."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined, taken = set(), set()
    for node in _loaded(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("irl_core", "train", "app"):
            taken |= {alias.asname or alias.name for alias in node.names}
    defined |= {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    return defined, taken


@pytest.mark.parametrize(
    "path", files("irl_core", "train", "app", "tests", "benchmarks"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_name_is_imported_from_its_home(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            defined, taken = defined_and_imported(MODULES[node.module])
            modules = {name.rpartition(".")[2] for name in MODULES if name.rpartition(".")[0] == node.module}
            elsewhere = ({alias.name for alias in node.names} & (taken - defined)) - modules
            assert not elsewhere, f"line {node.lineno}: {elsewhere} have their home elsewhere than in {node.module}"


def test_no_folder_is_crowded() -> None:
    counts = Counter(path.parent for path in MODULES.values())
    assert {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > MOST_FILES} == {}


def test_no_file_is_long() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES.values()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


@pytest.mark.parametrize("path", files("app/views"), ids=lambda path: path.stem)
def test_views_reach_models_only_through_services(path: Path) -> None:
    assert not packages(path) & {"torch", "transformers"}
    assert not any(
        name.startswith(("irl_core.models", "irl_core.policy", "irl_core.reward.discriminator"))
        for name in imported(path)
    )
    assert not set(imported(path)) & {"irl_core.scorer.Lens", "irl_core.checkpoints.load.load_tensors"}


@pytest.mark.parametrize("path", [*files("app", "train/cli"), ROOT / "irl_core/scorer.py"], ids=lambda path: path.stem)
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


@pytest.mark.parametrize(
    "module",
    ["irl_core.scorer", "irl_core.checkpoints.find", "irl_core.checkpoints.save", "irl_core.config", "train.cli.main"],
)
def test_modules_load_without_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'streamlit'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_checks_no_configuration() -> None:
    code = "import sys, train.cli.main; print(sorted({'pydantic', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
