"""One process tests one backend, that of KERAS_BACKEND, because Keras fixes it at import.

JAX runs every test. TensorFlow and PyTorch repeat only what can differ on them: `JAX_ONLY` lists files about anything
else, and `SHARED` lists, for files about Keras models rather than numbers, the tests that they repeat.
"""

import gc
import importlib.util
import math
import os
import pathlib
import shutil
from collections.abc import Iterator

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

JAX_ONLY = [
    # The lanes, the study and the commands run on JAX, which is a dependency.
    *("study", "cli", "test_estimators_elsewhere.py"),
    # poise.optax requires it.
    "optax_training",
    *(
        f"path/test_{name}.py"
        for name in ("lanes", "fit", "grid", "stages", "checkpoints", "inputs", "plots", "progress", "data")
    ),
    *(f"path/test_{name}.py" for name in ("folds", "ray", "declared_sizes", "model_files", "selection")),
    *("path/test_common_penalty.py", "path/test_cox_paths.py", "survival/test_survival_measures.py"),
    *(
        f"path/test_{name}.py"
        for name in ("held_predictions", "length", "programs", "quasi_newton", "reduction", "shared_groups")
    ),
    "test_compilation_cache.py",
    *("path/test_joint_paths.py", "path/test_identity.py"),
    # The source, the start, files and NumPy are the same on every backend.
    *("test_layering.py", "test_import.py", "test_files.py", "test_public_names.py", "penalties/test_oracles.py"),
    *("penalties/test_errors.py", "penalties/test_constraint_errors.py"),
    # Graphs of Keras layers; test_graphs, test_applications and test_behavior compare outputs on every backend.
    *(
        f"compaction/test_{name}.py"
        for name in ("always_on", "attention", "input_groups", "inputs", "merging", "nesting", "odd_graphs")
    ),
    *(f"compaction/test_{name}.py" for name in ("operators", "passing_kinds", "recurrent", "state", "structure")),
    *(f"compaction/test_{name}.py" for name in ("tables", "weight_kinds")),
    # Pages of the documentation, apart from the README and the custom loops.
    "docs",
]
"""Files and folders that run on JAX only."""
DOCS_EVERYWHERE = ["docs/test_custom_loops.py", "docs/test_pytorch_page.py"]

SHARED = {
    "test_adoption.py": [
        *("test_adopted_training_is_the_untouched_one", "test_the_state_of_a_model_that_has_rules_is_kept"),
        *("test_loss_scaling_stays_around_the_penalty", "test_an_average_of_the_weights_continues"),
        *("test_low_rank_adapters_train_alike", "test_layers_frozen_after_training_began"),
    ],
    "test_callbacks.py": [
        *(
            "test_every_figure_is_that_of_a_replay_with_a_short_last_batch",
            "test_running_eagerly_gives_the_same_figures",
        ),
        *("test_several_steps_per_execution_give_the_same_figures", "test_mixed_precision_has_its_figures"),
        *("test_epoch_whose_steps_all_overflowed_shows_the_penalty_of_its_weights", "test_tensorboard_gets_them"),
        *("test_force_history_has_a_row_for_every_variable_and_epoch", "test_averages_get_the_zeros_of_their_epoch"),
    ],
    "test_identity.py": ["test_adopted_rules_stay_on_their_variables", "test_joint_groups_stay_on_their_variables"],
    "test_layers.py": ["test_the_model_is_found_while_tensorflow_traces_a_step", "torch"],
    "test_inner.py": ["test_override_of_the_step_is_honored_in_the_coupled_update", "test_average_momentum_set"],
    "path/test_subprocess.py": ["test_it_finds_what_this_process_would", "test_a_lambda_as_loss_is_sent_to_it"],
    "compaction/test_applications.py": ["MobileNetV2", "transformer"],
    "shrinking/test_shrink.py": [
        *("test_the_budget_is_met", "test_the_tables_describe", "test_the_smaller_model_needs_no_poise"),
        *("test_datasets_several_inputs", "test_a_network_of_unknown_length", "test_weights_of_rows_count"),
    ],
    "path/test_result.py": ["test_a_path_saved_on_one_backend_loads_on_another"],
    "path/test_streams.py": ["tf_dataset", "test_settling_and_early_stopping_pass_through_the_batches"],
}
"""By file, the tests that TensorFlow and PyTorch repeat: those whose name contains one of these texts."""

SLOW = [
    *(f"path/test_{name}.py" for name in ("ray", "subprocess", "streams", "lanes", "result")),
    *("study", "cli", "docs", "test_estimators_elsewhere.py", "test_public_names.py", "test_saving.py"),
    "test_compilation_cache.py",
    *("fit", "compaction/test_applications.py", "compaction/test_graphs.py", "compaction/test_export.py"),
    *("test_metric.py", "test_adoption.py", "test_identity.py"),
]
"""Files and folders that `make check` leaves out."""

LONGEST = [
    *(
        "path/test_ray.py",
        "study/test_run.py",
        "study/test_estimators.py",
        "path/test_lanes.py",
        "study/test_sentences.py",
    ),
    *("docs/test_how_to.py", "fit/test_real_models.py", "study/test_report_in_browser.py", "test_optimizer.py"),
    *("test_saving.py", "test_adoption.py", "compaction/test_applications.py", "path/test_subprocess.py"),
]
"""These files come first, so that no process ends long after the other."""

collect_ignore = []
if BACKEND != "jax":
    collect_ignore += [name for name in JAX_ONLY if name != "docs"]
if BACKEND != "torch":
    collect_ignore += ["torch_compaction", "torch_training"]
if BACKEND != "tensorflow":
    collect_ignore += ["test_examples.py"]
if importlib.util.find_spec("tensorflow") is not None:
    collect_ignore += ["docs/test_plain_install.py"]
if CHROMIUM is None and not os.environ.get("CI"):
    collect_ignore += ["study/test_report_in_browser.py"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "backends(*names): a test of a feature that only these backends have")
    config.addinivalue_line("markers", "slow: a test that `make check` leaves out")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    folder = config.rootpath / "tests"
    paths = {item: item.path.relative_to(folder).as_posix() for item in items if item.path.is_relative_to(folder)}
    for item, path in paths.items():
        if any(path == name or path.startswith(f"{name}/") for name in SLOW):
            item.add_marker("slow")
    elsewhere = [item for item in items if not _runs_here(item, paths.get(item, ""))]
    config.hook.pytest_deselected(items=elsewhere)
    order = {name: number for number, name in enumerate(LONGEST)}
    left = set(items) - set(elsewhere)
    items[:] = sorted((i for i in items if i in left), key=lambda item: order.get(paths.get(item, ""), len(LONGEST)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let garbage collection pass over the imported modules, and run it less often: it took a quarter of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def _runs_here(item: pytest.Item, path: str) -> bool:
    marker = item.get_closest_marker("backends")
    if marker:
        return BACKEND in marker.args
    if BACKEND == "jax":
        return True
    if path.startswith("docs/"):
        return path in DOCS_EVERYWHERE
    return path not in SHARED or any(text in item.name for text in SHARED[path])


def pytest_report_header() -> str:
    missing = "" if CHROMIUM else "; no Chromium here, so the tests of the report in a browser are left out"
    return f"Keras {keras.__version__} on {BACKEND}{missing}"


@pytest.fixture(autouse=True, scope="module")
def _few_programs_at_a_time() -> Iterator[None]:
    """Free compiled programs before the process has as many memory maps as Linux allows (65,530)."""
    yield
    if BACKEND == "jax" and _count_memory_maps() > 30_000:
        import jax

        jax.clear_caches()


def _count_memory_maps() -> float:
    maps = pathlib.Path("/proc/self/maps")
    return len(maps.read_bytes().splitlines()) if maps.exists() else math.inf


@pytest.fixture(autouse=True)
def _same_seed_for_every_test() -> Iterator[None]:
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session(free_memory=False)
