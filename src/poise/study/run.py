"""Run a study: compare penalties on a table, choose one and its strength, and select columns.

Test rows are held out first; only the final scores and the importance of columns use them. The training rows are
encoded once per fold, by the training rows of that fold. Then a path is trained for each penalty and for dropout, which
is compared like a penalty, and the network is trained without them, with and without early stopping. With
`encoding="auto"`, penalties on whole columns and the baseline are trained with both encodings. Reference models are
fitted to the same rows. The strength with the lowest held-out loss predicts. Columns are selected at
`selection_strength` of the path; the network of the selected columns is scored as well. With `max_false`, stability
selection also selects columns. The verdict compares the chosen penalty with early stopping on all training rows
(`poise.study.verdict`). The importance of a column is measured in the saved network.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from poise.compaction.inputs import read_inputs
from poise.path.executors.ray_cluster import RayCluster
from poise.path.executors.registry import check_executor
from poise.study.candidates.dropout import check_dropout
from poise.study.candidates.encodings import EncodedNetworks
from poise.study.candidates.network import ModelFunction
from poise.study.candidates.penalties import DEFAULT_PENALTIES, get_penalty
from poise.study.candidates.scoring import choose_encoding, make_candidate, make_selection, score_references
from poise.study.candidates.training import HALVES_COST, WITHOUT_PENALTY, PathTrainer, Progress
from poise.study.class_weights import ClassWeight, apply_class_weight, as_class_weight
from poise.study.columns.encoding import AUTO, STANDARD
from poise.study.columns.text_rules import check_missing
from poise.study.errors import DataError
from poise.study.findings import Candidate, Findings, Reference, choose_saved, choose_selector, is_regularized
from poise.study.headers import as_name, as_names, as_targets, as_types
from poise.study.held_out import HeldOutLosses, HeldOutRows, find_held_out_rows, release_predictions
from poise.study.importance import measure_importance
from poise.study.predicted_rows import make_predicted_rows
from poise.study.predictions import predict_outputs
from poise.study.report.description import describe
from poise.study.result import Study
from poise.study.settings import DEFAULT_SELECTION, NO_PENALTY, Settings
from poise.study.sources import Source
from poise.study.splits import note_split, split_folds, split_test_rows
from poise.study.stability_selection import divide_rows, select_on_halves
from poise.study.tables import read
from poise.study.tasks.choice import choose_target
from poise.study.tasks.quantiles import QUANTILES
from poise.study.verdict import Comparison, Verdict, choose_candidate, compare
from poise.study.watching import watch_training
from poise.study.weights import relative_weights


def run_study(
    data: Source,
    target: str | int | Sequence[str | int] | None = None,
    *,
    task: str | None = None,
    time_to_event: str | int | None = None,
    event: str | int | None = None,
    penalties: Sequence[str] = DEFAULT_PENALTIES,
    choose: str | None = None,
    hidden_layer_sizes: Sequence[int] = (64,),
    model: str | ModelFunction | None = None,
    drop: Sequence[str | int] = (),
    keep: Sequence[str | int] = (),
    groups: str | int | None = None,
    time_column: str | int | None = None,
    weight: str | int | None = None,
    offset: str | int | None = None,
    exposure: str | int | None = None,
    class_weight: ClassWeight = None,
    tweedie_power: float = 1.5,
    quantiles: Sequence[float] = QUANTILES,
    types: Mapping[Any, str] | None = None,
    cv: int = 4,
    strengths: int = 13,
    n_init: int = 1,
    max_iter: int = 800,
    learning_rate: float = 0.01,
    test: float = 0.2,
    seed: int = 0,
    delimiter: str | None = None,
    decimal: str | None = None,
    text_encoding: str | None = None,
    sheet: str | int | None = None,
    skip_rows: int | None = None,
    comment: str | None = None,
    missing: Sequence[str] | None = None,
    sparse: bool = False,
    encoding: str = AUTO,
    selection: str = DEFAULT_SELECTION,
    max_false: float | None = None,
    executor: str | RayCluster = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Study:
    """Find out whether a penalty helps a network on a table, which penalty, how strong, and which columns it selects.

    The baseline is the same network without a penalty, with early stopping. Dropout is compared like a penalty. The
    mean or the class frequencies, a linear model and boosted trees are fitted to the same rows, for reference.

    Args:
        data: `"diabetes"`, `"breast_cancer"`, `"digits"`, `"wine"`, the path of a CSV, TSV, Parquet, Excel or NPZ file,
            `"-"` for CSV on standard input, a DataFrame of pandas, polars or another library that Narwhals knows, or
            an Arrow table.
        target: The column to predict; or a list of columns of numbers, which one network predicts together. Rows that
            lack a value for one of them are left out. Default: `None`, for built-in tables, which have a default.
        task: `"regression"`, `"binary"`, `"multiclass"`, `"counts"`, `"gamma"` (positive numbers, whose standard
            deviation is proportional to their mean), `"tweedie"` (nonnegative numbers, of which many are zero),
            `"quantile"` (several quantiles of a number, which do not cross), `"multioutput"` (several numbers at once;
            the task of a list of targets) or `"survival"` (times until an event, some of them censored). Default:
            `None`, which infers one of the first four from the target. The result reports the inferred task.
        time_to_event: For the task `"survival"`, instead of `target`: the column of times, at which a row had its event
            or was censored. Default: `None`.
        event: For the task `"survival"`: the column that is 1 or true for rows with an event, and 0 or false for
            censored rows. Default: `None`.
        penalties: Any of `"l2"`, `"l1"`, `"group"`, `"adaptive"`, `"elasticnet"`, `"sparse_group"`, `"mcp"`, `"scad"`
            and `"dropout"`, which is compared like a penalty, with rates as its strengths. A network without a penalty
            is always trained as well. Default: `("l2", "l1", "group", "adaptive", "dropout")`; without dropout if the
            network is a custom one or has no hidden layers.
        choose: The penalty to choose, or `"dropout"`, whatever the held-out losses are; `"none"` for no penalty.
            Default: `None`.
        hidden_layer_sizes: The units of each hidden layer; `()` is a linear model. Default: `(64,)`.
        model: A custom network: a function that takes the number of inputs and the number of outputs and returns a
            built Keras model, or the import path of such a function as text, `"module:function"`. If the model is
            compiled, its optimizer is used. Default: `None`.
        drop: Columns to leave out. Default: `()`.
        keep: Columns to use although they look like free text, an identifier or a row number. Default: `()`.
        groups: A column of group labels. Rows with the same label are all test rows or all training rows, and stay in
            the same fold. Rows with equal features stay together as well. Default: `None`.
        time_column: A column that orders the rows: no fold trains on the future, and the test rows are the latest. With
            `groups`, earlier rows of groups that also have later rows are left out. Default: `None`.
        weight: A column of sample weights. Only their ratios count, and rows of weight 0 are left out. Default: `None`.
        offset: A column that is added to the linear predictor, such as the logarithm of an exposure, for the tasks
            regression, counts, gamma and tweedie. Predictions of new rows need it. Default: `None`.
        exposure: A column of positive numbers to which the mean is proportional, such as the time at risk: its
            logarithm is added to the linear predictor. For counts, gamma and tweedie. Predictions of new rows need it.
            Default: `None`.
        class_weight: The weights of the classes in the loss: `"balanced"` for weights that are inversely proportional
            to the number of training rows of a class, as in scikit-learn; or a dict from classes to weights, where
            other classes have weight 1. The losses and the accuracy are weighted as well; `Study.metrics` are not.
            Default: `None`.
        tweedie_power: The power of the variance function of the task tweedie, between 1 (counts) and 2 (gamma).
            Default: 1.5.
        quantiles: The quantiles that the task quantile predicts, ascending. Default: `(0.1, 0.5, 0.9)`.
        types: For some columns, what they are read as, such as `{"zip": "categorical"}`: `"categorical"`, `"numeric"`,
            `"date"`, `"text"` (categories if the texts repeat; 007 is not a number) or `"drop"`. Default: `None`, which
            detects the type of every column.
        cv: The number of folds. Default: 4.
        strengths: The number of strengths per path; half as many dropout rates are compared. Default: 13.
        n_init: The number of random initializations per fold. Default: 1.
        max_iter: Full-batch steps per training (with more than 8,192 rows, each step uses the next 4,096 rows).
            Default: 800.
        learning_rate: Adam's learning rate at the start; it decays to 0 along a cosine. Default: 0.01.
        test: The share of test rows. Default: 0.2.
        seed: Decides test rows, folds and initial weights; the global seeds of Keras and NumPy are set to it.
            Default: 0.
        delimiter: Character between the fields of a CSV file. Default: `None`, which detects it.
        decimal: Decimal mark of numbers in text, `"."` or `","`, the same for the whole table. Default: `None`, which
            detects it.
        text_encoding: Text encoding of a CSV file. Default: `None`, which detects it.
        sheet: Sheet of an Excel file: its name, or its number, from 1. Default: `None`, the first sheet.
        skip_rows: Number of lines above the column names of a CSV or Excel file. Default: `None`, no line.
        comment: Character that starts a comment in a CSV file; the rest of the line is ignored. Default: `None`, no
            comments.
        missing: Texts that stand for a missing value, such as `["-999"]`, besides the usual ones such as `"NA"`. `[]`
            turns the usual ones off, so that only an empty field is a missing value. Default: `None`, only the usual
            ones.
        sparse: Whether to save the network of the selected columns instead of the chosen one. Predictions then need
            only these columns. Default: `False`.
        encoding: How columns of numbers enter the networks. `"standard"`: one standardized number. `"piecewise"`: the
            standardized number, and up to 8 pieces of a piecewise-linear encoding. A skip connection from all inputs to
            the output is then added to the built-in network, and its hidden layers read all inputs except the pieces
            (of at most 64 columns, if the penalty is on whole columns). The network is the sum of one curve per column
            and of interactions; without hidden layers, it is an additive model. `"auto"`: penalties on whole columns
            (`"group"`, `"adaptive"`, `"sparse_group"`), and then the baseline as well, are trained with both encodings,
            and each keeps the one with the lower held-out loss. Custom networks, and tables with more than 5,000
            columns, use `"standard"` only. Default: `"auto"`.
        selection: How columns are selected. `"default"`: at `selection_strength` of the path. `"stable"`: the strength
            is increased from there until each selected column is kept by at least 80% of the training runs (one per
            fold and one on all rows, for each set of initial weights). Default: `"default"`.
        max_false: The largest allowed bound on the expected number of false columns, such as 1.0. If it is set,
            stability selection also selects columns, on 50 random halves of the training rows (see
            `Study.stability_selection`). Default: `None`, no stability selection.
        executor: Where the paths are trained, as for `poise.fit_path`; the result does not depend on it. Default:
            `"auto"`.
        checkpoint: A folder for finished work; the same call continues from it. Default: `None`.
        progress: A function that is called with the share of finished work and with what is being done. Default:
            `None`.

    Returns:
        The study: its verdict, the comparison of the networks, and the chosen network, ready to predict.

    Raises:
        DataError: If the data or a setting cannot be used.

    References:
        The intervals are percentiles of the bootstrap: Efron and Tibshirani 1993, An Introduction to the Bootstrap.

    Examples:
        >>> import poise
        >>> study = poise.run_study("wine", penalties=["l2"], strengths=3, cv=2, max_iter=20)
        >>> list(study.results.index)
        ['none', 'full_training', 'l2']
    """
    start_time = time.perf_counter()
    report = progress or (lambda share, what: None)
    names = tuple(dict.fromkeys(name for name in penalties if name != NO_PENALTY))
    hidden_layer_sizes = tuple(np.asarray(hidden_layer_sizes).tolist())
    names, notes = check_dropout(names, choose, hidden_layer_sizes, model is not None)
    settings = Settings(
        names, choose, hidden_layer_sizes,
        model if model is None or isinstance(model, str) else getattr(model, "__name__", repr(model)),
        cv, strengths, n_init, max_iter, learning_rate, test, seed, as_names(drop, "drop"), as_names(keep, "keep"),
        as_types(types), delimiter, decimal, text_encoding, sheet, skip_rows, comment, check_missing(missing), sparse,
        encoding, selection, max_false, as_class_weight(class_weight), tweedie_power,
        tuple(np.ravel(quantiles).tolist()),
    )  # fmt: skip
    for name in settings.penalties:
        get_penalty(name)
    try:
        checked = check_executor(executor)
    except ValueError as error:
        raise DataError(str(error), "executor") from None
    report(0.0, "reading")
    target, task = choose_target(target, task, time_to_event, event)
    table = read(
        data, as_targets(target), task=task, event=as_name(event), drop=settings.drop, keep=settings.keep,
        groups=as_name(groups), time=as_name(time_column), weight=as_name(weight), offset=as_name(offset),
        exposure=as_name(exposure), tweedie_power=tweedie_power, quantiles=settings.quantiles, types=settings.types,
        delimiter=delimiter, decimal=decimal, text_encoding=text_encoding, sheet=sheet, skip_rows=skip_rows,
        comment=comment, missing=missing,
    )  # fmt: skip
    training, testing = split_test_rows(table, test, seed)
    table = apply_class_weight(table, settings.class_weight, training)
    table = replace(table, notes=(*table.notes, *note_split(table, training, testing, test), *notes))
    networks = EncodedNetworks(table, training, testing, split_folds(table, training, cv, seed), settings, model)
    first = networks.get(NO_PENALTY, networks.encodings_of(NO_PENALTY)[0])
    start, rows = first.start, first.rows
    if sparse and read_inputs(start, start.get_weights()) is None:
        raise DataError(
            f"sparse needs a network whose selected columns are known; poise cannot determine which inputs "
            f"{start.name!r} reads. Use dense layers, or turn it off.",
            "sparse",
        )
    held_rows = find_held_out_rows(table, training, rows, start.output_shape[-1])
    halves = None
    if settings.max_false is not None:
        halves = divide_rows(table, training, networks, settings)
    trainer = PathTrainer(networks, settings, checked, checkpoint, report, held_rows.most_rows)
    candidates: list[Candidate] = []
    for name in (*WITHOUT_PENALTY, *settings.penalties):
        baseline = candidates[0].row_scores if candidates else None
        encoded = [
            make_candidate(name, trainer.path(name, each), networks.get(name, each), baseline, held_rows, selection)
            for each in networks.encodings_of(name)
        ]
        candidates.append(choose_encoding(encoded))
    release_predictions(stage for path in trainer.paths.values() for stage in [*path.stages, path])
    references = score_references(
        table, networks.get(NO_PENALTY, STANDARD), held_rows, candidates[0].row_scores, settings
    )
    selector = choose_selector(candidates)
    of_selection = None
    if selector is not None:
        of_selector = networks.get(selector.name, selector.encoder.encoding)
        of_selection = make_selection(selector, of_selector, candidates[0].row_scores)
    stability_selection = None
    if halves is not None and selector is not None:
        stability_selection = select_on_halves(
            selector.name, selector.path, halves.get(selector.name, selector.encoder.encoding), settings, checked,
            checkpoint, lambda share: trainer.report_progress(share, "Stability selection", HALVES_COST),
        )  # fmt: skip
    chosen, verdict = _choose(candidates, references, held_rows, settings)
    watched = {
        candidate.name: watch_training(
            candidate.stage,
            candidate.strength,
            candidate.model,
            networks.get(candidate.name, candidate.encoder.encoding).start,
        )
        for candidate in candidates
        if candidate.name in (NO_PENALTY, chosen)
    }
    saved = choose_saved(next(each for each in candidates if each.name == chosen), candidates, of_selection, settings)
    selected = () if selector is None else selector.selected or ()
    saved_training, saved_rows = networks.encode(saved.encoder.encoding)
    importance, effects = measure_importance(
        saved.model, saved_rows, saved.encoder, table.classes, saved.columns, selected, seed
    )  # fmt: skip
    outputs, scorer = predict_outputs(saved.model, saved_rows.x), saved_rows.scorer
    predicted = make_predicted_rows(
        scorer, outputs, rows.center, rows.scale, relative_weights(table.weight, testing),
        None if table.linear_offset is None else table.linear_offset[testing],
    )  # fmt: skip
    metrics = scorer.task.measure(predicted.actual, predicted.predictions, predicted.weight)
    every = saved_training.replicas[-1].train
    weights = None if saved_training.weight is None else saved_training.weight[every]
    estimates = table.task.estimate(
        saved_training.y[every], predict_outputs(saved.model, saved_training.x[every]), weights
    )
    report(1.0, "done")
    findings = Findings(
        table, settings, tuple(candidates), chosen, of_selection, importance, effects, predicted,
        rows.center, rows.scale, {"training": len(training), "test": len(testing)}, watched, references, verdict,
        metrics, estimates, stability_selection, time.perf_counter() - start_time,
    )  # fmt: skip
    return Study(describe(findings), findings.compact_model, findings.encoder, findings=findings)


def _choose(
    candidates: Sequence[Candidate], references: Sequence[Reference], held_rows: HeldOutRows, settings: Settings
) -> tuple[str, Verdict]:
    """Return the name of the candidate to predict with, and the verdict.

    It is the penalty that the held-out losses choose, unless it predicts worse than the baseline; or the one requested.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    penalties = [candidate for candidate in candidates if is_regularized(candidate)]
    if settings.choose or not penalties:
        penalties = [by_name[settings.choose or NO_PENALTY]]
    judged = penalties[choose_candidate(_losses_of(penalties))].name
    others = [by_name[NO_PENALTY].held_out, *(reference.held_out for reference in references)]

    def compare_choice(options: Sequence[Candidate]) -> list[Comparison]:
        return compare(
            _losses_of(options), [losses for losses in others if losses is not None], references[0].held_out,
            held_rows.weight, is_share=held_rows.task.is_share, seed=settings.seed,
            constant_score=held_rows.task.constant_score,
        )  # fmt: skip

    over_baseline, *over_references = compare_choice(penalties)
    chosen = judged
    if over_baseline.outcome == "hurts" and not settings.choose:
        chosen = NO_PENALTY
        _, *over_references = compare_choice([by_name[chosen]])
    names = [reference.name for reference in references]
    return chosen, Verdict(judged, over_baseline, dict(zip(names, over_references, strict=True)))


def _losses_of(candidates: Sequence[Candidate]) -> list[HeldOutLosses]:
    return [candidate.held_out for candidate in candidates if candidate.held_out is not None]
