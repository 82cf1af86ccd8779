"""Which variables a rule takes: globs, roles, predicates, lists; and what it cannot be."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from oracles.models import net

import poise
from poise.rules.layers import register_layers
from poise.rules.members import path_of
from poise.rules.plan import resolve
from poise.rules.rule import as_rules, kind_of


def paths_of(rule: poise.Rule, model: keras.Model) -> set[str]:
    return {path_of(v) for v in model.trainable_variables if rule.applies_to(v)}


def names_of(rules: Any) -> list[str | None]:
    return [rule.name for rule in as_rules(rules)]


class Named:
    """A variable of which only the path counts."""

    def __init__(self, path: str, shape: tuple[int, ...] = (2, 2), dtype: str = "float32") -> None:
        self.path, self.name, self.shape, self.dtype, self.regularizer = path, path.split("/")[-1], shape, dtype, None


# ---------------------------------------------------------------- globs


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("kernel", "net/head/kernel", True),
        ("kernel", "net/lstm/recurrent_kernel", False),
        ("*kernel", "net/lstm/recurrent_kernel", True),
        ("head/kernel", "net/head/kernel", True),
        ("head/kernel", "net/big_head/kernel", False),
        ("ead/kernel", "net/head/kernel", False),
        ("head", "net/head/kernel", False),
        ("net/head", "net/head/kernel", False),
        ("net/head/kernel", "net/head/kernel", True),
        ("outer/net/head/kernel", "net/head/kernel", False),
        ("*/kernel", "net/head/kernel", True),
        ("*/kernel", "kernel", False),
        ("head/*", "net/head/kernel", True),
        ("head/*", "net/head/inner/kernel", False),
        ("head/**", "net/head/inner/kernel", True),
        ("head/**", "net/head", True),
        ("**/kernel", "kernel", True),
        ("**", "anything/at/all", True),
        ("net/**/kernel", "net/a/b/kernel", True),
        ("net/**/kernel", "net/kernel", True),
        ("net/**/kernel", "net/a/b/bias", False),
        ("block_?/kernel", "net/block_1/kernel", True),
        ("block_?/kernel", "net/block_10/kernel", False),
        ("block_[12]/kernel", "net/block_3/kernel", False),
        ("Head/kernel", "net/head/kernel", False),
    ],
)
def test_glob_matches_whole_segments_at_the_tail_of_the_path(glob: str, path: str, matches: bool) -> None:
    assert poise.Rule(glob, poise.L2()).applies_to(Named(path)) is matches


def test_kernel_is_not_the_recurrent_kernel_of_a_real_lstm() -> None:
    model = keras.Sequential([keras.Input((3, 2)), layers.LSTM(2, name="lstm")])

    assert paths_of(poise.Rule("kernel", poise.L2()), model) == {path_of(model.trainable_variables[0])}
    assert path_of(model.trainable_variables[1]).endswith("recurrent_kernel")


# ---------------------------------------------------------------- roles

ROLES = {
    "Dense": (lambda: layers.Dense(2), (3,), {"kernel": "kernel", "bias": "biases"}),
    "EinsumDense": (
        lambda: layers.EinsumDense("ab,bc->ac", output_shape=2, bias_axes="c"),
        (3,),
        {"kernel": "kernel", "bias": "biases"},
    ),
    "Conv2D": (lambda: layers.Conv2D(2, 2), (4, 4, 1), {"kernel": "kernel", "bias": "biases"}),
    "SeparableConv1D": (
        lambda: layers.SeparableConv1D(2, 2),
        (4, 3),
        {"depthwise_kernel": "kernel", "pointwise_kernel": "kernel", "bias": "biases"},
    ),
    "BatchNormalization": (
        layers.BatchNormalization,
        (3,),
        {"gamma": "scales", "beta": "biases", "moving_mean": "state", "moving_variance": "state"},
    ),
    "LayerNormalization": (layers.LayerNormalization, (3,), {"gamma": "scales", "beta": "biases"}),
    "RMSNormalization": (layers.RMSNormalization, (3,), {"scale": "scales"}),
    "Embedding": (lambda: layers.Embedding(5, 2), (3,), {"embeddings": "embeddings"}),
    "LSTM": (
        lambda: layers.LSTM(2),
        (3, 2),
        {"kernel": "kernel", "recurrent_kernel": "kernel", "bias": "biases"},
    ),
    "GRU": (lambda: layers.GRU(2), (3, 2), {"kernel": "kernel", "recurrent_kernel": "kernel", "bias": "biases"}),
    "PReLU": (layers.PReLU, (3,), {"alpha": "slope"}),
}


@pytest.mark.parametrize(("make", "shape", "expected"), ROLES.values(), ids=ROLES)
def test_role_of_every_variable_of_a_layer(make: Any, shape: tuple[int, ...], expected: dict[str, str]) -> None:
    model = keras.Sequential([keras.Input(shape), make()])
    register_layers([model])

    result = {v.name: kind_of(v) for v in model.variables if "seed" not in v.name}

    assert result == expected


def test_roles_in_multi_head_attention() -> None:
    """Its biases have two axes and its kernels three."""
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs))
    tails = {"/".join(path_of(v).split("/")[-2:]): kind_of(v) for v in model.trainable_variables}

    parts = ("query", "key", "value", "attention_output")
    assert tails == {f"{p}/{v}": k for p in parts for v, k in (("kernel", "kernel"), ("bias", "biases"))}


def test_roles_select_what_they_are_named_for() -> None:
    inputs = keras.Input((3,), dtype="int32")
    hidden = layers.BatchNormalization(name="norm")(layers.Flatten()(layers.Embedding(5, 2, name="words")(inputs)))
    model = keras.Model(inputs, layers.Dense(1, name="head")(hidden))

    def names(role: poise.Role) -> set[str]:
        return {path.split("/")[-1] for path in paths_of(poise.Rule(role, poise.L2()), model)}

    assert names(poise.Role.KERNELS) == {"kernel"}
    assert names(poise.Role.EMBEDDINGS) == {"embeddings"}
    assert names(poise.Role.BIASES) == {"bias", "beta"}
    assert names(poise.Role.SCALES) == {"gamma"}
    assert names(poise.Role.ALL) == {"embeddings", "kernel", "bias", "beta", "gamma"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("embeddings", "embeddings"), ("token_embedding", "embeddings"), ("position_embeddings", "token")],
)
def test_tables_of_positions_are_tokens_and_those_of_words_embeddings(name: str, kind: str) -> None:
    """Where the layer is not known; the table of an Embedding for positions is named `embeddings`."""
    assert kind_of(Named(f"net/position/{name}", (8, 4))) == kind


@pytest.mark.parametrize(("shape", "kind"), [((), "scales"), ((3,), "scales"), ((3, 2), "kernel")])
def test_variable_of_unknown_name_is_judged_by_its_axes(shape: tuple[int, ...], kind: str) -> None:
    assert kind_of(Named("net/mine/theta", shape)) == kind


# ---------------------------------------------------------------- predicates, lists, exclude


def wide(variable: keras.Variable) -> bool:
    return variable.shape[-1] >= 5


def test_predicate_selects() -> None:
    paths = paths_of(poise.Rule(wide, poise.L2()), net())

    assert {path.split("/", 1)[-1] for path in paths} == {"features/kernel", "features/bias"}


def test_list_selects_what_any_of_it_does() -> None:
    rule = poise.Rule(["head/kernel", poise.Role.BIASES, wide], poise.L2())

    tails = {"/".join(path.split("/")[-2:]) for path in paths_of(rule, net())}

    assert tails == {"features/kernel", "features/bias", "head/kernel", "head/bias"}


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ("head/*", {"features/kernel"}),
        (["head/bias", "head/kernel"], {"features/kernel"}),
        (wide, {"head/kernel"}),
        (poise.Role.BIASES, {"features/kernel", "head/kernel"}),
    ],
)
def test_exclude_leaves_out(exclude: Any, left: set[str]) -> None:
    rule = poise.Rule("*/kernel", poise.L2(), exclude=exclude)

    assert {"/".join(path.split("/")[-2:]) for path in paths_of(rule, net())} == left


# ---------------------------------------------------------------- layers and variables


def test_layer_selects_its_variables_and_a_variable_itself() -> None:
    model = net()
    head, features = model.get_layer("head"), model.get_layer("features")

    assert paths_of(poise.Rule(head, poise.L2()), model) == {"net/head/kernel", "net/head/bias"}
    assert paths_of(poise.Rule(features.kernel, poise.L2()), model) == {"net/features/kernel"}
    assert paths_of(poise.Rule([head, features.kernel], poise.L2(), exclude=head.bias), model) == {
        "net/head/kernel",
        "net/features/kernel",
    }
    assert paths_of(poise.Rule(model, poise.L2(), exclude=poise.Role.BIASES), model) == {
        "net/head/kernel",
        "net/features/kernel",
    }


def test_layers_and_variables_are_matched_by_identity() -> None:
    """Another model has variables of the same paths."""
    model, other = net(), net()
    for select in (model.get_layer("head"), model.get_layer("head").kernel):
        assert paths_of(poise.Rule(select, poise.L2()), other) == set()


def test_layer_selects_no_state() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.BatchNormalization(name="norm"), layers.Dense(1)])
    register_layers([model])
    rule = poise.Rule(model, poise.L2())

    assert {v.name for v in model.variables if rule.applies_to(v)} == {"gamma", "beta", "kernel", "bias"}


def test_rules_of_layers_and_variables_are_named_after_them() -> None:
    model = net()
    head = model.get_layer("head")
    assert names_of(poise.Rule(head, poise.L2())) == ["head"]
    assert names_of(poise.Rule(head.kernel, poise.L2())) == ["net/head/kernel"]


def test_layers_and_variables_are_saved_as_anchored_paths() -> None:
    model = net()
    rule = poise.Rule([model.get_layer("head"), poise.Role.SCALES], poise.L2(), exclude=model.get_layer("head").bias)

    config = keras.saving.serialize_keras_object(rule)
    back = keras.saving.deserialize_keras_object(config)

    assert config["config"]["select"] == [["/net/head/kernel", "/net/head/bias"], {"role": "scales"}]
    assert config["config"]["exclude"] == "/net/head/bias"
    assert paths_of(back, net()) == {"net/head/kernel"}
    assert back.name == rule.name


def test_rule_of_a_layer_trains_and_survives_saving(tmp_path: Any) -> None:
    model = net()
    model.compile(poise.PenalizedOptimizer("sgd", poise.Rule(model.get_layer("head").kernel, poise.L1(0.1))), "mse")
    model.fit(np.ones((4, 6)), np.ones((4, 1)), verbose=0)
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.fit(np.ones((4, 6)), np.ones((4, 1)), verbose=0)

    assert [target.path.split("/")[-2:] for target in loaded.optimizer.targets] == [["head", "kernel"]]


def test_layer_that_is_not_built_is_refused() -> None:
    with pytest.raises(ValueError, match=r"select: the layer 'late' is not built.*Build the model first"):
        poise.Rule(layers.Dense(2, name="late"), poise.L2())
    with pytest.raises(ValueError, match="exclude: the layer 'late' is not built"):
        poise.Rule("*/kernel", poise.L2(), exclude=[layers.Dense(2, name="late")])


# ---------------------------------------------------------------- Keras regularizers


@pytest.mark.parametrize(
    ("regularizer", "instead"),
    [
        (keras.regularizers.L1(0.1), r"L1\. Use poise\.L1 instead"),
        (keras.regularizers.L2(0.1), r"L2\. Use poise\.L2 instead"),
        (keras.regularizers.L1L2(0.1, 0.1), r"L1L2\. Use poise\.ElasticNet instead"),
        (keras.regularizers.OrthogonalRegularizer(), r"OrthogonalRegularizer\. Use poise\.MutualCoherence instead"),
        (keras.regularizers.Regularizer(), r"Regularizer\. Use a poise penalty such as poise\.L2\(0\.01\) instead"),
    ],
    ids=["L1", "L2", "L1L2", "OrthogonalRegularizer", "other"],
)
def test_keras_regularizer_names_its_counterpart(regularizer: Any, instead: str) -> None:
    message = rf"A rule takes a poise penalty, got keras\.regularizers\.{instead}.*poise\.adopt_regularizers\(model\)"
    for make in (
        lambda: poise.Rule("head/kernel", regularizer),
        lambda: poise.PenalizedOptimizer("sgd", regularizer),
        lambda: poise.PenalizedOptimizer("sgd", [poise.L1(0.1), regularizer]),
    ):
        with pytest.raises(TypeError, match=message):
            make()


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        (poise.L2(), ["kernels"]),
        ([poise.L2()], ["kernels"]),
        ((poise.L2(),), ["kernels"]),
        (poise.Rule("head/kernel", poise.L2()), ["head/kernel"]),
        (poise.Rule(poise.Role.BIASES, poise.L2()), ["biases"]),
        (poise.Rule(["a/*", poise.Role.SCALES], poise.L2()), ["a/*, scales"]),
        (poise.Rule(wide, poise.L2()), ["wide"]),
        (poise.Rule("head/kernel", poise.L2(), name="mine"), ["mine"]),
        ([poise.L1(), poise.L2()], ["kernels L1", "kernels L2"]),
        ([poise.Rule("a", poise.L1()), poise.L2(), poise.Rule("a", poise.L2())], ["a L1", "kernels", "a L2"]),
        ([], []),
    ],
)
def test_default_name_of_a_rule(rules: Any, names: list[str]) -> None:
    assert names_of(rules) == names


def test_rules_of_the_same_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 rules are named 'kernels L2'.*Pass a different name="):
        as_rules([poise.L2(0.1), poise.L2(0.2)])


@pytest.mark.parametrize("rules", ["l2", b"l2", 0.01, None, {"head/kernel": poise.L2()}])
def test_rules_of_a_wrong_type_are_refused(rules: Any) -> None:
    with pytest.raises(
        TypeError,
        match=f"rules must be a penalty, a poise.Rule, or a list of those, got .* of type {type(rules).__name__}",
    ):
        as_rules(rules)


@pytest.mark.parametrize("penalty", ["l2", 0.01, None, poise.L2])
def test_rule_takes_only_a_poise_penalty(penalty: Any) -> None:
    with pytest.raises(TypeError, match=r"takes a poise penalty.*, got "):
        poise.Rule("head/kernel", penalty)


@pytest.mark.parametrize("arguments", [["l2"], [poise.L1(), 3.0]])
def test_list_of_rules_takes_only_poise_penalties(arguments: list) -> None:
    with pytest.raises(TypeError, match="takes a poise penalty"):
        as_rules(arguments)


@pytest.mark.parametrize("select", ["", [], None, 3, ["head", None], [[]]])
def test_select_and_exclude_select_something(select: Any) -> None:
    with pytest.raises(TypeError, match=r"select must be a glob .*, got "):
        poise.Rule(select, poise.L2())
    if select is not None:
        with pytest.raises(TypeError, match=r"exclude must be a glob"):
            poise.Rule("head", poise.L2(), exclude=select)


# ---------------------------------------------------------------- resolving


def test_plan_tells_the_rules_of_every_variable() -> None:
    variables = net().trainable_variables
    rules = as_rules([poise.Rule("*/kernel", poise.L2()), poise.Rule("head/*", poise.L1())])

    plan = resolve(rules, variables)

    assert plan.rules_of == {0: [0], 2: [0, 1], 3: [1]}
    assert plan.inactive == []


@pytest.mark.parametrize(
    ("select", "nearest"),
    [
        ("head/kernell", r"Did you mean 'head/kernel'"),
        ("haed/kernel", r"Did you mean 'head/kernel'"),
        ("feature/kernel", r"Did you mean 'features/kernel'"),
        (["feature/kernel", "haed/bias"], r"'features/kernel'.*'head/bias'"),
        (("feature/kernel", "haed/bias"), r"'features/kernel'.*'head/bias'"),
    ],
)
def test_rule_that_matches_nothing_names_what_is_near(select: Any, nearest: str) -> None:
    rules = as_rules(poise.Rule(select, poise.L2(), name="mine"))
    with pytest.raises(ValueError, match=rf"Rule 'mine' matches none of the 4 .*{nearest}.*poise\.summary"):
        resolve(rules, net().trainable_variables)


def test_rule_far_from_everything_names_nothing() -> None:
    with pytest.raises(ValueError, match=r"Rule 'zzzzzzzz' matches none of the 4") as caught:
        resolve(as_rules(poise.Rule("zzzzzzzz", poise.L2())), net().trainable_variables)
    assert "Did you mean" not in str(caught.value)


def test_rule_whose_exclude_leaves_nothing_is_refused() -> None:
    rules = as_rules(poise.Rule("*/kernel", poise.L2(), exclude=poise.Role.KERNELS))
    with pytest.raises(
        ValueError, match=r"matches none .*Its exclude argument removes all 2 variables that its select argument picks"
    ):
        resolve(rules, net().trainable_variables)


def test_rule_for_frozen_variables_sleeps() -> None:
    model = net()
    model.get_layer("features").trainable = False

    plan = resolve(
        as_rules([poise.Rule("features/*", poise.L2()), poise.Rule("head/*", poise.L1())]),
        model.trainable_variables,
        model.weights,
    )

    assert plan.inactive == [0]
    assert plan.rules_of == {0: [1], 1: [1]}


def test_integer_variable_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Rule 'all' matches 'net/counts', which is int32 and has no gradient\. Exc"):
        resolve(
            as_rules(poise.Rule(poise.Role.ALL, poise.L2())), [Named("net/kernel"), Named("net/counts", dtype="int32")]
        )


def test_variable_with_a_keras_regularizer_is_refused() -> None:
    model = net(kernel_regularizer=keras.regularizers.L2(0.01))
    with pytest.raises(ValueError, match=r"'kernels' matches '.*kernel'.*regularizer L2.*penalized twice.*adopt"):
        resolve(as_rules(poise.L1()), model.trainable_variables)


@pytest.mark.parametrize(
    ("penalty", "reason"),
    [
        (poise.GroupLasso(groups=2), "axis"),
        (poise.GroupLasso(groups="inputs"), None),
        (poise.GroupLasso(groups=[[0, 6]]), "6"),
        (poise.Smoothness(axis=3), "along axis 3"),
        (poise.Anchored(poise.L2(), np.zeros((2, 2))), r"start of shape \(2, 2\)"),
        (poise.L1(factors=np.ones((7, 1))), r"factors of shape \(7, 1\)"),
        (poise.Orthogonal(), None),
    ],
)
def test_penalty_that_does_not_fit_its_variable_is_refused(penalty: poise.Penalty, reason: str | None) -> None:
    rules = as_rules(poise.Rule("features/kernel", penalty))
    if reason is None:
        assert resolve(rules, net().trainable_variables).rules_of == {0: [0]}
        return
    with pytest.raises(ValueError, match=rf"(?s)Rule 'features/kernel' cannot act on '.*features/kernel': .*{reason}"):
        resolve(rules, net().trainable_variables)


@pytest.mark.parametrize("penalty", [poise.Orthogonal(), poise.NuclearNorm(), poise.MutualCoherence()])
def test_matrix_penalty_is_refused_on_a_bias(penalty: poise.Penalty) -> None:
    with pytest.raises(ValueError, match=r"Rule 'features/bias' cannot act on '.*features/bias'"):
        resolve(as_rules(poise.Rule("features/bias", penalty)), net().trainable_variables)


@pytest.mark.parametrize(
    ("first", "second", "instead"),
    [
        (poise.L1(), poise.GroupLasso(), r"poise\.SparseGroupLasso"),
        (poise.L1(), poise.ElasticNet(), "Add their strengths in one rule"),
        (poise.MCP(), poise.L1(), "Keep one of them"),
        (poise.Anchored(poise.L1()), poise.L1(), "Keep one of them"),
    ],
)
def test_two_penalties_that_are_not_smooth_are_refused(first: Any, second: Any, instead: str) -> None:
    rules = as_rules([poise.Rule("*/kernel", first, name="one"), poise.Rule("head/kernel", second, name="two")])
    with pytest.raises(ValueError, match=rf"Rules 'one' and 'two' put 2 non-smooth .*head/kernel.*{instead}"):
        resolve(rules, net().trainable_variables)


def test_any_number_of_smooth_penalties_may_meet_one_that_is_not() -> None:
    rules = as_rules(
        [
            poise.L2(),
            poise.Smoothness(),
            poise.L1(),
            poise.Rule(poise.Role.KERNELS, poise.ElasticNet(0.0, 0.1), name="x"),
        ]
    )
    assert resolve(rules, net().trainable_variables).rules_of == {i: [0, 1, 2, 3] for i in (0, 2)}


# ---------------------------------------------------------------- configuration


@keras.saving.register_keras_serializable("poise-tests")
def registered(variable: keras.Variable) -> bool:
    return variable.shape[-1] >= 5


@pytest.mark.parametrize(
    "rule",
    [
        poise.Rule("head/**", poise.L2(0.5)),
        poise.Rule(poise.Role.BIASES, poise.L1(0.5), name="b"),
        poise.Rule(["a", poise.Role.ALL, registered], poise.ElasticNet(0.1, 0.2), exclude=["b", poise.Role.SCALES]),
        poise.Rule("x", poise.GroupLasso(0.5, groups=[[0, 1], [2]], axis=0), exclude=registered),
    ],
    ids=lambda rule: rule.name,
)
def test_rule_comes_back_from_its_configuration(rule: poise.Rule) -> None:
    config = keras.saving.serialize_keras_object(rule)

    back = keras.saving.deserialize_keras_object(config)

    assert (back.select, back.exclude, back.name) == (rule.select, rule.exclude, rule.name)
    assert repr(back.penalty) == repr(rule.penalty)


def test_role_prints_as_it_is_written() -> None:
    assert repr(poise.Role.KERNELS) == "poise.Role.KERNELS"
    assert [role.value for role in poise.Role] == ["kernels", "embeddings", "biases", "scales", "all"]
