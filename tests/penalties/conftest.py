"""Arguments, configurations, laws and the references do not depend on the backend: their tests run on JAX only."""

import keras

ON_JAX_ONLY = ["test_configuration.py", "test_errors.py", "test_laws.py", "test_oracles.py"]

collect_ignore = [] if keras.backend.backend() == "jax" else ON_JAX_ONLY
