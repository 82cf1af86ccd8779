"""Which rows every replica trains on and holds out; scikit-learn's own splits and plain sets are the oracles."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import model_selection as sklearn_splits

from poise.path.data.folds import full_replicas, split_rows

ROWS = 60
RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.normal(size=ROWS)
LABELS = RANDOM.permutation(np.repeat([0, 1, 2], [35, 15, 10]))
GROUPS = RANDOM.permutation(np.arange(ROWS) % 12)


def pairs_of(replicas, seed=0) -> Any:
    return [(r.train.tolist(), r.held.tolist()) for r in replicas if r.seed == seed and r.fold >= 0]


def pairs_by(splitter, y=None, groups=None) -> Any:
    return [(train.tolist(), held.tolist()) for train, held in splitter.split(np.zeros((ROWS, 1)), y, groups)]


# ---------------------------------------------------------------- what is dealt


def test_a_number_is_scikit_learns_shuffled_folds() -> None:
    result = split_rows(ROWS, NUMBERS, 5)

    assert pairs_of(result) == pairs_by(sklearn_splits.KFold(5, shuffle=True, random_state=0))


def test_every_row_is_held_out_once_and_trains_elsewhere() -> None:
    *folds, everything = split_rows(ROWS, NUMBERS, 7)

    assert sorted(np.concatenate([r.held for r in folds])) == list(range(ROWS))
    assert all(set(r.train) == set(range(ROWS)) - set(r.held) for r in folds)
    assert (everything.fold, everything.train.tolist(), len(everything.held)) == (-1, list(range(ROWS)), 0)


def test_every_seed_has_the_same_folds_and_a_replica_that_trains_on_all() -> None:
    result = split_rows(ROWS, NUMBERS, 3, n_init=2)

    assert [(r.seed, r.fold) for r in result] == [(0, 0), (0, 1), (0, 2), (0, -1), (1, 0), (1, 1), (1, 2), (1, -1)]
    assert pairs_of(result, 0) == pairs_of(result, 1)
    assert full_replicas(result) == [3, 7]


def test_a_splitter_without_a_fixed_seed_gives_all_seeds_the_same_folds() -> None:
    result = split_rows(ROWS, NUMBERS, sklearn_splits.ShuffleSplit(3), n_init=3)

    assert pairs_of(result, 0) == pairs_of(result, 1) == pairs_of(result, 2)


@pytest.mark.parametrize(
    "y",
    [
        LABELS,
        LABELS[:, None],
        LABELS.astype("uint8"),
        LABELS + 7,
        np.eye(3, dtype="float32")[LABELS],
        np.eye(3, dtype=int)[LABELS],
        [LABELS],
        {"species": LABELS},
    ],
    ids=["labels", "column", "bytes", "not-from-zero", "one-hot", "whole-one-hot", "list", "dict"],
)
def test_classes_are_stratified(y) -> None:
    assert pairs_of(split_rows(ROWS, y, 5)) == pairs_by(
        sklearn_splits.StratifiedKFold(5, shuffle=True, random_state=0), LABELS
    )


@pytest.mark.parametrize("dtype", [bool, "float32", int])
def test_zeros_and_ones_are_classes(dtype) -> None:
    truth = LABELS > 0

    result = split_rows(ROWS, truth.astype(dtype)[:, None], 5)

    assert pairs_of(result) == pairs_by(sklearn_splits.StratifiedKFold(5, shuffle=True, random_state=0), truth)


@pytest.mark.parametrize(
    "y",
    [
        NUMBERS,
        LABELS.astype("float32"),
        np.zeros(ROWS, "float32"),
        np.arange(ROWS),
        np.minimum(np.arange(ROWS), 1),
        np.arange(ROWS) // 4,
        (RANDOM.random((ROWS, 4)) > 0.5).astype(int),
        np.zeros((ROWS, 5, 5), int),
        [LABELS, NUMBERS],
        {"a": LABELS, "b": LABELS},
    ],
    ids=[
        "numbers",
        "float-whole",
        "float-constant",
        "60-values",
        "a-value-once",
        "fewer-of-each-than-folds",
        "several-labels-a-row",
        "images",
        "two-outputs",
        "two-outputs-of-classes",
    ],
)
def test_what_is_not_one_output_of_classes_is_only_shuffled(y) -> None:
    assert pairs_of(split_rows(ROWS, y, 5)) == pairs_by(sklearn_splits.KFold(5, shuffle=True, random_state=0))


def test_the_caller_can_say_whether_these_are_classes() -> None:
    plain, stratified = (
        sklearn_splits.KFold(5, shuffle=True, random_state=0),
        sklearn_splits.StratifiedKFold(5, shuffle=True, random_state=0),
    )

    assert pairs_of(split_rows(ROWS, LABELS, 5, are_classes=False)) == pairs_by(plain)
    assert pairs_of(split_rows(ROWS, LABELS.astype(float), 5, are_classes=True)) == pairs_by(stratified, LABELS)


@pytest.mark.parametrize(
    "y",
    [RANDOM.random(ROWS), RANDOM.random((ROWS, 1)), RANDOM.random((ROWS, 3)), RANDOM.integers(0, 2, (ROWS, 4))],
    ids=["probabilities", "column", "of-several-classes", "several-labels"],
)
def test_targets_of_a_classification_loss_that_are_not_labels(y) -> None:
    result = split_rows(ROWS, y, 5, are_classes=True)

    assert pairs_of(result) == pairs_by(sklearn_splits.KFold(5, shuffle=True, random_state=0))


def test_a_rare_class_trains_in_every_fold_without_a_warning() -> None:
    labels = np.r_[np.zeros(ROWS - 2, int), 1, 1]

    result = split_rows(ROWS, labels, 5, are_classes=True)

    assert all({0, 1} == set(labels[r.train]) for r in result)


def test_one_output_among_several_may_have_no_loss() -> None:
    result = split_rows(ROWS, {"a": LABELS, "b": None}, 5)

    assert pairs_of(result) == pairs_by(sklearn_splits.StratifiedKFold(5, shuffle=True, random_state=0), LABELS)


@pytest.mark.parametrize(
    "groups",
    [GROUPS, GROUPS.tolist(), pd.Series(GROUPS), np.array(list("abcdefghijkl"))[GROUPS]],
    ids=["array", "list", "series", "text"],
)
def test_groups_stay_together(groups) -> None:
    numbers, classes = split_rows(ROWS, NUMBERS, 5, 1, groups), split_rows(ROWS, LABELS, 5, 1, groups)

    assert all(not set(GROUPS[r.train]) & set(GROUPS[r.held]) for r in [*numbers, *classes])
    assert pairs_of(numbers) == pairs_by(sklearn_splits.GroupKFold(5), groups=GROUPS)
    stratified = sklearn_splits.StratifiedGroupKFold(5, shuffle=True, random_state=0)
    assert pairs_of(classes) == pairs_by(stratified, LABELS, GROUPS)


@pytest.mark.parametrize(
    ("splitter", "y", "groups"),
    [
        (sklearn_splits.TimeSeriesSplit(4), NUMBERS, None),
        (sklearn_splits.ShuffleSplit(6, random_state=3), NUMBERS, None),
        (sklearn_splits.RepeatedKFold(n_splits=3, n_repeats=2, random_state=1), NUMBERS, None),
        (sklearn_splits.LeaveOneOut(), NUMBERS, None),
        (sklearn_splits.StratifiedKFold(3), LABELS, None),
        (sklearn_splits.LeaveOneGroupOut(), NUMBERS, GROUPS),
        (sklearn_splits.StratifiedGroupKFold(3), LABELS, GROUPS),
        (sklearn_splits.PredefinedSplit(np.arange(ROWS) % 4 - 1), NUMBERS, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_splitter_splits_as_it_does(splitter, y, groups) -> None:
    assert pairs_of(split_rows(ROWS, y, splitter, 1, groups)) == pairs_by(splitter, y, groups)


def test_a_splitter_for_classes_reads_one_hot_rows() -> None:
    splitter = sklearn_splits.StratifiedKFold(3)

    assert pairs_of(split_rows(ROWS, np.eye(3)[LABELS], splitter)) == pairs_by(splitter, LABELS)


def test_a_splitter_sees_the_positions_and_the_labels_as_they_are() -> None:
    class Odd:
        def split(self, X, y=None, groups=None) -> Iterator[Any]:
            yield X[y == 9, 0], X[y == 7, 0]

    (fold, _) = split_rows(6, np.array([9, 7, 9, 7, 9, 8]), Odd(), are_classes=False)

    assert (fold.train.tolist(), fold.held.tolist()) == ([0, 2, 4], [1, 3])


@pytest.mark.parametrize(
    "folds",
    [
        [([0, 2, 4], [1, 3])],
        [[np.array([0, 2, 4], "uint8"), pd.Series([1, 3])]],
        [(np.array([True, False, True, False, True]), [False, True, False, True, False])],
        ((train, held) for train, held in [([0, 2, 4], [1, 3])]),
        zip([[0, 2, 4]], [[1, 3]], strict=True),
    ],
    ids=["lists", "arrays", "masks", "generator", "zip"],
)
def test_pairs_are_taken_as_they_are(folds) -> None:
    fold, everything = split_rows(5, NUMBERS[:5], folds)

    assert (fold.fold, fold.train.tolist(), fold.held.tolist()) == (0, [0, 2, 4], [1, 3])
    assert (everything.fold, everything.train.tolist()) == (-1, [0, 1, 2, 3, 4])


def test_rows_to_validate_on_are_held_out_of_a_fold_that_trains_on_all() -> None:
    result = split_rows(6, NUMBERS[:10], 5, n_init=2, validation_rows=4)

    assert [(r.fold, r.seed) for r in result] == [(0, 0), (0, 1)]
    assert all((r.train.tolist(), r.held.tolist()) == ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9]) for r in result)
    assert full_replicas(result) == [0, 1]


def test_weights_of_zero_leave_rows_out_and_folds_stand() -> None:
    weights = {"a": np.ones(ROWS), "b": None, "c": (np.arange(ROWS) % 2)[:, None] * np.ones(3)}

    assert pairs_of(split_rows(ROWS, NUMBERS, 5, sample_weight=weights)) == pairs_of(split_rows(ROWS, NUMBERS, 5))


# ---------------------------------------------------------------- what is refused


def refused(error, message, *arguments, **named) -> None:
    with pytest.raises(error, match=re.escape(message)):
        split_rows(*arguments, **named)


@pytest.mark.parametrize(
    ("error", "folds", "message"),
    [
        (ValueError, 1, "cv must be an int >= 2, got 1."),
        (ValueError, 0, "cv must be an int >= 2, got 0."),
        (ValueError, -5, "cv must be an int >= 2, got -5."),
        (TypeError, True, "cv must be an int >= 2, got True."),
        (TypeError, 5.0, "cv is of type float. Pass an int >= 2, a scikit-learn splitter"),
        (TypeError, None, "cv is of type NoneType. Pass an int >= 2, a scikit-learn splitter"),
        (TypeError, "five", "cv is of type str. Pass an int >= 2, a scikit-learn splitter"),
        (ValueError, 61, "cv=61 needs at least 61 rows, got 60. Pass a smaller cv, or add rows."),
        (ValueError, [], "cv=[] has no pair (train, held). Pass at least one."),
        (TypeError, {"train": [0], "held": [1]}, "Fold 0 is of type str, not a pair (train, held)."),
        (TypeError, [0, 1], "Fold 0 is of type int, not a pair (train, held)."),
        (
            TypeError,
            [np.zeros((2, 9)), NUMBERS],
            "Fold 0 is of type ndarray, not a pair (train, held). Pass an int >= 2",
        ),
        (TypeError, [([0], [1], [2])], "Fold 0 is of type tuple, not a pair (train, held)."),
        (TypeError, [([0.0, 1.0], [2])], "positions or a boolean mask, got shape (2,) and dtype float64. Pass an int"),
        (TypeError, [([[0, 1]], [2])], "The training rows of fold 0 must be a 1-D array of positions or a"),
        (TypeError, [(["a"], [2])], "a boolean mask, got shape (1,) and dtype <U1."),
        (ValueError, [([True, False], [2])], "The mask of the training rows of fold 0 has 2 entries, but x has 60"),
        (ValueError, [([0, 1], [2]), ([], [2])], "Fold 1 has no training rows. Pass a smaller cv, or another split."),
        (ValueError, [([0, 1], np.zeros(ROWS, bool))], "Fold 0 has no held-out rows."),
        (
            ValueError,
            [([0, 1, 2], [3, 1, 0])],
            "In fold 0, 2 rows are both training and held-out rows, for example row 0.",
        ),
        (ValueError, [([0, 60], [1])], "Fold 0 contains the training row 60, but x has rows 0 to 59."),
        (ValueError, [([0, 2], [-1])], "Fold 0 contains the held-out row -1, but x has rows 0 to 59."),
        (
            ValueError,
            [([0, 2, 2, 4, 4], [1])],
            "Fold 0 contains 2 training rows more than once, for example row 2. Use sample_weight",
        ),
    ],
)
def test_folds_that_cannot_be_made(error, folds, message) -> None:
    refused(error, message, ROWS, NUMBERS, folds)


def test_a_splitter_that_yields_nothing() -> None:
    class Lazy:
        def split(self, X, y=None, groups=None) -> Any:
            return iter(())

        def __repr__(self) -> str:
            return "Lazy()"

    refused(ValueError, "cv=Lazy() has no pair (train, held). Pass at least one.", ROWS, NUMBERS, Lazy())


@pytest.mark.parametrize(
    ("error", "seeds"), [(ValueError, 0), (ValueError, -1), (TypeError, 1.0), (TypeError, True), (TypeError, None)]
)
def test_n_init_below_one_is_refused(error, seeds) -> None:
    refused(error, f"n_init must be an int >= 1, got {seeds!r}.", ROWS, NUMBERS, 5, seeds)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (GROUPS[:-1], "groups has shape (59,). Pass one group for each of the 60 rows."),
        (GROUPS[:, None], "groups has shape (60, 1). Pass one group for each of the 60 rows."),
        (np.arange(ROWS) % 4, "cv=5 needs at least 5 groups, got 4. Pass a smaller cv, or add groups."),
        (np.where(np.arange(ROWS) < 3, np.nan, GROUPS), "groups is missing for 3 rows."),
        (pd.Series([None, *"abcde"] * 10), "groups is missing for 10 rows."),
    ],
)
def test_groups_that_do_not_fit(groups, message) -> None:
    refused(ValueError, message, ROWS, NUMBERS, 5, 1, groups)


def test_groups_for_folds_that_are_made_already() -> None:
    refused(ValueError, "groups assigns rows to folds, and the pairs", ROWS, NUMBERS, [([0, 1], [2])], 1, GROUPS)
    refused(ValueError, "groups assigns rows to folds", ROWS, NUMBERS, 5, 1, GROUPS, validation_rows=2)


def test_a_tuple_is_refused_because_it_could_be_validation_rows() -> None:
    refused(TypeError, "cv must not be a tuple, got one of 2 elements.", ROWS, NUMBERS, (NUMBERS, NUMBERS))


def test_a_class_that_a_fold_does_not_train() -> None:
    labels = np.r_[np.zeros(30, int), np.full(29, 1), 5]

    refused(ValueError, "has no training row of class 5.", ROWS, labels, 5, are_classes=True)
    refused(
        ValueError, "Fold 0 has no training row of class 2", ROWS, LABELS, [(LABELS < 2, LABELS == 2)], are_classes=True
    )
    refused(
        ValueError,
        "Fold 0 has no training row of class 2",
        ROWS,
        np.eye(3)[LABELS],
        [(LABELS < 2, LABELS == 2)],
        are_classes=True,
    )


def test_whole_numbers_that_may_be_counts_need_not_all_train() -> None:
    fold, _ = split_rows(ROWS, LABELS, [(LABELS < 2, LABELS == 2)])

    assert set(LABELS[fold.train]) == {0, 1}


@pytest.mark.parametrize("are_classes", [None, True])
def test_a_fold_that_trains_on_one_class(are_classes) -> None:
    alone = "trains on class {} only."
    first, other = LABELS == 1, LABELS != 1

    refused(ValueError, "Fold 0 " + alone.format(1), ROWS, LABELS, [(first, other)], are_classes=are_classes)
    refused(ValueError, "Fold 1 " + alone.format(True), ROWS, first, [(LABELS < 2, LABELS == 2), (first, other)])
    refused(ValueError, "Fold 0 " + alone.format(3), ROWS, np.full(ROWS, 3), 5, are_classes=are_classes)


def test_rows_given_to_validate_on_with_a_class_that_does_not_train() -> None:
    labels = np.r_[np.zeros(5, int), np.ones(5, int), 2, 2]

    refused(ValueError, "Fold 0 has no training row of class 2", 10, labels, 5, validation_rows=2, are_classes=True)


def test_more_folds_than_any_class_has_rows() -> None:
    message = "cv=5 needs a class with at least 5 rows, and the largest class has 2. Pass a smaller cv, or add rows."

    refused(ValueError, message, 6, np.arange(6) % 3, 5, are_classes=True)


def test_one_row_per_class_or_group_is_too_few_for_any_number_of_folds() -> None:
    message = "cv=5 needs a class with at least 5 rows, and the largest class has 1. Add rows."

    refused(ValueError, message, 6, np.arange(6), 5, are_classes=True)
    refused(ValueError, "cv=2 needs at least 2 groups, got 1. Add groups.", 6, None, 2, groups=np.zeros(6))


@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1), (ROWS, 3)])
def test_a_part_without_weight(shape) -> None:
    folds = [(np.arange(20), np.arange(20, 40)), (np.arange(20, 40), np.arange(40, 60))]
    last, middle = np.ones(shape), np.ones(shape)
    last[40:], middle[20:40] = 0, 0

    refused(ValueError, "All 20 held-out rows of fold 1 have sample_weight 0", ROWS, NUMBERS, folds, sample_weight=last)
    refused(
        ValueError, "All 20 held-out rows of fold 0 have", ROWS, NUMBERS, folds, sample_weight=[np.ones(shape), middle]
    )
    refused(
        ValueError,
        "All 20 training rows of fold 0 have sample_weight 0",
        ROWS,
        NUMBERS,
        folds[1:],
        sample_weight=middle,
    )
