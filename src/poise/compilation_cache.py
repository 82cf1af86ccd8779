"""Compiled programs on disk, so that a second process of the same shapes compiles nothing.

JAX's persistent compilation cache stores them: it locks the folder, and deletes the least recently used programs when
the folder exceeds its size limit.
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

    This applies to the current process and to processes that it starts. The commands `poise study` and `poise predict`
    call this function by default. In Python, call it yourself. The call does nothing if `JAX_COMPILATION_CACHE_DIR` is
    set, including by an earlier call, or if the folder is not writable.

    Args:
        folder: The folder; it is created. Default: `None`, which takes the environment variable `POISE_CACHE_DIR`, or
            else the user's cache directory.
        max_bytes: Largest size of the folder in bytes; the least recently used programs are deleted first.
            Default: 500 MB.

    Returns:
        The folder in use (that of `JAX_COMPILATION_CACHE_DIR` if it is set), or `None` if the folder is not writable.

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
    """Return a name for this kind of processor: programs compiled for another kind may fail or run slowly."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        description = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    except OSError:
        description = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(description.encode()).hexdigest()[:12]}"
