"""Imports go down: which room may import which, and no room a command."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "support": set(),
    "media": {"support"},
    "models": {"media", "support"},
    "training": {"models", "media", "support", "DatasetLoader"},
    "verification": {"models", "media", "support"},
    "inference": {"verification", "models", "media", "support"},
}
OURS = set(MAY_IMPORT) | {path.stem for path in ROOT.glob("*.py")}


def imported(path: Path) -> set[str]:
    """The rooms and top-level files of ours that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.split(".")[0] for name in names} & OURS


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_go_down(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        assert imported(path) <= MAY_IMPORT[room] | {room}, path
