"""Every public name is documented by an example that runs. (tests/docs runs the pages of the documentation.)"""

import doctest
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import poise

SOURCE = Path(poise.__file__).parent
WITHOUT_EXAMPLE = {
    "DataError",
    "Penalty",
    "Role",
    "ShrinkResult",
    "Summary",
    "Study",
}  # shown by what raises, returns or derives from them
BACKENDS_OF_ROOMS = {"path": "jax", "cli": "jax", "optax": "jax", "torch": "torch", "shrinking": "jax"}
"""Rooms that run on one backend: their examples are run in its process."""
ELSEWHERE = ("study",)
"""Rooms whose examples their own tests run."""


def modules_with_examples() -> list[str]:
    files = (path for path in sorted(SOURCE.rglob("*.py")) if ">>>" in path.read_text(encoding="utf-8"))
    names = [".".join(("poise", *path.relative_to(SOURCE).with_suffix("").parts)) for path in files]
    return [name for name in names if name.split(".")[1] not in ELSEWHERE]


def on_its_backends(name: str) -> Any:
    backend = BACKENDS_OF_ROOMS.get(name.split(".")[1])
    marks = [] if backend is None else [pytest.mark.backends(backend)]
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [*map(on_its_backends, modules_with_examples())])
def test_examples_in_docstrings_print_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


@pytest.mark.backends("jax")
@pytest.mark.parametrize("name", sorted(poise.__all__))
def test_public_name_has_a_docstring_that_is_its_own_with_an_example(name: str) -> None:
    documented = getattr(poise, name)
    assert documented.__doc__, name
    assert documented.__module__.startswith("poise.")
    assert name in WITHOUT_EXAMPLE or ">>>" in (inspect.getdoc(documented) or "")
