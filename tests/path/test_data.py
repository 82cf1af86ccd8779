"""Rows as arrays: what is kept, what is converted, and every sentence that refuses what no network can read."""

import re
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from poise.path.data.arrays import prepare_data

ROWS = 8
X = np.random.default_rng(0).normal(size=(ROWS, 3))
Y = X @ [1.0, 2.0, 3.0]
NAN, INF = float("nan"), float("inf")


def net(*shapes) -> keras.Model:
    """A model with an input of every shape."""
    inputs = [keras.Input(shape, name=f"input_{number}") for number, shape in enumerate(shapes)]
    return keras.Model(inputs, keras.ops.stack([keras.ops.sum(tensor) for tensor in inputs]))


def sequential() -> keras.Model:
    return keras.Sequential([keras.layers.Dense(1)])


def changed(array, *places, by=NAN) -> Any:
    array = np.array(array, "float64")
    for place in places:
        array[place] = by
    return array


def same(result, expected) -> Any:
    return result.dtype == expected.dtype and np.array_equal(result, expected)


# ---------------------------------------------------------------- what is kept and converted


def test_floats_become_keras_floats_and_the_values_stay() -> None:
    data = prepare_data(net((3,)), X, Y, Y**2)

    assert same(data.x, X.astype("float32"))
    assert same(data.y, Y.astype("float32"))
    assert same(data.sample_weight, (Y**2).astype("float32"))
    assert (data.rows, data.names) == (ROWS, None)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_whole_numbers_and_truth_values_stay(dtype) -> None:
    x, y = (np.arange(ROWS * 3).reshape(ROWS, 3) % 2).astype(dtype), (np.arange(ROWS) % 2).astype(dtype)

    data = prepare_data(net((3,)), x, y)

    assert same(data.x, x)
    assert same(data.y, y)
    assert data.sample_weight is None


@pytest.mark.parametrize("dtype", ["int64", "bool", "float64"])
def test_weights_become_keras_floats(dtype) -> None:
    assert same(prepare_data(sequential(), X, Y, np.ones(ROWS, dtype)).sample_weight, np.ones(ROWS, "float32"))


def test_another_float_type_of_keras() -> None:
    keras.config.set_floatx("float64")
    try:
        assert same(prepare_data(sequential(), X, Y.astype("float32")).x, X)
    finally:
        keras.config.set_floatx("float32")


@pytest.mark.parametrize("columns", [1, 10_000])
def test_narrow_and_wide_tables(columns) -> None:
    x = np.random.default_rng(0).normal(size=(100, columns)).astype("float32")

    data = prepare_data(net((columns,)), x, x[:, 0])

    assert data.x is x


def test_frames_and_series() -> None:
    frame = pd.DataFrame({"age": [1, 2], "size": [0.5, 1.5], 7: [True, False]})

    data = prepare_data(net((3,)), frame, pd.Series([3.0, 4.0]), pd.Series([1, 2]))

    assert same(data.x, np.array([[1, 0.5, 1], [2, 1.5, 0]], "float32"))
    assert same(data.y, np.array([[3], [4]], "float32"))
    assert same(data.sample_weight, np.array([1, 2], "float32"))
    assert data.names == ("age", "size", "7")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.array([1, 2], dtype="Int64"), np.array([[1], [2]], "int64")),
        (pd.array([True, False], dtype="boolean"), np.array([[True], [False]])),
        (pd.array([1.5, 2.5], dtype="Float64"), np.array([[1.5], [2.5]], "float32")),
        (pd.arrays.SparseArray([0.0, 2.5]), np.array([[0.0], [2.5]], "float32")),
        (np.array([1, 2], "int8"), np.array([[1], [2]], "int8")),
    ],
    ids=["Int64", "boolean", "Float64", "Sparse", "int8"],
)
def test_columns_of_every_kind_of_number(column, expected) -> None:
    assert same(prepare_data(sequential(), pd.DataFrame({"a": column}), np.zeros(2)).x, expected)


def test_tensors() -> None:
    data = prepare_data(net((3,)), keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(np.arange(ROWS)))

    assert same(data.x, X.astype("float32"))
    assert isinstance(data.y, np.ndarray)
    assert data.y.tolist() == list(range(ROWS))


def test_structures_stay() -> None:
    x = {"words": np.arange(ROWS), "numbers": pd.DataFrame(X)}
    y = [Y, (np.arange(ROWS), None)]
    weights = [None, (np.ones(ROWS), None)]

    data = prepare_data(net((), (3,)), x, y, weights)

    assert set(data.x) == {"words", "numbers"}
    assert same(data.x["words"], np.arange(ROWS))
    assert same(data.x["numbers"], X.astype("float32"))
    assert isinstance(data.y, list)
    assert isinstance(data.y[1], tuple)
    assert same(data.y[1][0], np.arange(ROWS))
    assert data.y[1][1] is None
    assert data.sample_weight[0] is None
    assert same(data.sample_weight[1][0], np.ones(ROWS, "float32"))


def test_what_was_given_is_not_changed() -> None:
    x, y = X.astype("float32"), Y.copy()

    prepare_data(net((3,)), x, y, None, None, (x[:2] + 1, y[:2]))

    assert same(x, X.astype("float32"))
    assert same(y, Y)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (net((1,)), X[:, 0]),
        (net(()), X[:, :1]),
        (net((None, 2)), np.zeros((ROWS, 5, 2))),
        (net((3,), ()), [X, Y]),
        (net((3,), ()), (X, Y)),
        (sequential(), X),
        (keras.Model(), [X, {"any": Y}]),
        (net((3,), ()), [X, None]),
    ],
    ids=["column-missing", "column-more", "any-length", "list", "tuple", "not-built", "subclassed", "optional"],
)
def test_inputs_that_the_model_takes(model, x) -> None:
    assert prepare_data(model, x, Y).rows == ROWS


# ---------------------------------------------------------------- rows to validate on


def test_rows_to_validate_on_stand_behind_the_others() -> None:
    xv, yv = X[:3] * 2, Y[:3] * 2

    data = prepare_data(net((3,)), X, Y, validation_data=(xv, yv))

    assert same(data.x, np.vstack([X, xv]).astype("float32"))
    assert same(data.y, np.r_[Y, yv].astype("float32"))
    assert (data.rows, data.sample_weight) == (ROWS, None)


@pytest.mark.parametrize("arguments", ["mine", "theirs", "both"])
def test_missing_weights_are_one(arguments) -> None:
    mine, theirs = np.full(ROWS, 2.0), np.full(3, 3.0)

    data = prepare_data(
        net((3,)),
        X,
        Y,
        None if arguments == "theirs" else mine,
        validation_data=(X[:3], Y[:3], None if arguments == "mine" else theirs),
    )

    expected = np.r_[mine if arguments != "theirs" else np.ones(ROWS), theirs if arguments != "mine" else np.ones(3)]
    assert same(data.sample_weight, expected.astype("float32"))


def test_missing_weights_are_one_for_every_output_that_has_them() -> None:
    y, weights = {"a": Y, "b": Y}, {"a": np.full((ROWS, 2), 5), "b": None}

    data = prepare_data(sequential(), X, y, weights, validation_data=(X[:1], {"a": Y[:1], "b": Y[:1]}))

    assert same(data.sample_weight["a"], np.vstack([np.full((ROWS, 2), 5), [[1, 1]]]).astype("float32"))
    assert data.sample_weight["b"] is None


def test_structures_are_joined_leaf_by_leaf() -> None:
    x, y = {"words": np.arange(ROWS), "numbers": X}, [np.arange(ROWS), None]

    data = prepare_data(
        net((), (3,)), x, y, validation_data=({"words": np.array([9]), "numbers": X[:1]}, [np.array([7]), None])
    )

    assert same(data.x["words"], np.array([*range(ROWS), 9]))
    assert same(data.x["numbers"], np.vstack([X, X[:1]]).astype("float32"))
    assert same(data.y[0], np.array([*range(ROWS), 7]))
    assert data.y[1] is None


def test_frames_are_joined() -> None:
    frame = pd.DataFrame(X, columns=list("abc"))

    data = prepare_data(net((3,)), frame, pd.Series(Y), validation_data=(frame[:2], pd.Series(Y[:2])))

    assert data.x.shape == (ROWS + 2, 3)
    assert same(data.y, np.r_[Y, Y[:2]][:, None].astype("float32"))
    assert data.names == ("a", "b", "c")


def test_whole_numbers_to_validate_floats() -> None:
    data = prepare_data(net((3,)), X, Y, validation_data=(np.ones((2, 3), int), np.arange(2)))

    assert data.x.dtype == "float32"


@pytest.mark.parametrize(
    ("error", "validation", "message"),
    [
        (ValueError, (), "validation_data must be a tuple (x, y) or (x, y, sample_weight), got a tuple of 0."),
        (
            ValueError,
            (X, Y, Y, Y),
            "validation_data must be a tuple (x, y) or (x, y, sample_weight), got a tuple of 4.",
        ),
        (TypeError, [X, Y], "validation_data must be a tuple (x, y) or (x, y, sample_weight), got of type list."),
        (
            ValueError,
            (([0], [1]), ([1], [0])),
            "validation_data[0] must have the same structure (array, list, tuple or dict) as x.",
        ),
        (ValueError, ([X], Y), "validation_data[0] must have the same structure (array, list, tuple or dict) as x."),
        (
            ValueError,
            (X, {"a": Y}),
            "validation_data[1] must have the same structure (array, list, tuple or dict) as y.",
        ),
        (ValueError, (X[:, :2], Y), "x and validation_data[0] must have rows of the same shape, got (3,) and (2,)."),
        (ValueError, (X, Y[:, None]), "y and validation_data[1] must have rows of the same shape, got () and (1,)."),
        (ValueError, (X, Y[:-1]), "same number of rows, got validation_data[0]: 8, validation_data[1]: 7."),
        (ValueError, (X[:0], Y[:0]), "validation_data[0] has no rows. Pass at least one."),
        (
            ValueError,
            (changed(X, (2, 1)), Y),
            "validation_data[0] has values that are NaN, infinite or too large for float32 in 1 of 8 rows (column 1: 1).",
        ),
        (ValueError, (X, Y, -np.ones(ROWS)), "validation_data[2] has 8 negative values."),
        (TypeError, (None, Y), "validation_data[0] has no array"),
        (
            TypeError,
            (X, np.array(list("abcdefgh"))),
            "validation_data[1] must be numeric, got dtype <U1.",
        ),
    ],
)
def test_rows_to_validate_on_that_do_not_fit(error, validation, message) -> None:
    with pytest.raises(error, match=re.escape(message)):
        prepare_data(net((3,)), X, Y, validation_data=validation)


def test_rows_to_validate_on_of_another_kind_of_number() -> None:
    with pytest.raises(
        TypeError, match=re.escape("y has dtype int64, and validation_data[1] float32. Pass the same type for both.")
    ):
        prepare_data(net((3,)), X, np.arange(ROWS), validation_data=(X, Y))


def test_rows_to_validate_on_without_an_output_that_the_others_have() -> None:
    with pytest.raises(
        ValueError, match=re.escape("y and validation_data[1] must have rows of the same shape, got () and None.")
    ):
        prepare_data(net((3,)), X, [Y, Y], validation_data=(X, [Y, None]))


def test_rows_to_validate_on_with_columns_in_another_order() -> None:
    frame = pd.DataFrame(X, columns=list("abc"))

    with pytest.raises(ValueError, match=r"x, in the same order: 'a', 'b', 'c', got 'b', 'a', 'c'\.$"):
        prepare_data(net((3,)), frame, Y, validation_data=(frame[["b", "a", "c"]], Y))


# ---------------------------------------------------------------- what is refused


def refused(error, message, x: Any = X, y: Any = Y, sample_weight=None, groups=None, model=None) -> None:
    with pytest.raises(error, match=re.escape(message)):
        prepare_data(model or keras.Model(), x, y, sample_weight, groups)


def test_values_that_are_not_finite_name_their_columns_and_rows() -> None:
    many = changed(np.ones((ROWS, 9)), (0, 8), (3, slice(0, 7)), (4, 1))

    refused(
        ValueError,
        "x has values that are NaN, infinite or too large for float32 in 2 of 8 rows (column 1: 2). Replace these values, or drop the rows.",
        changed(X, (0, 1), (5, 1)),
    )
    refused(
        ValueError,
        "x has values that are NaN, infinite or too large for float32 in 3 of 8 rows (column 0: 1, column 1: 2, column 2: 1, column 3: 1, column 4: 1 and 3 more).",
        many,
    )
    refused(
        ValueError,
        "x has values that are NaN, infinite or too large for float32 in 1 of 8 rows (column 'b': 1).",
        pd.DataFrame(changed(X, (0, 1)), columns=list("abc")),
    )
    refused(
        ValueError,
        "x has values that are NaN, infinite or too large for float32 in 1 of 2 rows (column 'a': 1).",
        pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [True, False]}),
        Y[:2],
    )
    refused(
        ValueError,
        "x[1]['z'] has values that are NaN, infinite or too large for float32 in 1 of 8 rows (column 2: 1).",
        [X, {"z": changed(X, (0, 2), by=-INF)}],
    )
    refused(
        ValueError,
        "x has values that are NaN, infinite or too large for float32 in 2 of 8 rows (column 1: 2).",
        changed(np.ones((ROWS, 4, 2)), (0, 0, 1), (0, 3, 1), (7, 2, 1)),
    )


def test_numbers_beyond_keras_floats() -> None:
    refused(
        ValueError,
        "y has values that are NaN, infinite or too large for float32 in 1 of 8 rows. Replace",
        y=changed(Y, 3, by=1e300),
    )


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_targets_and_weights_that_are_not_finite(value) -> None:
    refused(
        ValueError,
        "y has values that are NaN, infinite or too large for float32 in 2 of 8 rows. Replace",
        y=changed(Y, 0, 1, by=value),
    )
    refused(ValueError, "y['b'] has values that are NaN,", y={"a": Y, "b": changed(Y, 0, by=value)})
    refused(
        ValueError,
        "sample_weight has values that are NaN, infinite or too large for float32 in 1 of 8 rows.",
        sample_weight=changed(np.ones(ROWS), 0, by=value),
    )


def test_weights_below_zero() -> None:
    refused(
        ValueError,
        "sample_weight has 2 negative values. Pass weights >= 0; 0 leaves a row out.",
        sample_weight=np.r_[-1.0, -2.0, np.zeros(6)],
    )


def test_numbers_of_rows_that_differ() -> None:
    refused(ValueError, "All arrays must have the same number of rows, got x: 8, y: 7.", y=Y[:-1])
    refused(ValueError, "All arrays must have the same number of rows, got x[0]: 8, x[1]: 4, y: 8.", x=[X, X[:4]])
    refused(ValueError, "same number of rows, got x: 8, y: 8, sample_weight: 9.", sample_weight=np.ones(9))
    refused(ValueError, "same number of rows, got x: 8, y: 8, groups: 2.", groups=["a", "b"])


def test_no_rows() -> None:
    refused(ValueError, "x has no rows. Pass at least two.", X[:0], Y[:0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.array(list("abcdefgh")),
            "must be numeric, got dtype <U1. Encode it as numbers first: OneHotEncoder",
        ),
        (np.arange(ROWS).astype(object), "must be numeric, got dtype object."),
        (np.ones(ROWS, complex), "must be numeric, got dtype complex128"),
        (np.arange(ROWS).astype("datetime64[D]"), "must be numeric, got dtype datetime64[D]"),
        (
            pd.DataFrame({"n": Y, "color": ["red"] * ROWS, "c": pd.Categorical([1] * ROWS)}),
            "has columns that are not numbers: 'color', 'c'. Encode",
        ),
        (
            pd.DataFrame({f"t{n}": ["a"] * ROWS for n in range(7)}),
            "has columns that are not numbers: 't0', 't1', 't2', 't3', 't4' and 2 more.",
        ),
        (pd.Series(["a"] * ROWS, name="kind"), "has columns that are not numbers: 'kind'."),
        (sparse.csr_matrix(X), "is sparse. Pass a dense array: {label}.toarray()."),
        (np.float64(3.0), "is a single number. Pass an array whose first axis is the rows."),
        ("x.csv", "is of type str. Pass an array, a tensor or a DataFrame, or a list, tuple or dict of those."),
        ((row for row in X), "is of type generator."),
        (None, "has no array. Pass inputs and targets."),
        ([], "has no array. Pass inputs and targets."),
    ],
)
def test_what_holds_no_numbers(values, message) -> None:
    refused(TypeError, f"x {message.format(label='x')}", x=values)
    refused(TypeError, f"y {message.format(label='y')}", y=values)


def test_lists_of_numbers_are_not_arrays() -> None:
    refused(TypeError, "x[0][0] is of type float. Pass an array,", x=X.tolist())


def test_inputs_that_the_model_does_not_take() -> None:
    refused(ValueError, "x has rows of shape (3,), but the model's input 'input_0' expects (4,).", model=net((4,)))
    refused(ValueError, "x has rows of shape (3,), but the model's input 'input_0' expects (5, 3).", model=net((5, 3)))
    refused(
        ValueError,
        "x has rows of shape (3,), but the model's input 'input_1' expects (2,).",
        x=[X, X],
        model=net((3,), (2,)),
    )
    refused(ValueError, "The model has 2 inputs, and x has 1 arrays. Pass one array per input.", model=net((3,), (2,)))
