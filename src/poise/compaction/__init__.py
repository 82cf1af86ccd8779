"""Smaller models from exact zeros.

`compact`, `dead_units`, `compare_models`, `input_sparsity` and `unit_sparsity` are public.

`calls` has the graph of a model of any framework, and `graph_analysis` finds the dead units in it. `graph` and
`analysis` do so for Keras. `handlers` has the base class and the registry of the handlers of all layer types, which are
in `linear`, `normalization`, `elementwise`, `placement`, `products` and `sequences`. `inputs` finds the inputs that a
model reads, and `rebuild` makes the smaller model. `poise.torch.compaction` does the same for PyTorch modules.
"""

from poise.compaction.input_groups import input_sparsity
from poise.compaction.rebuild import compact
from poise.compaction.report import compare_models, dead_units
from poise.compaction.unit_groups import unit_sparsity

__all__ = ["compact", "compare_models", "dead_units", "input_sparsity", "unit_sparsity"]
