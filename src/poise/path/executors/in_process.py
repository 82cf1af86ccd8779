"""Train lanes in this process."""

from collections.abc import Iterator

from poise.path.executors.base import Arrays, Problem, Report, local_memory
from poise.path.executors.worker import LaneWorker
from poise.path.lanes.problem import Task
from poise.path.training import Replica, Training


class InProcessExecutor:
    """Train one chunk after the other in this process, which must run JAX.

    Args:
        problem: problem of the path.

    Raises:
        ValueError: If the model cannot be trained in lanes.
    """

    parallel_chunks = 1

    def __init__(self, problem: Problem):
        self.memory = local_memory()
        self._worker = LaneWorker(problem)

    def run(self, tasks: Iterator[tuple[int, Task]], report: Report) -> Iterator[tuple[int, Arrays]]:
        for number, task in tasks:
            yield number, self._worker.train(task, report)

    def fastest_size(self, replica: Replica, training: Training, sizes: list[int]) -> int:
        return self._worker.fastest_size(replica, training, sizes)

    def close(self) -> None:
        self._worker.close()
