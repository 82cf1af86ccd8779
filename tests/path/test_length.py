"""How long the lanes of a strength train."""

from typing import Any

import jax
import numpy as np

from poise.path.lanes.length import GAIN, LengthChoice, checkpoints
from poise.path.lanes.parts import KeptWeights, Part
from poise.path.lanes.problem import LaneState

FOLDS = np.array([-0.1, 0.0, 0.1])[:, None]
ERROR = 0.1 / np.sqrt(3)


def train(
    losses: np.ndarray, settles: bool, moments: list[int], live: Any = None, fits: Any = None
) -> tuple[LengthChoice, int]:
    """Return the choice after a training with these mean losses by moment, and the moment at which it ended.

    `live` maps a moment to the number of weights that are not zero; by default it changes at every moment. `fits` maps
    it to the training loss, which is not known by default.
    """
    choice = LengthChoice((3, 1), np.array([settles]), moments[-1], None)
    end = 0
    for moment, loss in zip(moments, losses, strict=True):
        end = moment
        count = np.full((3, 1), moment if live is None else live(moment))
        fit = None if fits is None else fits(moment) + FOLDS
        is_best = choice.update(moment, loss + FOLDS, fit, count)
        assert is_best[0] == (choice.best[0] == moment)
        if not choice.is_training.any():
            break
    return choice, end


MOMENTS = checkpoints(800, 10)


def test_checkpoints_are_about_sixteen_and_geometric() -> None:
    assert 14 <= len(MOMENTS) <= 17
    assert (MOMENTS[0], MOMENTS[-1]) == (10, 800)
    ratios = np.array(MOMENTS[1:]) / MOMENTS[:-1]
    assert ratios.max() / ratios.min() < 1.1
    assert checkpoints(5) == [1, 2, 3, 4, 5]
    assert checkpoints(4, 10) == [4]
    assert checkpoints(0) == []


def test_a_loss_that_rises_ends_at_its_minimum() -> None:
    losses = np.abs(np.log(np.array(MOMENTS) / MOMENTS[6]))
    choice, end = train(losses, False, MOMENTS)
    assert choice.best[0] == MOMENTS[6]
    assert MOMENTS[6] < end < 800
    choice, end = train(losses, True, MOMENTS)
    assert choice.best[0] == end  # exact zeros are those of the last state
    assert MOMENTS[6] < end < 800


def test_a_loss_that_levels_off_ends_early_unless_zeros_are_to_settle() -> None:
    losses = np.where(np.array(MOMENTS) < MOMENTS[5], 1.0, 0.5)
    losses = losses - 0.1 * GAIN * ERROR * np.arange(len(losses))
    choice, end = train(losses, False, MOMENTS)
    assert choice.best[0] == MOMENTS[5]
    assert end < 800
    choice, end = train(losses, True, MOMENTS)
    assert choice.best[0] == end == 800


def test_training_ends_once_the_zeros_have_settled() -> None:
    losses = np.full(len(MOMENTS), 0.5)
    choice, end = train(losses, True, MOMENTS, live=lambda moment: 100 if moment < 140 else 10)
    assert choice.best[0] == end
    assert 2 * 140 <= end < 800
    choice, end = train(losses, True, MOMENTS, live=lambda moment: 1000 + (moment > 100))  # a change that is small
    assert end < 400


def test_a_penalty_that_raises_both_losses_is_no_overfitting() -> None:
    losses = np.linspace(0.5, 1.5, len(MOMENTS))
    choice, end = train(losses, True, MOMENTS, fits=lambda moment: moment / 800)
    assert choice.best[0] == end == 800
    choice, end = train(losses, True, MOMENTS, fits=lambda moment: -moment / 800)
    assert choice.best[0] == end < 400


def test_a_loss_that_falls_trains_to_the_end() -> None:
    for settles in (False, True):
        choice, end = train(-np.log(MOMENTS), settles, MOMENTS)
        assert choice.best[0] == end == 800


def test_a_diverged_training_ends_and_is_kept() -> None:
    losses = np.array([1.0, 0.9, np.nan, *np.full(len(MOMENTS) - 3, np.nan)])
    choice, end = train(losses, False, MOMENTS)
    assert choice.best[0] == end == MOMENTS[2]


def train_two(first: np.ndarray, second: np.ndarray, settles: bool) -> np.ndarray:
    """Return (2,) the moments at which the trainings of two strengths end."""
    choice = LengthChoice((3, 2), np.full(2, settles), MOMENTS[-1], None)
    ends = np.full(2, MOMENTS[-1])
    for moment, *means in zip(MOMENTS, first, second, strict=True):
        was_training = choice.is_training.copy()
        live = np.full((3, 2), moment)
        choice.update(moment, np.array(means) + FOLDS, None, live)
        ends[was_training & ~choice.is_training] = moment
    return ends


def test_a_strength_that_cannot_become_one_of_the_best_ends_early() -> None:
    steps = np.log(np.array(MOMENTS) / 10.0)
    best, slow, fast = 1.0 - 0.1 * steps, 2.0 - 0.1 * steps, 2.0 - 0.35 * steps
    quarter = next(moment for moment in MOMENTS if moment >= 200)
    assert train_two(best, slow, False).tolist() == [800, quarter]
    assert train_two(best, fast, False).tolist() == [800, 800]  # it might still be the best one
    assert train_two(best, best + 0.5 * ERROR, False).tolist() == [800, 800]  # not one standard error
    assert train_two(best, slow, True).tolist() == [800, 800]  # zeros are to settle


def test_lengths_that_are_given_are_kept_to() -> None:
    choice = LengthChoice((1, 2), np.zeros(2, bool), 800, np.array([50, 800]))
    assert not choice.needs_losses
    bests = [choice.update(moment, None).tolist() for moment in (20, 50, 100, 800)]
    assert bests == [[True, True], [True, True], [False, True], [False, True]]
    assert choice.best.tolist() == [50, 800]
    assert not choice.is_training.any()


def test_the_best_weights_are_kept_while_the_training_goes_on() -> None:
    def make_part(replica: int, columns: list[int], value: float) -> Part:
        weights = jax.numpy.full((1, len(columns), 2), value) + np.array(columns)[:, None]
        return Part(None, slice(replica, replica + 1), np.array(columns), LaneState([weights], [], []), {})  # type: ignore[arg-type]

    kept = KeptWeights((2, 3), make_part(0, [0, 1], 10.0))
    for replica in (0, 1):
        for columns in ([0, 1], [2, 2]):  # the last part is filled up
            kept.keep(make_part(replica, columns, 10.0 * (replica + 1)), np.array([True, True, True]))
    kept.keep(make_part(1, [0, 1], 50.0), np.array([False, True, True]))

    assert kept.state.trained[0][..., 0].tolist() == [[10.0, 11.0, 12.0], [20.0, 51.0, 22.0]]
    assert kept.state.trained[0][..., 1].tolist() == kept.state.trained[0][..., 0].tolist()
