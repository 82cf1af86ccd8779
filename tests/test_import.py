"""What `import poise` and the command import, the backend they choose, and the message for a missing backend."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from plain_install import run

import poise_command
from poise import _backend


def configure(home, text):
    (home / ".keras").mkdir()
    (home / ".keras" / "keras.json").write_text(text)


def test_without_tensorflow_importing_poise_chooses_jax_and_builds_no_model(tmp_path):
    code = """
import poise, keras
inputs = keras.Input((1,))
print(keras.backend.backend(), keras.Model(inputs, inputs).name, keras.Sequential().name)
"""
    done = run(code, tmp_path)

    assert done.stdout == "jax functional sequential\n", done.stderr


@pytest.mark.parametrize(
    ("backend", "name"),
    [("tensorflow", "TensorFlow"), ("torch", "PyTorch")],
)
def test_a_chosen_backend_that_is_not_installed_is_one_sentence(tmp_path, backend, name):
    sentence = (
        f"KERAS_BACKEND is '{backend}', and {name} is not installed. "
        f'Install it with `pip install "poise[{backend}]"`, or set KERAS_BACKEND=jax.\n'
    )

    imported = run("import poise; poise.L1", tmp_path, KERAS_BACKEND=backend)
    commanded = run(
        "from poise_command import main; main()", tmp_path, "predict", "run", "new.csv", KERAS_BACKEND=backend
    )

    assert imported.stderr.endswith(f"\nImportError: {sentence}")
    assert (commanded.stderr, commanded.stdout, commanded.returncode) == (sentence, "", 2)


def test_a_configured_backend_that_is_not_installed_is_one_sentence(tmp_path):
    configure(tmp_path, '{"backend": "torch"}')

    done = run("import poise, keras", tmp_path)

    assert done.stderr.endswith(
        f"\nImportError: {tmp_path}/.keras/keras.json sets the backend 'torch', and PyTorch is not installed. "
        'Install it with `pip install "poise[torch]"`, or set KERAS_BACKEND=jax.\n'
    )


def test_the_command_runs_on_jax_where_the_variable_is_empty(tmp_path):
    code = """
sys.argv[1:] = ["--version"]
from poise_command import main
try:
    main()
finally:
    import keras
    print(keras.backend.backend())
"""
    done = run(code, tmp_path, KERAS_BACKEND="")

    assert done.stdout.splitlines()[1:] == ["jax"], done.stderr


@pytest.mark.parametrize("chosen", ["numpy", "theano"])
def test_the_command_refuses_other_backends(monkeypatch, capsys, chosen):
    monkeypatch.setenv("KERAS_BACKEND", chosen)

    with pytest.raises(SystemExit, match="2"):
        poise_command.main()

    assert capsys.readouterr().err == (
        f"KERAS_BACKEND must be one of jax, tensorflow, torch, got '{chosen}'. Unset it to use JAX.\n"
    )


@pytest.mark.parametrize(
    ("file", "environment", "is_installed", "chosen"),
    [
        (None, None, False, "jax"),
        ("{}", None, False, "jax"),
        ('{"backend": "tensorflow"}', None, False, "jax"),  # what Keras writes by default
        ('{"backend"', None, False, "jax"),
        ("[]", None, False, "jax"),
        (None, "", False, "jax"),
        ('{"backend": "torch"}', None, False, None),
        ('{"backend": "torch"}', "tensorflow", False, "tensorflow"),
        (None, "torch", False, "torch"),
        (None, None, True, None),
    ],
)
def test_jax_is_chosen_only_where_nothing_else_is(tmp_path, monkeypatch, file, environment, is_installed, chosen):
    if file is not None:
        (tmp_path / "keras.json").write_text(file)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if environment is not None:
        monkeypatch.setenv("KERAS_BACKEND", environment)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if is_installed else None)

    _backend.choose_backend()

    assert os.environ.get("KERAS_BACKEND") == chosen


# ---------------------------------------------------------------- saved models

SAVE = """
import poise, keras
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(poise.PenalizedOptimizer("sgd", poise.L1(0.1)), loss="mse")
model.optimizer.build(model.trainable_variables)
model.save("model.keras")
"""


@pytest.mark.parametrize("imports", ["import poise, keras", "import keras, poise"])
def test_importing_poise_is_enough_to_load_a_saved_model(tmp_path, imports):
    code = f"{imports}\nprint(type(keras.saving.load_model('model.keras').optimizer).__name__)"

    run(f"import os\nos.chdir({str(tmp_path)!r})\n{SAVE}", tmp_path)
    done = run(f"import os\nos.chdir({str(tmp_path)!r})\n{code}", tmp_path, KERAS_BACKEND="jax")

    assert done.stdout == "PenalizedOptimizer\n", done.stderr


def test_finding_keras_imports_nothing(tmp_path):
    code = "import poise, importlib.util, sys; print(importlib.util.find_spec('keras').name, 'keras' in sys.modules)"

    assert run(code, tmp_path).stdout == "keras False\n"


# ---------------------------------------------------------------- modules that choose the backend


def start(code, **environment):
    kept = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    return subprocess.run([sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True)


@pytest.mark.backends("jax", "torch")
def test_poise_torch_and_poise_optax_choose_the_backend():
    backend, module = {"jax": ("jax", "optax"), "torch": ("torch", "torch")}[os.environ["KERAS_BACKEND"]]
    code = (
        f"import poise.{module}, keras, poise; print(keras.backend.backend(), poise.L1(0.1), poise.{module}.__name__)"
    )

    done = start(code)

    assert done.stdout == f"{backend} L1(strength=0.1) poise.{module}\n", done.stderr


@pytest.mark.backends("jax", "torch")
def test_another_backend_is_one_sentence():
    backend, module, name = {"jax": ("jax", "torch", "PyTorch"), "torch": ("torch", "optax", "JAX")}[
        os.environ["KERAS_BACKEND"]
    ]
    wanted = {"torch": "torch", "optax": "jax"}[module]

    chosen = start(f"import poise.{module}", KERAS_BACKEND=backend)
    imported = start(f"import poise; poise.L1; import poise.{module}", KERAS_BACKEND=backend)

    assert chosen.stderr.endswith(
        f"ImportError: poise.{module} needs Keras on {name}, but KERAS_BACKEND is {backend!r}. Unset it, or set it to "
        f"{wanted!r}.\n"
    )
    assert f"needs Keras on {name}, but Keras is already imported on" in imported.stderr


# ---------------------------------------------------------------- what is imported

HEAVY = ["IPython", "jinja2", "joblib", "pandas", "plotly", "pyarrow", "ray", "sklearn", "skops", "typer"]
IMPORTS = """
import json, sys, time
from importlib.machinery import PathFinder
import poise
assert "keras" not in sys.modules and "numpy" not in sys.modules

hidden = set(sys.argv[1:])

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "KerasFinder"]
start = time.perf_counter()
import keras
middle, before = time.perf_counter(), set(sys.modules)
poise.L1
end, after = time.perf_counter(), set(sys.modules)
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(poise.PenalizedOptimizer("sgd", poise.Rule("*/kernel", poise.L1(0.1))), loss="mse")
model.fit(keras.ops.ones((4, 2)), keras.ops.ones((4, 1)), verbose=0)
used = set(sys.modules) & hidden
print(json.dumps({"keras": middle - start, "poise": end - middle, "new": sorted(after - before), "used": sorted(used)}))
"""


INSTALLED = [name for name in ("jax", "tensorflow", "torch") if importlib.util.find_spec(name) is not None]


@pytest.mark.parametrize("backend", INSTALLED)
def test_importing_poise_imports_nothing_and_its_first_name_imports_keras(backend):
    """And training with a penalty needs Keras, NumPy and the backend: the rest is hidden here, JAX on other backends."""
    hidden = [*HEAVY, *([] if backend == "jax" else ["jax", "jaxlib"])]

    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *hidden],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout.splitlines()[-1])
    # The optimizer, the rules, the penalties and the losses are registered with Keras, so that saved models load.
    core = ("poise._", "poise.optimizer", "poise.penalties", "poise.rules", "poise.survival", "poise.validation")
    assert [name for name in cost["new"] if name != "poise" and not name.startswith(core)] == []
    assert cost["used"] == []
    assert cost["poise"] <= 0.1 * cost["keras"]  # in one process, so that both are measured under the same load
