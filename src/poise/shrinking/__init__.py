"""Smaller networks of nearly the same accuracy (`poise.shrink`).

`unit_sets` knows which units of a model can be removed, and with which weights. `importance` estimates how much the
loss depends on them, `costs` what they cost, and `selection` chooses the least important ones for their cost. `removal`
trains the model while a growing penalty moves the chosen units to zero, and removes them. `procedure` repeats that
until the budget is met. `data` and `training` train and score models, and `result` holds the outcome.
"""

from poise.shrinking.procedure import shrink
from poise.shrinking.result import ShrinkResult

__all__ = ["ShrinkResult", "shrink"]
