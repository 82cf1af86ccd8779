"""Two processes train the weights that one process trains on the joined batches.

`two_processes.py` is run twice, and does everything that is compared here.
"""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import two_processes as program
from torch.testing import assert_close

Outcomes = list[dict[str, Any]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """The results of both processes, by the name of the scenario."""
    folder = tmp_path_factory.mktemp("processes")
    environment = {**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    outputs = [folder / f"{rank}.pt" for rank in (0, 1)]
    processes = [
        subprocess.Popen(
            [sys.executable, program.__file__, str(rank), str(folder / "meeting"), str(outputs[rank])],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    messages = [process.communicate(timeout=300)[1] for process in processes]
    if not all(output.exists() for output in outputs):
        pytest.fail("\n".join(messages))
    return [torch.load(output, weights_only=True) for output in outputs]


def check(outcomes: Outcomes, scenario: str, expected: dict[str, Any]) -> None:
    first, second = (results.get(scenario, "The process ended before.") for results in outcomes)
    for result in (first, second):
        assert isinstance(result, dict), result
        assert result["zeros"] == expected["zeros"]
        assert result["steps"] == expected["steps"]
        assert_close(result["penalty"], expected["penalty"], rtol=1e-5, atol=0.0)
        assert_close(
            torch.tensor(result["forces"]), torch.tensor(expected["forces"]), rtol=1e-4, atol=1e-5, equal_nan=True
        )
    for w, other, alone in zip(first["weights"], second["weights"], expected["weights"], strict=True):
        assert torch.equal(w, other)
        assert torch.equal(w == 0, alone == 0)
        assert_close(w, alone, rtol=0.0, atol=2e-6)


@pytest.mark.parametrize("case", program.REPLICATED, ids=str)
def test_replicas_train_as_one_process(case: tuple[str, str, int], outcomes: Outcomes) -> None:
    expected = program.alone(*case[:2])

    assert case[1] in ("L2", "anchored") or any((w == 0).any() for w in expected["weights"])
    check(outcomes, f"replicated {case}", expected)


@pytest.mark.parametrize("case", program.SHARDED, ids=str)
def test_shards_train_as_one_process(case: tuple[str, str, str], outcomes: Outcomes) -> None:
    check(outcomes, f"sharded {case}", program.alone(*case))


@pytest.mark.parametrize("case", program.RESUMED, ids=str)
def test_shards_that_are_saved_and_loaded_continue(case: tuple[str, str, str], outcomes: Outcomes) -> None:
    check(outcomes, f"resumed {case}", program.alone(*case[:2]))

    strength = program.RULES[case[1]]().strength
    assert [results[f"resumed {case}"]["strength"] for results in outcomes] == [strength, strength]


@pytest.mark.parametrize("rules", ["groups", "factors"])
def test_penalties_that_need_the_whole_weight_are_refused_on_shards(rules: str, outcomes: Outcomes) -> None:
    kind = {"groups": "GroupLasso", "factors": "L1"}[rules]

    for results in outcomes:
        assert results[f"refused {rules}"] == (
            "Rule '0.weight' matches '0.weight', which is sharded over several processes. Only penalties of single "
            f"entries without factors, such as poise.L1, act on shards, got {kind}. Use update='coupled', or do not "
            "shard this module."
        )
