"""Random networks with random dead units give the same outputs, and only the units that must stay are left."""

import pytest
import torch
from module_checks import compacted
from random_modules import FAMILIES, build, count_needed


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_network_loses_every_unit_that_can_be_removed(family, seed) -> None:
    network = build(FAMILIES[family], seed).double()
    x = torch.randn((3, *network.family.shape), dtype=torch.float64)
    with torch.no_grad():
        needed = count_needed(network, x)

    smaller = compacted(network, x)

    for (_, units), (module, _) in zip(network.record.makers, smaller.record.makers, strict=True):
        made = module.hidden_size if isinstance(module, torch.nn.RNNBase) else module.weight.shape[0]
        assert made == len(needed.intersection(units)), module
