"""The recipes, written with tf.keras: each ends at the weights of its poise twin. And the network that shrinks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
RECIPES = ["recipe_a_no_penalty.py", "recipe_b_l2_regularizer.py", "recipe_c_custom_loss.py"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_its_twin_weight_for_weight(recipe) -> None:
    command = [sys.executable, str(EXAMPLES / recipe)]

    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ, timeout=300).stdout

    difference = re.search(r"100 steps, 769 weights: largest relative difference (\S+)", printed)
    assert difference, printed
    assert float(difference[1]) <= 1e-5


@pytest.mark.backends("torch")
def test_shrinking_prints_the_same_accuracy_before_and_after() -> None:
    command = [sys.executable, str(EXAMPLES / "shrinking.py"), "--epochs", "2", "--strengths", "2"]

    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ, timeout=300).stdout

    rows = re.findall(r"^ *([\d.]+) +([\d.]+) +([\d.]+) +[\d,]+ / ", printed, flags=re.MULTILINE)
    assert [float(strength) for strength, _, _ in rows] == [0.0, 0.0002], printed
    assert all(before == after for _, before, after in rows)
    assert "times fewer operations" in printed


def test_every_recipe_is_tested() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("recipe_*.py")) == RECIPES
