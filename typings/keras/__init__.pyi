# Keras 3 has no annotations, and what a type checker infers of it is the union of all its backends.
from typing import Any

def __getattr__(name: str) -> Any: ...
