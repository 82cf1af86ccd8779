"""The report: true sentences, escaped text, and files that are whole or not there."""

import html
import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

import poise  # noqa: F401  (the report's own lines use it)
from poise.studies import check_folder, report, study
from poise.studies.report import embedded, neutral

HOSTILE = ["<script>alert(1)</script>", "</script><b>\"quoted\" & 'more'</b>", "{{ 7 * 7 }} %{y} $x$"]


def hostile_frame(rows: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(rows, 3)), columns=HOSTILE)
    frame["<img src=x onerror=alert(2)>"] = random.choice(["<i>a</i>", "b"], rows)
    frame["</script><script>alert(3)</script>"] = frame[HOSTILE[0]] + random.normal(size=rows)
    return frame


@pytest.fixture(scope="module")
def diabetes():
    return study("diabetes", epochs=6, hidden=(16,))


@pytest.fixture(scope="module")
def hostile():
    return study(hostile_frame(), "</script><script>alert(3)</script>", recipes=["group=2"], epochs=20, hidden=(4,))


def text_of(page: str) -> str:
    """What a reader sees: the page without scripts, styles and tags."""
    page = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_the_report_holds_answer_table_pictures_settings_and_code(diabetes):
    text = text_of(report.page(diabetes))

    for sentence in report.answer(diabetes):
        assert sentence in text
    for label, *cells in report.measures(diabetes):
        assert " ".join(" ".join([label, *cells]).split()) in text
    for outcome in diabetes.outcomes:
        for row in outcome.balance.itertuples():
            layer = row.variable.split("/")[-2]
            assert f"{outcome.recipe.title} {layer} {row.prediction:.3g} {row.penalty:.3g}" in text
    assert f"keras {keras.__version__}" in text
    assert "poise.Penalized(" in text


def test_the_report_asks_for_nothing_outside(diabetes):
    page = report.page(diabetes)

    own = page.replace(str(report.get_plotlyjs()), "")
    assert not re.search(r"(src|href|@import|url)\s*[=(]|https?:", own)
    assert "default-src 'none'" in own


def test_hostile_names_are_text_everywhere(hostile):
    page = report.page(hostile)

    own = page.replace(str(report.get_plotlyjs()), "")
    assert hostile.outcomes[1].dropped
    assert hostile.outcomes[1].dropped[0] in text_of(page)
    assert "alert(1)</script>" not in own
    assert "<script>alert" not in own
    assert "<img" not in own
    assert own.count("<script") == own.count("</script>") == 5


def test_neutral_text_is_shown_letter_by_letter():
    assert neutral("<b>a</b> & \n b") == "&lt;b&gt;a&lt;/b&gt; &amp; b"
    assert len(neutral("x" * 100)) == 40


def test_embedded_json_cannot_end_its_script():
    text = json.dumps({"name": "</script><!-- & \u2028"}, ensure_ascii=False)

    assert not set("<>&\u2028") & set(embedded(text))
    assert json.loads(embedded(text)) == json.loads(text)


def altered(found, losses: dict[str, np.ndarray], **changes):
    """A study as it would be with other validation losses, to read its sentences."""
    outcomes = []
    for outcome in found.outcomes:
        values = losses[outcome.recipe.name]
        row = replace(outcome.row, val_loss=values.mean(), gap=values.mean() - outcome.row.loss, **changes)
        outcomes.append(replace(outcome, losses=values, row=row))
    return replace(found, outcomes=tuple(outcomes))


def test_a_clear_gain_is_said(diabetes):
    noise = np.random.default_rng(0).normal(size=133)
    found = altered(
        diabetes, {"none": 1.0 + 0.1 * noise, "l2": 0.8 + 0.1 * noise + 0.001 * noise, "l1": 0.9 + noise * 0}
    )

    sentence = report.answer(found)[0]

    assert sentence.startswith("On the 133 validation rows L2 0.02 predicts best: its prediction loss is 0.8")
    assert "20% below the 1" in sentence
    assert "do not show" not in sentence


def test_a_gain_within_noise_is_not_claimed(diabetes):
    noise = np.random.default_rng(0).normal(size=133)
    found = altered(diabetes, {"none": np.full(133, 1.0), "l2": 0.99 + noise - noise.mean(), "l1": np.full(133, 2.0)})

    assert report.answer(found)[0].endswith("so these rows do not show that the penalty helps.")


def test_what_hardly_moves_is_said_to_stay(diabetes):
    found = altered(diabetes, {"none": np.full(133, 1.0), "l2": np.full(133, 0.999), "l1": np.full(133, 2.0)}, loss=0.5)

    verdict, price, _ = report.answer(found)

    assert "less than 1% below the 1 without a penalty" in verdict
    assert "the prediction loss on the training rows stays at 0.5," in price


def test_it_says_plainly_when_no_penalty_helps(diabetes):
    found = altered(diabetes, {"none": np.full(133, 0.5), "l2": np.full(133, 0.6), "l1": np.full(133, 0.7)})

    verdict, price, _ = report.answer(found)

    assert verdict == (
        "No penalty helps here at these strengths: without one the prediction loss on the 133 validation rows is 0.5, "
        "and the nearest recipe, L2 0.02, comes to 0.6."
    )
    assert price.endswith(", which buys nothing as the validation loss is no lower.")


def test_zeros_and_dropped_columns_are_named(hostile):
    sentence = report.answer(hostile)[2]

    outcome = hostile.outcomes[1]
    assert f"left {outcome.row.zeros} of {outcome.row.weights} weights" in sentence
    assert f"“{outcome.dropped[0]}”" in sentence


def test_without_zeros_it_says_so(diabetes):
    found = altered(diabetes, {name: np.ones(133) for name in ("none", "l2", "l1")}, zeros=0)

    assert report.answer(found)[2] == "No weight became exactly zero."


def captions(page: str) -> list[str]:
    return [text_of(caption) for caption in re.findall("<figcaption>(.*?)</figcaption>", page, re.DOTALL)]


def test_captions_say_what_is_to_be_seen(diabetes):
    losses, forces, weights = captions(report.page(diabetes))

    l2, l1 = diabetes.outcomes[1:]
    assert f"it ends at {l2.row.val_loss:.3g} with L2 0.02 and at {l1.row.val_loss:.3g} with L1 0.01." in losses
    nearest = min(l2, l1, key=lambda outcome: outcome.row.val_loss)
    first, last = (f"{ratio:.0%} of the data's force on" for ratio in nearest.balance["ratio"])
    assert f"with {nearest.recipe.title} the penalty ends at {first} hidden_1 and {last} output." in forces
    assert f"is {diabetes.baseline.row.weight_norm:.3g} without a penalty, {l2.row.weight_norm:.3g} with L2" in weights


def test_overfitting_is_called_so_only_where_it_is_seen(diabetes):
    history = diabetes.baseline.history
    rising, falling = np.linspace(0.5, 0.9, len(history)), np.linspace(0.9, 0.5, len(history))

    said = []
    for course in (rising, falling):
        row = replace(diabetes.baseline.row, val_loss=float(course[-1]))
        baseline = replace(diabetes.baseline, history=history.assign(val_loss=course), row=row)
        said.append(captions(report.page(replace(diabetes, outcomes=(baseline, *diabetes.outcomes[1:]))))[0])

    assert "is lowest after epoch 1, at 0.5, and stands at 0.9 in the end" in said[0]
    assert "learns its rows by heart" in said[0]
    assert "training on did no harm" in said[1]


def test_the_baseline_alone_has_a_report():
    found = study("wine", recipes=[], epochs=1, hidden=(4,))

    assert report.answer(found)[0].startswith("Only the training without a penalty was asked for")
    assert "Only the training" in text_of(report.page(found))
    assert (
        captions(report.page(found))[1] == "Without a penalty there is one force, and training settles where it fades."
    )


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer", "wine"])
def test_the_lines_of_python_give_the_same_numbers(name):
    found = study(name, recipes=["l1"], epochs=2, hidden=(8,))
    lines = report.code(found)
    scope = {}

    with redirect_stdout(io.StringIO()):
        exec(lines, scope)

    for ours, theirs in zip(found.outcomes[1].model.get_weights(), scope["model"].get_weights(), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-7)


def test_pictures_have_a_panel_for_each_recipe_and_layer(diabetes):
    losses, forces, weights = (
        picture(diabetes) for picture in (report.losses_picture, report.forces_picture, report.weights_picture)
    )

    assert [len(picture.layout.annotations) for picture in (losses, forces, weights)] == [3, 6, 3]
    assert {trace.meta for trace in losses.data} == {"prediction", "penalty", "total"}
    lowest, highest = 10 ** np.array(forces.layout.yaxis.range)
    assert all(lowest < y < highest for trace in forces.data for y in trace.y if y == y)
    bars = [trace for trace in weights.data if trace.meta == "weights"]
    zeros = [trace for trace in weights.data if trace.meta == "zeros"]
    for bar, zero, outcome in zip(bars, zeros, diabetes.outcomes, strict=True):
        assert sum(bar.y) + zero.y[0] == outcome.row.weights
        assert zero.y[0] == outcome.row.zeros


def test_a_run_is_three_files(diabetes, tmp_path):
    path = diabetes.save(tmp_path / "runs/diabetes")

    assert path == tmp_path / "runs/diabetes/report.html"
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "study.json", "table.csv"]
    table = pd.read_csv(path.parent / "table.csv", index_col="recipe")
    np.testing.assert_allclose(table["val_loss"], diabetes.table["val_loss"])
    content = json.loads((path.parent / "study.json").read_text(), parse_constant=pytest.fail)
    assert content["settings"]["hidden"] == [16]
    assert [recipe["recipe"] for recipe in content["recipes"]] == list(diabetes.table.index)
    assert content["answer"] == report.answer(diabetes)


def test_a_folder_that_holds_something_is_kept(diabetes, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(FileExistsError, match="nothing is overwritten unasked"):
        diabetes.save(tmp_path)
    diabetes.save(tmp_path, overwrite=True)

    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_cannot_be_written(diabetes, tmp_path, overwrite):
    (tmp_path / "file").write_text("")

    for folder in (tmp_path / "file", tmp_path / "file/runs"):
        with pytest.raises(OSError, match=r"cannot be written: .*\. Choose another with --out\."):
            check_folder(folder, overwrite=overwrite)


def test_checking_a_folder_leaves_no_trace(tmp_path):
    check_folder(tmp_path / "a/b/c")

    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_what_was_there(diabetes, tmp_path, monkeypatch):
    path = diabetes.save(tmp_path / "run")
    before = path.read_text()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))

    with pytest.raises(OSError, match="No space left"):
        diabetes.save(path.parent, overwrite=True)

    assert path.read_text() == before
    assert len(list(path.parent.iterdir())) == 3
