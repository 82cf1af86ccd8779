"""The networks that a study trains, by the encoding of the columns of numbers."""

from dataclasses import dataclass

import keras
import numpy as np

from poise.path.models import seed_initial_weights
from poise.study.candidates.network import ModelFunction, build_start
from poise.study.candidates.penalties import PENALTIES
from poise.study.candidates.screening import HiddenColumns, choose_hidden_columns
from poise.study.columns.encoding import AUTO, PIECEWISE, STANDARD
from poise.study.columns.folds import Folds, encode_folds
from poise.study.encoded_rows import EncodedRows, encode_test_rows
from poise.study.settings import NO_PENALTY, Settings
from poise.study.tables import Table

MOST_COLUMNS = 5_000
"""With more columns, `"auto"` does not try pieces, which would take too much memory."""


@dataclass(frozen=True, eq=False)
class EncodedNetwork:
    """The rows with one encoding, and the network that is trained on them.

    Args:
        start: The network from which every training starts.
        rows: The training rows.
        test_rows: The test rows.
        hidden: The columns that the hidden layers read; `None` if they read all inputs.
    """

    start: keras.Model
    rows: Folds
    test_rows: EncodedRows
    hidden: HiddenColumns | None


class EncodedNetworks:
    """The networks of a study, by the encoding of columns of numbers.

    With `encoding="auto"`, candidates get standardized numbers. Penalties that drop columns get the piecewise-linear
    encoding as well, if the network is the built-in one, a column has more than two distinct numbers, and the table is
    not very wide. If there is such a penalty, so does the baseline, so that the verdict compares like with like.

    Args:
        table: The table.
        training, testing: Positions of the training rows and the test rows.
        pairs: The folds, as `encode_folds` takes them.
        settings: The settings.
        model: A custom model, or `None`.
    """

    def __init__(
        self,
        table: Table,
        training: np.ndarray,
        testing: np.ndarray,
        pairs: list[tuple[np.ndarray, np.ndarray]],
        settings: Settings,
        model: str | ModelFunction | None,
    ) -> None:
        self._table, self._training, self._testing, self._pairs = table, training, testing, pairs
        self._settings, self._model = settings, model
        self._rows: dict[str, tuple[Folds, EncodedRows]] = {}
        self._networks: dict[tuple[str, bool], EncodedNetwork] = {}

    def with_folds(self, pairs: list[tuple[np.ndarray, np.ndarray]]) -> "EncodedNetworks":
        """Return the networks of the same study with other folds."""
        return EncodedNetworks(self._table, self._training, self._testing, pairs, self._settings, self._model)

    def get(self, name: str, encoding: str) -> EncodedNetwork:
        """Return the network of a candidate with an encoding.

        Columns are screened only if the penalty drops columns. Such a penalty can hold the hidden weights of a column
        at zero in the folds that did not choose it. With any other penalty, the hidden layers of a fold would also read
        columns that were chosen with its held-out rows.
        """
        is_screened = encoding == PIECEWISE and _drops_columns(name)
        if (encoding, is_screened) not in self._networks:
            self._networks[encoding, is_screened] = self._build(encoding, is_screened)
        return self._networks[encoding, is_screened]

    def encodings_of(self, name: str) -> tuple[str, ...]:
        """Return the encodings with which a candidate is trained; the held-out loss chooses one."""
        if self._settings.encoding != AUTO:
            return (self._settings.encoding,)
        judged = self._settings.penalties if name == NO_PENALTY else (name,)
        if not any(_drops_columns(each) for each in judged) or self._model is not None:
            return (STANDARD,)
        if sum(column.is_used for column in self._table.columns) > MOST_COLUMNS:
            return (STANDARD,)
        has_pieces = any(key.is_piece for key in self.encode(PIECEWISE)[0].encoder.keys)
        return (STANDARD, PIECEWISE) if has_pieces else (STANDARD,)

    def encode(self, encoding: str) -> tuple[Folds, EncodedRows]:
        """Return the training rows and the test rows with an encoding."""
        if encoding not in self._rows:
            rows = encode_folds(self._table, self._training, self._pairs, encoding)
            test_rows = encode_test_rows(self._table, self._testing, rows, self._settings.seed)
            self._rows[encoding] = rows, test_rows
        return self._rows[encoding]

    def _build(self, encoding: str, is_screened: bool) -> EncodedNetwork:
        table, settings = self._table, self._settings
        rows, test_rows = self.encode(encoding)
        hidden = None
        if encoding == PIECEWISE and settings.hidden_layer_sizes and self._model is None:
            hidden = choose_hidden_columns(
                rows.x, rows.y, rows.weight, rows.replicas, rows.encoder.owners,
                np.array([key.is_piece for key in rows.encoder.keys]), len(table.classes), is_screened,
            )  # fmt: skip
        every = rows.replicas[-1].train
        if self._model is not None:  # a custom function may use any generator
            keras.utils.set_random_seed(settings.seed)
        with seed_initial_weights(settings.seed):
            start = build_start(
                table.task, rows.x.shape[1], len(table.classes), rows.y[every],
                None if rows.weight is None else rows.weight[every], settings.hidden_layer_sizes,
                settings.learning_rate, self._model, None if hidden is None else hidden.inputs,
            )  # fmt: skip
        return EncodedNetwork(start, rows, test_rows, hidden)


def _drops_columns(name: str) -> bool:
    return name in PENALTIES and PENALTIES[name].drops_columns
