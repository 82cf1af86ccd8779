"""Data flow one way: no room imports from one to its right, and the backends are known in one place."""

import ast
from pathlib import Path

import pytest

import poise

SOURCE = Path(poise.__file__).parent
ORDER = [
    ("_backend", "_keras_internals", "_version", "files"),
    ("escaping", "penalties"),
    ("layer_state",),
    ("rules",),
    ("optimizer",),
    ("diagnostics",),
    ("callbacks", "adoption", "compaction"),
    ("path",),
    ("study",),
    ("cli",),
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
BACKENDS = {"jax", "tensorflow", "torch"}
KNOWING = ["diagnostics/gradients.py", "optimizer/distribution.py"]
"""The files that import them."""
PRIVATE = {
    "_keras_internals.py": ["keras.src.models.functional", "keras.src.saving.keras_saveable"],
    "path/model_config.py": ["keras.src.utils"],
}
"""What has no public name: functional models, the base class of what Keras saves, and whether Keras may import TensorFlow."""


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ([node.module] if node.module != "poise" else (f"poise.{a.name}" for a in node.names))


def _room(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_room_imports_from_its_right(path):
    here = RANK[_room(path)]
    for name in _imports(path):
        if name.startswith("poise."):
            room = name.split(".")[1]
            assert RANK.get(room, -1) < here or room == _room(path), f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_backends_and_private_keras_stay_out(path):
    names = list(_imports(path))
    private = PRIVATE.get(path.relative_to(SOURCE).as_posix(), [])
    assert [name for name in names if name.startswith("keras.src")] == private
    if path not in [SOURCE / name for name in KNOWING] and SOURCE / "path/lanes" not in path.parents:
        assert not [name for name in names if name.split(".")[0] in BACKENDS]


def test_every_room_has_its_place():
    assert {_room(path) for path in FILES} == set(RANK)
