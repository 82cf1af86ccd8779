"""On TensorFlow and PyTorch the estimators train in a JAX process of their own, and predict on their own backend."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

import poise


@pytest.mark.backends("tensorflow", "torch")
def test_without_hidden_layers_it_is_ridge() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    y = X @ [1.0, -2.0, 0.0] + rng.normal(size=40)

    result = poise.PathRegressor(hidden_layer_sizes=(), strengths=[0.1], cv=2, max_iter=300, learning_rate=0.1).fit(
        X, y
    )

    ridge = Ridge(alpha=0.1 * len(y)).fit(X, y)
    np.testing.assert_allclose(result.predict(X), ridge.predict(X), atol=1e-3)
    np.testing.assert_allclose(result.score(X, y), ridge.score(X, y), atol=1e-4)
