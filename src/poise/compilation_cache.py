"""Compiled programs on disk, so that a second process of the same shapes compiles nothing.

JAX keeps them (its persistent compilation cache): it locks the folder, writes whole files, and deletes those that were
not used for the longest time when the folder grows too large.
"""

import hashlib
import os
import platform
import sys
from pathlib import Path

import platformdirs

MAX_BYTES = 500_000_000
VARIABLE = "POISE_CACHE_DIR"


def enable_compilation_cache(folder: str | os.PathLike[str] | None = None, max_bytes: int = MAX_BYTES) -> Path | None:
    """Keep the programs that JAX compiles in a folder, and use those that are there.

    It holds for this process and for the processes that it starts. The command `poise` does it by default, the library
    only on request. A folder that cannot be written is ignored, and so is the call if JAX has a folder for compiled
    programs already (`JAX_COMPILATION_CACHE_DIR`).

    Args:
        folder: The folder; it is created. Default: `None`, which takes the environment variable `POISE_CACHE_DIR`, or
            else the user's cache directory.
        max_bytes: Largest size of the folder in bytes; the programs that were not used for the longest time are
            deleted. Default: 500 MB.

    Returns:
        The folder that is used, or `None` if there is none.

    Examples:
        >>> from poise.compilation_cache import enable_compilation_cache
        >>> folder = enable_compilation_cache()
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    root = Path(folder or os.environ.get(VARIABLE) or platformdirs.user_cache_dir("poise", appauthor=False))
    place = root.expanduser().absolute() / _machine()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(place, os.W_OK | os.X_OK):
        return None
    settings = {
        "jax_compilation_cache_dir": str(place),
        "jax_compilation_cache_max_size": max_bytes,
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    os.environ |= {name.upper(): str(value) for name, value in settings.items()}
    if "jax" in sys.modules:
        import jax
        from jax.experimental.compilation_cache import compilation_cache

        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # JAX has looked for its folder if it has compiled something
    return place


def _machine() -> str:
    """Return a name of this kind of processor: a program for another one may not run, or run slowly."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        description = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    except OSError:
        description = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(description.encode()).hexdigest()[:12]}"
