"""Smaller PyTorch modules from exact zeros.

`compact` and `dead_units` are public.

`tracing` runs a module under torch.fx, and `graph` reads the trace as calls. `poise.compaction` finds the dead units
(`analysis` connects the two), with the handlers of `linear`, `normalization`, `elementwise`, `movement`, `merging`,
`pooling`, `recurrent` and `transformers`. `fixed_sizes` finds forward code that needs the original sizes, `rebuild`
resizes the layers of a copy, and `verification` compares the outputs.
"""

from poise.torch.compaction.rebuild import compact
from poise.torch.compaction.report import dead_units

__all__ = ["compact", "dead_units"]
