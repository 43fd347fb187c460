"""The house keeps its walls: who may import whom, who may see labels, how large a file may grow.

Everything is read from the source with ``ast``; nothing is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tadp_da", "personalize", "adapt", "benchmarks")
#: Folders of plug-ins: extension is a file in one of them. Their sub-folders hold helpers.
PLUGIN_FOLDERS = (
    "tadp_da.backbones",
    "tadp_da.captions.strategies",
    "tadp_da.domains",
    "tadp_da.heads",
    "tadp_da.tasks",
    "personalize.methods",
    "adapt.objectives",
    "adapt.sources",
    "adapt.students",
    "benchmarks.analyses",
)
#: Lowest first. A module imports from its own layer and those below; the longest prefix decides.
LAYERS = (
    (
        "tadp_da.types",
        "tadp_da.errors",
        "tadp_da.registry",
        "tadp_da.installation",
        "tadp_da.images",
        "tadp_da.class_names",
        "tadp_da.plain_yaml",
        "tadp_da.settings",
        "tadp_da.terminal",
    ),
    (
        "tadp_da.concept",
        "tadp_da.noising",
        "tadp_da.tracking",
        "tadp_da.run",
        "tadp_da.inference",
        "tadp_da.fingerprints",
        "tadp_da.visualize",
        "tadp_da.provenance",
        "tadp_da.storage",
        "tadp_da.training",
        "tadp_da.distributed",
        "tadp_da.mini",
    ),
    ("tadp_da.tasks", "tadp_da.backbones", "tadp_da.captions", "tadp_da.domains"),
    ("tadp_da.heads",),
    (
        "tadp_da.inference",
        "tadp_da.perception_model",
        "tadp_da.text_adapter",
        "tadp_da.model_files",
        "tadp_da.model_card",
        "tadp_da.onnx_export",
        "tadp_da.base_model",
        "tadp_da.custom_dataset",
        "tadp_da.datasets",
        "tadp_da.attention_maps",
        "tadp_da.prediction",
        "tadp_da.playground",
        "tadp_da.mini.pretrain",
        "tadp_da.mini.report",
        "tadp_da.doctor",
    ),
    ("personalize", "adapt"),
    ("benchmarks",),
    ("tadp_da.cli", "tadp_da.api"),
)
#: Neighbours in one layer that never meet.
STRANGERS = (
    "tadp_da.backbones",
    "tadp_da.captions",
    "tadp_da.domains",
    "tadp_da.heads",
    "tadp_da.tasks",
    "personalize",
    "adapt",
)
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 350, 60


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def imports(name: str) -> Iterator[str]:
    """Modules of the project that a module imports, wherever in its text."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports by relative path; write the whole name"
            base = node.module or ""
            found = [f"{base}.{a.name}" if f"{base}.{a.name}" in SOURCES else base for a in node.names]
        else:
            continue
        yield from (module for module in found if module.split(".")[0] in PACKAGES)


def layer(name: str) -> int:
    """Index of the layer that a module belongs to, by the longest name that fits."""
    fits = [
        (len(prefix), index)
        for index, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if name == prefix or name.startswith((f"{prefix}.", f"{prefix}_"))
    ]
    assert fits, f"{name} has no layer; give it a place in LAYERS"
    return max(fits)[1]


def home(name: str) -> str | None:
    """The stage or plug-in folder that a module belongs to."""
    return next((h for h in STRANGERS if name == h or name.startswith(f"{h}.")), None)


def is_plugin(name: str) -> bool:
    """Whether a module registers something by decorator or call."""
    folder = name.rpartition(".")[0]
    return folder in PLUGIN_FOLDERS and any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id
        in (
            "backbones",
            "strategies",
            "domains",
            "heads",
            "tasks",
            "personalizers",
            "objectives",
            "sources",
            "students",
            "analyses",
        )
        for node in ast.walk(TREES[name])
    )


MODULES = [name for name in SOURCES if name != "tadp_da"]


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    for module in imports(name):
        if module != "tadp_da":
            assert layer(module) <= layer(name), f"{name} imports {module}, which lies above it"


@pytest.mark.parametrize("name", [n for n in MODULES if home(n)])
def test_neighbours_never_meet(name):
    for module in imports(name):
        other = home(module)
        assert other is None or layer(module) < layer(name) or other == home(name), f"{name} imports {module}"


def test_plugins_never_import_plugins():
    plugins = {name for name in MODULES if is_plugin(name)}
    assert "tadp_da.backbones.stable_diffusion" in plugins
    assert not any(name.rpartition(".")[2].startswith("_") for name in plugins), (
        "the registry skips files with _"
    )
    met = {
        (name, module)
        for name in MODULES
        if home(name) in STRANGERS or name in plugins
        for module in imports(name)
    }
    assert {(name, module) for name, module in met if module in plugins and module != name} == set()


def test_there_is_no_circle_of_imports():
    """Wherever in its text a module imports another: a late import hides a circle, it does not remove it."""
    waiting = {name: {m for m in imports(name) if m in SOURCES and m != name} for name in SOURCES}
    while free := [name for name, needed in waiting.items() if not needed & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting, f"these import each other in a circle, or what does: {', '.join(sorted(waiting))}"


def test_the_package_itself_imports_only_the_check_of_the_installation():
    eager = [node for node in TREES["tadp_da"].body if isinstance(node, ast.Import | ast.ImportFrom)]
    ours = [node.module for node in eager if getattr(node, "module", "").startswith(PACKAGES)]
    assert ours == ["tadp_da.installation"], "import tadp_da must stay instant"


def test_nobody_imports_the_front_door():
    guests = {name for name in MODULES for module in imports(name) if module.startswith("tadp_da.cli")}
    assert {name for name in guests if not name.startswith("tadp_da.cli")} == set()


def _words(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]
        elif isinstance(node, ast.arg):
            yield node.arg


@pytest.mark.parametrize("name", [n for n in MODULES if home(n) == "personalize"])
def test_personalization_never_says_labeled(name):
    assert {"labeled", "Labeled", "Example"}.isdisjoint(_words(TREES[name]))


#: The only callers of ``Domain.labeled``: stage 2 and distillation refuse the test split, stage 3 hands its examples to
#: evaluate(), and analyses describe finished models.
READERS_OF_LABELS = {
    "adapt.stage",
    "adapt.distillation",
    "benchmarks.scoring",
    "benchmarks.analyses.shared.images",
}


def test_only_analyses_read_labels_for_analyses():
    readers = {name for name in MODULES if "benchmarks.analyses.shared.images" in imports(name)}
    assert readers
    assert all(name.startswith("benchmarks.analyses.") for name in readers)


def test_labels_are_read_in_three_places_only():
    """Labels are opened when an example is taken, so who may ask for examples decides who may see labels."""
    callers = {
        name
        for name in MODULES
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "labeled"
    }
    assert callers == READERS_OF_LABELS


def test_scoring_does_nothing_with_test_labels_but_hand_them_to_evaluate():
    tree = TREES["benchmarks.scoring"]
    (held,) = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        if isinstance(node.value.func, ast.Attribute) and node.value.func.attr == "labeled"
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    uses = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == held and isinstance(node.ctx, ast.Load)
    ]
    handed = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "evaluate"
        for argument in node.args
    }
    scope = next(
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_score"
    )
    inside = {id(node) for node in ast.walk(scope)}
    assert [node for node in uses if id(node) in inside and id(node) not in handed] == []


@pytest.mark.parametrize("name", SOURCES)
def test_files_and_functions_stay_small(name):
    lines = len(SOURCES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{name} has {lines} lines; find the second thing it is about"
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length < MOST_LINES_OF_A_FUNCTION, f"{name}.{node.name} has {length} lines"
