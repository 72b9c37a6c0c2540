"""Imports go down: which room may import which, no room a command, and none in a circle.

`python tests/test_rooms.py` prints the picture: floors, rooms, circles, the longest files. With a folder, of the
project there.
"""

import ast
import dataclasses
import functools
import graphlib
import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {  # room -> rooms
    "support": set(),
    "media": {"support"},
    "tracks": {"media", "support"},
    "demo": {"media"},
    "networks": {"media", "support"},
    "compute": {"networks", "media", "support"},
    "checkpoints": {"networks", "support"},
    "loading": {"media", "compute", "support"},
    "verification": {"checkpoints", "compute", "networks", "media", "support"},
    "training": {
        *("verification", "loading", "checkpoints", "compute", "networks", "media", "support"),
        *("DatasetLoader", "SyncNetDist"),
    },
    "inference": {"verification", "compute", "checkpoints", "networks", "tracks", "media", "support"},
}


def product(root: Path) -> dict[str, Path]:
    """Our modules -> their files: those at the top level, the rooms of syncnet/, and the networks of models/."""
    files = [
        *root.glob("*.py"),
        *root.glob("syncnet/*.py"),
        *root.glob("syncnet/*/*.py"),
        *root.glob("models/*.py"),
    ]
    names = {path: path.relative_to(root).with_suffix("").parts for path in sorted(files)}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in names.items()}


def room_of(module: str) -> str:
    """The room of a module of syncnet/; of others, the name itself."""
    return module.split(".")[1] if module.startswith("syncnet.") else module.split(".")[0]


@functools.cache
def imports(root: Path) -> dict[str, set[str]]:
    """Each of our modules -> those of ours that it imports, anywhere in it: those for hints only, too."""
    modules = product(root)
    found = {}
    for module, path in modules.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[module] = names & modules.keys()
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in turn, the first one again at the end; [] if there are none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_go_down(room):
    modules = {module: names for module, names in imports(ROOT).items() if room_of(module) == room}
    assert modules
    for module, names in modules.items():
        assert {room_of(name) for name in names} - {"syncnet"} <= MAY_IMPORT[room] | {room}, module


def test_no_import_goes_in_a_circle():
    assert circle(imports(ROOT)) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})  # one would be found


def dataclasses_with_arrays(root: Path) -> set[type]:
    """Our dataclasses with a field that holds arrays or tensors, directly or inside another one of these."""
    modules = {name: importlib.import_module(name) for name in product(root)}
    classes = {
        one
        for name, module in modules.items()
        for one in vars(module).values()
        if inspect.isclass(one) and dataclasses.is_dataclass(one) and one.__module__ == name
    }
    found: set[type] = set()
    while True:
        holders = {"ndarray", "Tensor"} | {one.__name__ for one in found}
        more = {
            one
            for one in classes
            if any(holders & set(re.findall(r"\w+", str(field.type))) for field in dataclasses.fields(one))
        }
        if more == found:
            return found
        found = more


def test_dataclasses_with_arrays_compare_by_identity():
    classes = dataclasses_with_arrays(ROOT)
    assert {"Face", "OpenTrack", "Trials"} <= {one.__name__ for one in classes}
    assert {one for one in classes if one.__eq__ is not object.__eq__} == set()


def print_picture(root: Path) -> None:
    """Print the floors of the house, from the ground up, and what stands out."""
    graph, modules = imports(root), product(root)
    circles = 0
    while found := circle(graph):
        circles += 1
        print("circle:", " <- ".join(found))
        graph[found[1]] -= {found[0]}
    sorter = graphlib.TopologicalSorter(graph)
    sorter.prepare()
    floor = 0
    while sorter.is_active():
        ready = sorter.get_ready()
        sorter.done(*ready)
        floor += 1
        print(f"floor {floor}: {' '.join(sorted(ready))}")
    lines = {module: len(path.read_text().splitlines()) for module, path in modules.items()}
    for room in MAY_IMPORT:
        if inside := [module for module in modules if room_of(module) == room]:
            below = {room_of(name) for module in inside for name in graph[module]} - {room, "syncnet"}
            total = sum(lines[module] for module in inside)
            print(
                f"{room}: {len(inside)} files, {total} lines; imports {' '.join(sorted(below)) or 'nothing'}"
            )
    longest = sorted(lines, key=lines.__getitem__, reverse=True)[:5]
    print(f"files at the top level: {sum('.' not in module for module in modules)}; circles: {circles}")
    print("longest:", ", ".join(f"{module} {lines[module]}" for module in longest))


if __name__ == "__main__":
    print_picture(Path(sys.argv[1]) if sys.argv[1:] else ROOT)
