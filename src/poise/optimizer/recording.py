"""What an optimizer records during training, as callbacks and reports read it."""

from poise.optimizer.records import ForceRecord, PenaltyRecord, Records
from poise.optimizer.state import State
from poise.optimizer.wrapper import OptimizerWrapper


class RecordingOptimizer(OptimizerWrapper):
    """An optimizer that records the values of its penalties and the forces on the weights.

    A subclass sets `_state` in its constructor, and the records in it when it is built.
    """

    _state: State

    def penalty_record(self) -> PenaltyRecord:
        """Return the values of the penalties during training, since `keep_values` or `reset_values`.

        Returns:
            A `PenaltyRecord` with the fields `total`, `last` and `steps`.

        Raises:
            ValueError: If the optimizer is not built.
        """
        return self._records.values()

    def force_record(self) -> ForceRecord:
        """Return the forces at the observed steps, since the optimizer was built or `reset_forces`.

        Returns:
            A `ForceRecord` with the fields `total` and `samples`.

        Raises:
            ValueError: If the optimizer is not built.
        """
        return self._records.forces()

    def keep_values(self) -> bool:
        """Start to record the values of the penalties at every step, which takes one more pass over the weights.

        Returns:
            True if recording was off before. In that case, recompile the training step.
        """
        is_new = not self._state.records_values
        self._state.records_values = True
        return is_new

    def reset_values(self) -> None:
        """Discard the recorded values of the penalties."""
        if self.built:
            self._records.reset_values()

    def reset_forces(self) -> None:
        """Discard the recorded forces."""
        if self.built:
            self._records.reset_forces()

    @property
    def _records(self) -> Records:
        if self._state.records is None:
            raise ValueError(
                f"The optimizer {self.name!r} is not built and has recorded nothing. Train the model, or call "
                "optimizer.build(model.trainable_variables)."
            )
        return self._state.records
