"""`demo`: the whole command `poise study diabetes`, with an empty and with a filled cache of compiled programs."""

import tempfile
from collections.abc import Iterator

from .harness import QUICK_STUDY, Options, Row, median, run_command

MOST = {"an empty cache": 10.0, "a filled cache": 5.0}


def run(options: Options) -> Iterator[Row]:
    command = ["study", "diabetes", "--force", *(QUICK_STUDY if options.quick else ())]
    runs = {cache: [] for cache in MOST}
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            for cache in MOST:  # the second run finds the programs of the first
                runs[cache].append(run_command(command, options, folder))
    for cache, most in MOST.items():
        yield Row(f"poise study diabetes, {cache}", median(runs[cache])["seconds"], most=most)
