"""Every process runs the tests on one backend, that of KERAS_BACKEND; Keras fixes it at import."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import pytest


@pytest.fixture(autouse=True)
def _same_seed_for_every_test():
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session(free_memory=False)
