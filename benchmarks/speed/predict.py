"""`predict`: the whole command `poise predict` on 200 rows, with an empty and with a filled cache."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from .harness import QUICK_STUDY, Options, Row, median, run_command, run_contender

ROWS = 200
MOST = 3.0


def run(options: Options) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        study, rows = str(Path(folder, "study")), str(Path(folder, "rows.csv"))
        # Only the network counts, and a study with few strengths has the same
        run_command(["study", "diabetes", "--penalty", "l2", *QUICK_STUDY, "--out", study], options, folder)
        run_contender(write_rows, options, file=rows)
        runs = {"an empty cache": [], "a filled cache": []}
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory() as run_folder:
                for results in runs.values():  # the second run finds the programs of the first
                    results.append(run_command(["predict", study, rows], options, run_folder))
    for cache, results in runs.items():
        yield Row(f"poise predict, {ROWS} rows, {cache}", median(results)["seconds"], most=MOST)


def write_rows(file: str) -> dict[str, float]:
    from poise.study.tables import read

    read("diabetes").features[:ROWS].to_csv(file, index=False)
    return {}
