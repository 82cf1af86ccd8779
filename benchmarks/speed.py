"""Measure the run time and memory of poise, and compare them with other packages.

    python benchmarks/speed.py                      # everything: about two hours on two cores
    python benchmarks/speed.py demo predict         # some parts
    python benchmarks/speed.py small --json         # JSON on standard output, the table on the error stream
    python benchmarks/speed.py large --device gpu   # cpu, gpu, cuda or cuda:0; default: whatever JAX chooses
    python benchmarks/speed.py --quick              # tiny settings: whether every part runs; the figures mean nothing

The parts:

- `demo`: `poise study diabetes`, with an empty and with a filled cache of compiled programs.
- `tables`: `poise study` on four tables, compared with LassoNet only.
- `cross_val`: `cross_val_score(PathRegressor())`, against fits without compilation and against a nested grid search.
- `small`: 500 fits of a small network, against one TensorFlow fit, and against LassoNet.
- `large`: larger networks, against a loop of JAX fits; memory of one more lane.
- `wide`, `tall`: `poise study` on tables with many columns and with many rows.
- `predict`: `poise predict` on 200 rows.
- `growth`: the time per lane and step against rows, columns, lanes and width, with a picture.
- `child`: a path from TensorFlow and PyTorch.

Every contender runs in a separate process, with its files in the disk cache and an empty cache of compiled programs,
unless the part says otherwise. Commands are timed from start to end. Everything else is timed after its imports,
including compilation. Each number is the median of the repeated runs. The ratio is ours
divided by theirs: below 1, poise is faster.
"""

import argparse
import importlib
import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any, TextIO

from speed.harness import Options, Row, call_contender
from speed.machine import describe, warm_disk

PARTS = {
    "demo": "demo:run",
    "tables": "tables:run",
    "cross_val": "cross_val:run",
    "small": "small:run",
    "large": "large:run",
    "wide": "big_tables:run_wide",
    "tall": "big_tables:run_tall",
    "predict": "predict:run",
    "growth": "growth:run",
    "child": "other_backends:run",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure everything about the speed of poise.")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--repeats", type=int, default=3, help="runs per figure, which is their median")
    parser.add_argument("--device", help="cpu, gpu, cuda or cuda:0; default: whatever JAX chooses")
    parser.add_argument("--json", action="store_true", help="print JSON, and the table on the error stream")
    parser.add_argument("--quick", action="store_true", help="tiny settings, whose figures mean nothing")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--arguments", default="{}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        call_contender(arguments.contender, arguments.arguments)
        return
    unknown = [name for name in arguments.parts if name not in PARTS]
    if unknown:
        parser.error(f"parts must be of {', '.join(PARTS)}, got {unknown[0]!r}.")
    if arguments.repeats < 1:
        parser.error(f"--repeats must be >= 1, got {arguments.repeats}.")
    if arguments.device and arguments.device.partition(":")[0] not in ("cpu", "gpu", "cuda"):
        parser.error(f"--device must be cpu, gpu, cuda or cuda:0, got {arguments.device!r}.")
    options = Options(arguments.repeats, arguments.device, arguments.quick)
    sys.exit(report(arguments.parts or list(PARTS), options, arguments.json))


def report(parts: list[str], options: Options, as_json: bool) -> int:
    """Run the parts and print their rows. Return 1 if a part failed, else 0."""
    screen = sys.stderr if as_json else sys.stdout
    about = describe(options)
    print_header(about, options, screen)
    warm_disk(options)
    rows, failed = [], []
    for part in parts:
        print(part, file=screen, flush=True)
        module, _, function = PARTS[part].partition(":")
        try:
            for row in getattr(importlib.import_module(f"speed.{module}"), function)(options):
                print_row(row, screen)
                rows.append(
                    {"part": part, **asdict(row), "ratio": row.ratio, "target": row.target, "is_met": row.is_met}
                )
        except subprocess.CalledProcessError as error:  # its messages are on the error stream
            print(f"  failed: {error}", file=screen, flush=True)
            failed.append(part)
    if as_json:
        results = {**about, "options": asdict(options), "failed": failed, "rows": rows}
        print(json.dumps(results, indent=1, ensure_ascii=False))
    return 1 if failed else 0


def print_header(about: dict[str, Any], options: Options, screen: TextIO) -> None:
    machine, device = about["machine"], about["device"]
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB", file=screen)
    print(f"JAX on {device['platform']}: {device['count']} x {device['kind']}", file=screen)
    print(", ".join(f"{name} {version or 'missing'}" for name, version in about["versions"].items()), file=screen)
    print(f"medians of {options.repeats} runs{'; tiny settings' if options.quick else ''}", file=screen)
    print(f"{'':<62} {'ours':>10} {'theirs':>10} {'ratio':>6} {'target':>8}", file=screen, flush=True)


def print_row(row: Row, screen: TextIO) -> None:
    ours, theirs = (
        "" if figure is None else f"{figure:.3g} {row.unit}" if figure < 100 else f"{figure:,.0f} {row.unit}"
        for figure in (row.ours, row.theirs)
    )
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    verdict = {True: "met", False: "missed", None: ""}[row.is_met]
    line = f"  {row.what:<60} {ours:>10} {theirs:>10} {ratio:>6} {row.target:>8} {verdict:<6} {row.note}"
    print(line.rstrip(), file=screen, flush=True)


if __name__ == "__main__":
    main()
