"""Every process runs the tests on one backend, that of KERAS_BACKEND; Keras fixes it at import.

The lanes of a path, the study, the command and the pages of the documentation run on JAX, which is a dependency of
poise, and their tests belong to that process; the examples are written with tf.keras and belong to TensorFlow's.
"""

import importlib.util
import os
import shutil

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import hypothesis
import keras
import pytest

hypothesis.settings.register_profile("poise", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("poise")

BACKEND = keras.backend.backend()
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_BROWSER = ["study/test_report_in_browser.py"]

LANES = ["lanes", "fit", "grid", "stages", "checkpoints", "inputs", "plots", "data", "folds", "ray", "compile_ahead"]

collect_ignore = []
if BACKEND != "jax":
    collect_ignore += ["study", "docs/test_guide.py", "docs/test_readme.py", "docs/test_path_page.py", "test_cli.py"]
    collect_ignore += ["docs/test_compaction_page.py", "docs/test_study_page.py", "docs/test_as_pasted.py"]
    collect_ignore += [f"path/test_{name}.py" for name in LANES]
    # About the source, the start and NumPy: the same on every backend.
    collect_ignore += ["test_layering.py", "test_import.py", "penalties/test_oracles.py"]
    collect_ignore += ["docs/test_gallery.py", "docs/test_reference.py", "docs/test_standalone_blocks.py"]
if BACKEND != "tensorflow":
    collect_ignore += ["test_examples.py"]
if importlib.util.find_spec("tensorflow") is not None:
    collect_ignore += ["docs/test_plain_install.py"]
if CHROMIUM is None and not os.environ.get("CI"):
    collect_ignore += NEEDS_BROWSER


def pytest_configure(config):
    config.addinivalue_line("markers", "backends(*names): a test of a feature that only these backends have")


LONGEST = [
    "path/test_ray.py",
    "study/test_sentences.py",
    "study/test_report_in_browser.py",
    "study/test_estimators.py",
    "fit/test_real_models.py",
    "test_cli.py",
    "compaction/test_applications.py",
    "path/test_subprocess.py",
]
"""These files come first, so that no process ends long after the other."""


def pytest_collection_modifyitems(config, items):
    elsewhere = [item for item in items if (m := item.get_closest_marker("backends")) and BACKEND not in m.args]
    config.hook.pytest_deselected(items=elsewhere)
    order = {str(config.rootpath / "tests" / name): number for number, name in enumerate(LONGEST)}
    left = [item for item in items if item not in elsewhere]
    items[:] = sorted(left, key=lambda item: order.get(str(item.path), len(LONGEST)))


def pytest_report_header():
    missing = "" if CHROMIUM else "; no Chromium here, so the tests of the report in a browser are left out"
    return f"Keras {keras.__version__} on {BACKEND}{missing}"


@pytest.fixture(autouse=True, scope="module")
def _few_programs_at_a_time():
    """A process may map so many places of memory, and every program that JAX keeps compiled takes some."""
    yield
    if BACKEND == "jax":
        import jax

        jax.clear_caches()


@pytest.fixture(autouse=True)
def _same_seed_for_every_test():
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session(free_memory=False)
