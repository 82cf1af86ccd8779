# celer has no annotations, and a type checker infers wrong ones from its defaults.
from typing import Any

def __getattr__(name: str) -> Any: ...
