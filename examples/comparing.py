"""Share the data and the comparison between the three recipes."""

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import scale

STEPS = 100


def diabetes():
    """Return the standardized diabetes data, 320 rows: 10 batches of 32 per epoch."""
    x, y = load_diabetes(return_X_y=True)
    return scale(x).astype("float32")[:320], scale(y).astype("float32")[:320, None]


def print_weights(theirs, ours):
    """Print the largest relative difference of the weights after training."""
    pairs = list(zip(theirs.get_weights(), ours.get_weights(), strict=True))
    difference = max(np.abs(a - b).max() / np.abs(a).max() for a, b in pairs)
    print(f"{STEPS} steps, {sum(a.size for a, _ in pairs)} weights: largest relative difference {difference:.1e}")
