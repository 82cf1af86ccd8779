"""The linear reference model of a task for which scikit-learn has none: a cross-validated lasso, as a path of poise."""

from poise._keras_internals import without_tensorflow
from poise.path.data.arrays import Data
from poise.path.executors.registry import check_executor
from poise.path.models import seed_initial_weights
from poise.path.solve import solve_path
from poise.path.training import Training
from poise.penalties import L1
from poise.rules.rule import Rule
from poise.study.candidates.choice import row_at
from poise.study.candidates.encodings import EncodedNetwork
from poise.study.candidates.network import build_start
from poise.study.findings import Reference
from poise.study.held_out import HeldOutRows, held_out_losses
from poise.study.scores import RowScores
from poise.study.settings import Settings
from poise.study.tasks.base import Task

STRENGTHS = 30
TRAINING = Training(epochs=1, batch_size=None, update="proximal", tolerance=1e-4, early_stopping=True)
"""Quasi-Newton steps: they settle a linear model within a few dozen steps."""


@without_tensorflow()
def fit_linear_path(
    task: Task, network: EncodedNetwork, held_rows: HeldOutRows, baseline: RowScores, settings: Settings
) -> Reference:
    """Return the lasso at the strength with the lowest held-out loss.

    It is trained on the same rows and folds as the networks of the study.

    Args:
        task: The task.
        network: The network whose rows are used.
        held_rows: The held-out rows.
        baseline: The losses of the baseline on the test rows.
        settings: The settings of the study.
    """
    rows, test_rows = network.rows, network.test_rows
    every = rows.replicas[-1].train
    weight = None if rows.weight is None else rows.weight[every]
    with seed_initial_weights(settings.seed):
        start = build_start(task, rows.x.shape[1], 0, rows.y[every], weight, (), settings.learning_rate)
    path = solve_path(
        start, [Rule("output/kernel", L1())], Data(rows.x, rows.y, rows.weight, len(rows.x)), rows.replicas,
        executor=check_executor("auto"), strengths=STRENGTHS, adaptive=0, relax=False, checkpoint=None,
        report=lambda share: None,
        training=TRAINING,
        predicted_rows=held_rows.most_rows,
    )  # fmt: skip
    scores, scorer = test_rows.score(path.model(path.best_strength)), test_rows.scorer
    best = row_at(path, path.best_strength)
    return Reference(
        "linear", "Linear model", float(best["val_loss"]), float(best["val_se"]), scorer.loss(scores),
        scorer.score(scores), scorer.gain(scores, baseline), held_out_losses(held_rows, [path]),
    )  # fmt: skip
