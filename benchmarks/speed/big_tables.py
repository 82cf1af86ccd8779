"""`wide` and `tall`: the whole command `poise study` on planted tables of which ten columns are useful."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from .harness import QUICK_STUDY, Options, Row, measure_command, run_contender

USEFUL = 10


def run_wide(options: Options) -> Iterator[Row]:
    rows, columns = (100, 50) if options.quick else (300, 10_000)
    yield from _study(options, rows, columns, ["--penalty", "l2,adaptive"], 300, 8)


def run_tall(options: Options) -> Iterator[Row]:
    rows, columns = (9_000, 12) if options.quick else (300_000, 20)
    yield from _study(options, rows, columns, [], 180, None)


def _study(
    options: Options, rows: int, columns: int, flags: list[str], most_seconds: float, most_memory: float | None
) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "planted.parquet"))
        run_contender(write_planted_table, options, file=file, rows=rows, columns=columns)
        flags = [*flags, *(QUICK_STUDY if options.quick else ())]
        study = measure_command(["study", file, "--target", "y", *flags], options)
    what = f"poise study, {rows:,} rows x {columns:,} columns"
    yield Row(what, study["seconds"], most=most_seconds)
    yield Row(f"{what}, peak memory", study["GB"], most=most_memory, unit="GB")


def write_planted_table(file: str, rows: int, columns: int) -> dict[str, float]:
    """Write normal columns, and a target that is a sum of ten of them with noise."""
    import numpy as np
    import pandas as pd

    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, columns))
    useful = generator.choice(columns, USEFUL, replace=False)
    signal = x[:, useful] @ np.linspace(1.0, 2.0, USEFUL)
    y = signal + 0.3 * signal.std() * generator.normal(size=rows)
    frame = pd.DataFrame(x, columns=[f"x{number}" for number in range(columns)])
    pd.concat([frame, pd.Series(y, name="y")], axis=1).to_parquet(file)
    return {}
