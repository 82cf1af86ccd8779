"""Data flow one way: no room imports from one to its right. The backends and Keras' private names have one place each."""

import ast
from pathlib import Path

import pytest

import poise

SOURCE = Path(poise.__file__).parent
ORDER = [
    ("_backend", "_keras_internals", "_losses", "_version", "compilation_cache", "files", "validation"),
    ("escaping", "penalties"),
    ("layer_state", "survival"),
    ("rules",),
    ("optimizer",),
    ("diagnostics",),
    ("callbacks", "adoption", "compaction"),
    ("torch", "optax"),
    ("path",),
    ("study",),
    ("shrinking",),
    ("cli",),
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
BACKENDS = {"jax", "tensorflow", "torch"}
KNOWING = ["compilation_cache.py", "diagnostics/gradients.py", "optimizer/distribution.py"]
"""The files that import them."""
INTERNALS = SOURCE / "_keras_internals.py"
"""The only file that touches private names of Keras."""
ALLOWED = {
    "sys._getframe": "Python",
    "os._exit": "Python",
    "optimizer._optimizer_step_post_hooks": "PyTorch",
    "super()._track_variable": "PenalizedOptimizer overrides it, see tests/test_keras_internals.py",
    "module._forward_hooks": "PyTorch has no public way to see whether a module has hooks",
    "module._forward_pre_hooks": "PyTorch has no public way to see whether a module has hooks",
}
"""Private names that poise does not define and that other files use, with the reason."""
PUBLIC_OF_NAMED_TUPLES = ("_asdict", "_field_defaults", "_fields", "_make", "_replace")
"""Documented names, which start with an underscore to differ from the names of fields."""


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
def test_backends_stay_out(path):
    names = list(_imports(path))
    rooms = [SOURCE / "path/lanes", SOURCE / "torch", SOURCE / "optax"]
    if path not in [SOURCE / name for name in KNOWING] and not any(room in path.parents for room in rooms):
        assert not [name for name in names if name.split(".")[0] in BACKENDS]


def test_every_room_has_its_place():
    assert {_room(path) for path in FILES} == set(RANK)


# ---------------------------------------------------------------- private names of Keras


def _is_private(name):
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC_OF_NAMED_TUPLES


def _is_self(node):
    """Whether an expression is `self`, `cls` or `super()`."""
    return ast.unparse(node) in ("self", "cls", "super()")


def _text(node):
    """Return a string of the code, an f-string up to its first field; "" for other expressions."""
    first = node.values[0] if isinstance(node, ast.JoinedStr) else node
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def _definitions(tree):
    """Yield the private names that a file or class defines: functions, classes, fields and attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            yield node.attr
        if isinstance(node, ast.ClassDef):
            for field in node.body:
                targets = field.targets if isinstance(field, ast.Assign) else [getattr(field, "target", None)]
                yield from (target.id for target in targets if isinstance(target, ast.Name))


def _names_by_class(trees):
    """Return, by the name of a class of poise, what the class and those that it derives from in poise define.

    Classes of the same name, such as the callbacks for several frameworks, count as one.
    """
    names, bases = {}, {}
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        names.setdefault(node.name, set()).update(_definitions(node))
        bases.setdefault(node.name, set()).update(ast.unparse(base).split("[")[0] for base in node.bases)

    def with_bases(name):
        return names[name].union(*(with_bases(base) for base in bases[name] if base in names))

    return {name: with_bases(name) for name in names}


def _private_names_used(tree, by_class):
    """Yield the private names that a file uses on objects for which neither it nor their class in poise defines them.

    On `self`, the class or one that it derives from must define the name, and on other objects, the file itself.
    """
    in_file = set(_definitions(tree))

    def visit(node, in_class):
        if isinstance(node, ast.ClassDef):
            in_class = in_class | by_class.get(node.name, set())
        if isinstance(node, ast.Attribute):
            known = in_class if _is_self(node.value) else in_file
            if (_is_private(node.attr) and node.attr not in known) or ast.unparse(node) == "keras.src":
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr", "delattr"):
            name = _text(node.args[1])
            if _is_private(name) and name not in in_file:
                yield ast.unparse(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            names = [alias.name if module is None else f"{module}.{alias.name}" for alias in node.names]
            yield from (name for name in names if f"{name}.".startswith("keras.src."))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, in_class)

    return [name for name in visit(tree, set()) if name not in ALLOWED]


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
NAMES = _names_by_class(TREES.values())


@pytest.mark.parametrize(
    "path", [path for path in FILES if path != INTERNALS], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_private_names_of_keras_are_used_in_one_file(path):
    assert _private_names_used(TREES[path], NAMES) == []


@pytest.mark.parametrize(
    "code",
    [
        "model._flatten_layers()",
        "layers[0]._functional.inputs",
        "model.get_layer('a')._keras_history",
        "lazy._available = False",
        "hasattr(model, '_layers')",
        "getattr(layer, f'_{name}_dense')",
        "import keras.src.layers",
        "from keras.src.utils import module_utils",
        "from keras import src",
        "keras.src.layers",
        "class A(keras.Model):\n    def f(self):\n        self._flatten_layers()",
        "class A(keras.Model):\n    def f(self):\n        super()._flatten_layers()",
        # `Strengths` defines `_iterations`, but no optimizer of poise does.
        "class A(keras.Optimizer):\n    def f(self):\n        return self._iterations",
        "optimizer._iterations",
    ],
)
def test_a_use_of_a_private_name_is_reported(code):
    tree = ast.parse(code)
    assert _private_names_used(tree, NAMES | _names_by_class([tree])) != []


def test_private_names_of_poise_are_not_reported():
    code = """
class A:
    _field: int = 0
    def __init__(self, other):
        self._a = other._field
class B(A):
    def f(self):
        return self._a + self._field + self._f() + _g().__len__()
    def _f(self):
        return getattr(self, "_f")
def _g():
    return A(B())._a
"""
    tree = ast.parse(code)
    assert _private_names_used(tree, _names_by_class([tree])) == []


def test_every_allowed_name_is_used():
    used = {ast.unparse(node) for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert set(ALLOWED) <= used
