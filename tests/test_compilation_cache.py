"""Compiled programs on disk."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from poise.compilation_cache import enable_compilation_cache

COUNTED = """
import json, sys, jax
from poise.compilation_cache import enable_compilation_cache
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
folder = enable_compilation_cache(sys.argv[1])
import poise
poise.run_study("wine", penalties=["l1"], strengths=3, cv=2, max_iter=20)
names = {name: f"/jax/compilation_cache/cache_{name}" for name in ("hits", "misses")}
print("COUNTS", json.dumps({name: events.count(event) for name, event in names.items()} | {"folder": str(folder)}))
"""


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "POISE_"))}


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", COUNTED, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def counts(process: subprocess.Popen) -> Any:
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return json.loads(out.split("COUNTS ")[1])


def test_the_second_process_compiles_nothing_and_two_may_share_the_folder(tmp_path: Path) -> None:
    together = [start(tmp_path), start(tmp_path)]
    assert sum(counts(process)["misses"] for process in together) > 0  # the slower one may find what the other compiled

    second = counts(start(tmp_path))

    assert second["misses"] == 0
    assert second["hits"] > 0
    assert Path(second["folder"]).parent == tmp_path


BOUNDED = """
import sys, jax
from poise.compilation_cache import enable_compilation_cache
enable_compilation_cache(sys.argv[1], int(sys.argv[2]))
for number in range(20):
    jax.jit(lambda x: x + number)(1.0)
"""


def test_the_folder_is_bounded(tmp_path: Path) -> None:
    sizes = []
    for bound in (10**9, 20_000):
        folder = tmp_path / str(bound)
        subprocess.run([sys.executable, "-c", BOUNDED, str(folder), str(bound)], check=True, env=environment())
        sizes.append(sum(file.stat().st_size for file in folder.rglob("*-cache")))
    assert sizes[0] > 20_000 >= sizes[1] > 0


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("JAX_", "POISE_"))]:
        monkeypatch.delenv(name)


def test_a_folder_that_cannot_be_written_is_ignored(clean: None, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert enable_compilation_cache(file) is None
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_the_folder_of_jax_takes_precedence(clean: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "jax"))
    assert enable_compilation_cache(tmp_path) == tmp_path / "jax"
    assert not any(tmp_path.iterdir())


def test_the_command_has_an_option_for_it(tmp_path: Path) -> None:
    def run(*options: str) -> int:
        study = ["study", "wine", "--penalty", "l2", "--strengths", "3", "--cv", "2", "--max-iter", "5", "--quiet"]
        command = [sys.executable, "-m", "poise_command", *study, "--force", *options]
        variables = {**environment(), "POISE_CACHE_DIR": str(tmp_path / "cache"), "KERAS_BACKEND": "jax"}
        subprocess.run(command, check=True, cwd=tmp_path, env=variables, capture_output=True, timeout=180)
        return len([*(tmp_path / "cache").rglob("*-cache")])

    assert run("--no-cache") == 0
    assert run() > 0
