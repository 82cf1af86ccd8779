"""The tables of a path: one row per strength, as numbers and as text."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from poise.path.selection import minimum
from poise.path.training import Lanes

WEAKER = 1.5
"""The chosen strength of the first stage, relative to the one whose weights decide the factors of the second."""
SHOWN = 10
"""Rows of a printed table, besides those that are marked."""


def replica_table(lanes: Lanes) -> pd.DataFrame:
    """Return `fold` and `seed` of every replica, in order."""
    return lanes.table[["fold", "seed"]].drop_duplicates(ignore_index=True)


def full_positions(lanes: Lanes) -> np.ndarray:
    """Return the positions of the replicas that provide the models: fold -1, or all with `validation_data`."""
    folds = replica_table(lanes)["fold"].to_numpy()
    return np.flatnonzero(folds < 0) if (folds < 0).any() else np.arange(len(folds))


def chosen_position(lanes: Lanes) -> int:
    """Return the position of the strength with the lowest mean held-out loss."""
    return minimum(_mean_losses(lanes))


def reweighting_position(lanes: Lanes, is_first: bool) -> int:
    """Return the position of the strength whose weights decide the factors of the next adaptive stage.

    It is the chosen strength, except after the first stage. There, it is the largest strength that is at most the
    chosen one / `WEAKER`, or the smallest if there is none; strengths at which a lane diverged are skipped. At the
    chosen strength, the first stage has shrunk useful groups, and may already have dropped some. At a smaller strength,
    more groups remain, and the next stage drops the useless ones.
    """
    chosen = chosen_position(lanes)
    if not is_first:
        return chosen
    strengths = _by_replica(lanes, "strength")[0]
    usable = np.flatnonzero(np.isfinite(_mean_losses(lanes)))
    weaker = usable[strengths[usable] <= strengths[chosen] / WEAKER]
    return int(weaker[-1] if len(weaker) else usable[0])


def _mean_losses(lanes: Lanes) -> np.ndarray:
    """Return (strengths,) the mean held-out losses over the folds; inf where a lane diverged."""
    losses = _by_replica(lanes, "held_loss")[replica_table(lanes)["fold"].to_numpy() >= 0].mean(axis=0)
    return np.where(_by_replica(lanes, "diverged").astype(bool).any(axis=0), np.inf, losses)


def path_table(lanes: Lanes, weights: float) -> pd.DataFrame:
    """Return the attribute `table` of `poise.RegularizationPath`.

    Args:
        lanes: lanes of the path.
        weights: number of penalized weights; NaN if unknown.
    """
    first = full_positions(lanes)[0]
    val_loss, val_se = _over_folds(lanes, "held_loss")
    loss, loss_se = _over_folds(lanes, "loss")
    strength, penalty, zeros, units, residual, gradient, settled = (
        _by_replica(lanes, name)[first]
        for name in ("strength", "penalty", "zeros", "units", "residual", "gradient", "settled")
    )
    features = np.full(len(strength), np.nan) if lanes.features is None else lanes.features[first].sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(residual == 0, 0.0, residual / gradient)
    return pd.DataFrame(
        {
            "strength": strength.astype("float64"),
            **{"val_loss": val_loss, "val_se": val_se, "loss": loss, "loss_se": loss_se},
            **{"penalty": penalty, "zeros": zeros, "zero_share": zeros / weights, "units": units},
            **{"features": features, "residual": residual, "relative_residual": relative, "settled": settled},
            "diverged": _by_replica(lanes, "diverged").sum(axis=0, dtype=int),
            "failed": _by_replica(lanes, "failed").sum(axis=0, dtype=int),
            "seconds": _by_replica(lanes, "seconds").sum(axis=0),
        }
    )


def stability_table(lanes: Lanes, features: np.ndarray, names: Sequence) -> pd.DataFrame:
    """Return the attribute `stability` of `poise.RegularizationPath`.

    Args:
        lanes: lanes of the path.
        features: (replicas, strengths, inputs) whether the input is read.
        names: one per input.
    """
    counted = ~_by_replica(lanes, "diverged").astype(bool)
    read = (features & counted[:, :, None]).sum(axis=0)
    lanes_counted = counted.sum(axis=0)[:, None]
    share = np.divide(read, lanes_counted, out=np.full(read.shape, np.nan), where=lanes_counted > 0)
    columns = pd.Index(_by_replica(lanes, "strength")[0].astype("float64"), name="strength")
    return pd.DataFrame(share.T, index=pd.Index(names, name="input"), columns=columns)


def headline(lanes: Lanes, subject: str, stages: int, seconds: float) -> str:
    """Return what was trained, in one line.

    Args:
        lanes: lanes of the path.
        subject: what the grid is of: penalties and their rules, or dropout.
        stages: number of adaptive stages before this one.
        seconds: how long it took.
    """
    replicas = replica_table(lanes)
    folds = replicas["fold"][replicas["fold"] >= 0].nunique()
    strengths = len(lanes.table) // len(replicas)
    counts = {"strength": strengths, "fold": folds, "seed": len(full_positions(lanes))}
    size = " × ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items())
    after = f", after {stages} adaptive stage{'s'[: stages - 1]}" if stages else ""
    return f"RegularizationPath of {subject}: {size}{after}, {seconds:.1f} s"


def printed_table(table: pd.DataFrame, marks: Mapping[str, int]) -> pd.DataFrame:
    """Return evenly spread rows of `table` as text, and those at the positions that `marks` names."""
    spread = np.linspace(0, len(table) - 1, min(SHOWN, len(table))).round().astype(int)
    rows = table.iloc[sorted({*spread.tolist(), *marks.values()})]
    return pd.DataFrame(
        {
            "": [" = ".join(name for name, at in marks.items() if at == row) for row in rows.index],
            "strength": [f"{strength:.4g}" for strength in rows["strength"]],
            "val_loss": [_loss(*row) for row in rows[["val_loss", "val_se", "diverged"]].itertuples(index=False)],
            "features": [_known(count, ".0f") for count in rows["features"]],
            "zeros": [_known(share, ".1%") for share in rows["zero_share"]],
        }
    )


def _by_replica(lanes: Lanes, column: str) -> np.ndarray:
    """Return a column of the lanes' table, (replicas, strengths)."""
    return lanes.table[column].to_numpy().reshape(len(replica_table(lanes)), -1)


def _over_folds(lanes: Lanes, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over folds and its standard error, both (strengths,), the seeds of a fold averaged first."""
    losses = _by_replica(lanes, column).astype("float64")
    losses = np.where(_by_replica(lanes, "diverged").astype(bool), np.nan, losses)
    folds = replica_table(lanes)["fold"].to_numpy()
    with np.errstate(invalid="ignore", over="ignore"):
        by_fold = np.stack([losses[folds == fold].mean(axis=0) for fold in np.unique(folds[folds >= 0])])
        if len(by_fold) == 1:
            return by_fold[0], np.full(by_fold.shape[1], np.nan)
        return by_fold.mean(axis=0), by_fold.std(axis=0, ddof=1) / np.sqrt(len(by_fold))


def _loss(mean: float, error: float, diverged: float) -> str:
    if diverged:
        return "diverged"
    return f"{mean:#.4g}" if np.isnan(error) else f"{mean:#.4g} ± {error:#.2g}"


def _known(number: float, form: str) -> str:
    return "?" if np.isnan(number) else format(number, form)
