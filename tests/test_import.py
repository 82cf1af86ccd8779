"""What `import poise` and `poise` do on the way in: the backend they choose, and what they say of one that is missing."""

import importlib.util
import os

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

    imported = run("import poise", tmp_path, KERAS_BACKEND=backend)
    code = 'sys.argv[1:] = ["show", "nowhere"]\nfrom poise_command import main; main()'
    commanded = run(code, tmp_path, KERAS_BACKEND=backend)

    assert imported.stderr.endswith(f"\nImportError: {sentence}")
    assert (commanded.stderr, commanded.stdout, commanded.returncode) == (sentence, "", 2)


def test_a_configured_backend_that_is_not_installed_is_one_sentence(tmp_path):
    configure(tmp_path, '{"backend": "torch"}')

    done = run("import poise", tmp_path)

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

    _backend.import_keras()

    assert os.environ.get("KERAS_BACKEND") == chosen
