"""Check the verdict of a study on planted tables, whose true gain is known from fresh rows.

    python benchmarks/verdict.py                      # 200 tables of each kind: about two hours on two cores
    python benchmarks/verdict.py --tables 20          # fewer
    python benchmarks/verdict.py --out results.jsonl  # keep the results; the same command resumes
    python benchmarks/verdict.py --picture            # also draw docs/pictures/verdict.png (needs Kaleido)
    python benchmarks/verdict.py --seeds 4            # instead: compare the verdicts of four random seeds

The true gain of a table is the loss of the network without a penalty, with early stopping, minus the loss of the
network with the judged penalty, on 20,000 fresh rows. For each kind of table the script prints the true gain, how often
each rule says that a penalty helps, how often it says so although the true gain is not above zero, and the coverage of
its 95% interval. The "test rows" rule is that of poise 0.1: the interval of the gain on the test rows.

With `--seeds`, it runs default studies of three tables: diabetes, and generated tables that resemble Hitters and House
Prices. The seeds of a table should not give different verdicts, except that an interval may touch zero.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import json_lines
import numpy as np
import pandas as pd
from tables import make_hitters, make_house_prices

os.environ["KERAS_BACKEND"] = "jax"
FRESH = 20_000
SETTINGS: dict[str, Any] = {"penalties": ["l2", "l1"], "hidden_layer_sizes": (16,), "strengths": 9, "max_iter": 400}
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "verdict.png"
Signal = Callable[[np.ndarray], np.ndarray]

# Rows, columns, signal, standard deviation of the noise
TABLES: dict[str, tuple[int, int, Signal, float]] = {
    "no signal": (150, 5, lambda x: np.zeros(len(x)), 1.0),
    "linear, many rows": (400, 4, lambda x: x @ [1.0, 0.5, -0.5, 0.25], 0.5),
    "smooth, many rows": (400, 3, lambda x: np.sin(2 * x[:, 0]) + x[:, 1] ** 2 + x[:, 2], 0.3),
    "sparse, few rows": (100, 20, lambda x: 2 * x[:, 0] + x[:, 1] - x[:, 2], 1.0),
    "sparse, noisy": (150, 30, lambda x: x[:, 0] + 0.5 * x[:, 1], 1.5),
    "linear, noisy": (120, 10, lambda x: x @ np.linspace(0.2, 1.0, 10), 2.0),
}

LARGER_TABLES: dict[str, tuple[Callable[[], Any], str | None]] = {
    "diabetes": (lambda: "diabetes", None),
    "hitters-like": (make_hitters, "Salary"),
    "house-prices-like": (make_house_prices, "SalePrice"),
}
"""By name a function that returns the data of a study, and the target."""


def measure(kind: str, seed: int) -> dict[str, Any]:
    """Run a study of a planted table, and return what its verdict and its test rows say about the true gain."""
    import poise
    from poise.study.predictions import predict_outputs

    rows, columns, signal, noise = TABLES[kind]
    random = np.random.default_rng(seed)

    def draw(count: int) -> pd.DataFrame:
        x = random.normal(size=(count, columns))
        frame = pd.DataFrame(x, columns=[f"c{number}" for number in range(columns)])
        return frame.assign(y=signal(x) + noise * random.normal(size=count))

    frame, fresh = draw(rows), draw(FRESH)
    findings = poise.run_study(frame, "y", seed=seed % 100, **SETTINGS).findings
    y = (fresh["y"].to_numpy() - findings.center) / findings.scale
    x = findings.encoder.transform(fresh.drop(columns="y"))
    judged = findings[findings.verdict.judged]
    losses = [np.mean(np.square(predict_outputs(each.model, x)[:, 0] - y)) for each in (findings.baseline, judged)]
    verdict, test = findings.verdict.over_baseline.loss_gain, judged.gain
    return {
        "kind": kind,
        "seed": seed,
        "gain": losses[0] - losses[1],
        "loss": losses[0],
        "value": verdict.value,
        "low": verdict.low,
        "high": verdict.high,
        "test_low": test.low,
        "test_high": test.high,
    }


def measure_all(kind: str, tables: int, out: Path | None) -> pd.DataFrame:
    """Return the results of all tables of a kind; skip those already in the file."""
    results = [result for result in json_lines.read(out) if result["kind"] == kind and result["seed"] < tables]
    finished = {result["seed"] for result in results}
    for seed in range(tables):
        if seed not in finished:
            results.append(measure(kind, seed))
            json_lines.append(out, results[-1:])
    return pd.DataFrame(results)


def summarize(results: pd.DataFrame) -> dict[str, float]:
    gain = results["gain"]
    summary = {"true gain": gain.mean(), "estimate": results["value"].mean(), "share > 0": (gain > 0).mean()}
    for rule, low, high in (("verdict", "low", "high"), ("test rows", "test_low", "test_high")):
        helps, hurts = results[low] > 0, results[high] < 0
        summary |= {
            f"{rule}: helps": helps.mean(),
            f"{rule}: hurts": hurts.mean(),
            f"{rule}: wrong": ((helps & (gain <= 0)) | (hurts & (gain >= 0))).mean(),
            f"{rule}: coverage": ((results[low] <= gain) & (gain <= results[high])).mean(),
            f"{rule}: width": (results[high] - results[low]).median(),
        }
    return summary


def draw(results: pd.DataFrame) -> None:
    """Draw how often each rule says that a penalty helps, against the true gain."""
    import plotly.graph_objects as go

    groups = pd.qcut(results["gain"], 8)
    figure = go.Figure()
    for rule, low in (("verdict on all training rows", "low"), ("interval on the test rows (poise 0.1)", "test_low")):
        power = (results[low] > 0).groupby(groups, observed=True).mean()
        gain = results["gain"].groupby(groups, observed=True).median()
        figure.add_scatter(x=gain, y=power, name=rule, mode="lines+markers")
    figure.update_layout(
        xaxis_title="true gain over early stopping (share of the variance of the target)",
        yaxis_title="share of tables with the verdict “helps”", yaxis_range=[-0.02, 1.02], template="plotly_white",
        legend={"x": 0.02, "y": 0.98}, width=900, height=420, margin={"t": 20, "r": 20},
    )  # fmt: skip
    figure.write_image(PICTURE, scale=2)


def report_seeds(seeds: int) -> None:
    """Print the verdict of a study of each larger table, by seed."""
    import poise

    print(
        f"{'table':<18} seed {'verdict':<8} {'choice':<13} {'gain in R²':>10} {'95% interval':>18}  test rows  seconds"
    )
    for name, (make, target) in LARGER_TABLES.items():
        outcomes = []
        for seed in range(seeds):
            findings = poise.run_study(make(), target, seed=seed).findings
            verdict, gain = findings.verdict, findings.verdict.over_baseline.score_gain
            outcomes.append(verdict.over_baseline.outcome)
            agrees = {True: "agree", False: "disagree", None: "unknown"}[
                verdict.agrees_with(findings[verdict.judged].gain)
            ]
            print(
                f"{name:<18} {seed:>4} {outcomes[-1]:<8} {findings.chosen:<13} {gain.value:>+10.3f} "
                f"{f'{gain.low:+.3f} to {gain.high:+.3f}':>18}  {agrees:<9} {findings.seconds:>8.0f}",
                flush=True,
            )
        counts = {outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)}
        print(f"{name}: {', '.join(f'{outcome} {count}×' for outcome, count in counts.items())}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Check the verdict of a study on planted tables.")
    parser.add_argument("kinds", nargs="*", choices=[*TABLES, []], help=f"of {', '.join(TABLES)}; default: all")
    parser.add_argument("--tables", type=int, default=200, help="tables of each kind")
    parser.add_argument("--out", type=Path, help="a file that keeps the results, with one line of JSON per table")
    parser.add_argument("--seeds", type=int, default=0, help="studies of each larger table, instead of planted tables")
    parser.add_argument("--picture", action="store_true", help="also draw docs/pictures/verdict.png")
    arguments = parser.parse_args()
    if arguments.seeds:
        report_seeds(arguments.seeds)
        return
    everything = []
    for kind in arguments.kinds or TABLES:
        results = measure_all(kind, arguments.tables, arguments.out)
        everything.append(results)
        print(f"\n{kind}: {TABLES[kind][0]} rows, {TABLES[kind][1]} columns, {len(results)} tables")
        for name, value in summarize(results).items():
            print(f"  {name:24} {value:8.3f}", flush=True)
    if arguments.picture:
        draw(pd.concat(everything))


if __name__ == "__main__":
    main()
