"""Lanes over rows that do not fit into memory: every lane trains on each batch as it passes."""

import functools

import jax
import numpy as np

from poise.path.data.streams import Stream
from poise.path.lanes.losses import times
from poise.path.lanes.patience import chosen
from poise.path.lanes.program import Program


class Passing(Program):
    """The lanes of one model over a `Stream`.

    A batch is as large as it comes. In it a replica trains on its own rows, which repeat with weight zero where others
    are held out; a batch that has none of them is no step for it. Settling takes its steps on the batches, too.
    """

    def _placed_data(self, data: Stream):
        return data

    def prepare(self, replicas, starts, lanes, strengths, factors, limits=None):
        """Nothing: a batch would have to pass for it."""

    def _shares(self, shape):
        return 1

    def _steps(self, replicas):
        return self._data.batches

    def _passed(self, state, factors, replicas, epoch):
        for batch, rows, counted in self._batches(replicas):
            state = self._step(state, batch, rows, counted, factors, False)
        return state

    def _moved(self, state, factors, done, replicas, first, steps):
        before, number = state, 0
        while number < steps:
            for batch, rows, counted in self._batches(replicas):
                state = self._step(state, batch, rows, counted, factors, True)
                number += 1
                if number == steps:
                    break
        return chosen(done, before, state)

    def _parts(self, replicas):
        return self._data.batches

    def _blocks(self, replicas):
        member = _members(replicas, self._data.rows)
        for first, batch in self._data.passes():
            count = len(jax.tree.leaves(batch)[0])
            masks = {name: np.zeros((len(replicas), self._data.largest), "float32") for name in ("loss", "held_loss")}
            masks["loss"][:, :count] = member[:, first : first + count]
            holds = np.array([len(replica.held) > 0 for replica in replicas])[:, None]
            masks["held_loss"][:, :count] = ~member[:, first : first + count] & holds
            yield self._filled(batch), masks

    def held_losses(self, state, replicas):
        strengths = np.zeros((state[0][0].shape[1], len(self._optimizer.rules)))
        return self.measured(state, replicas, strengths, {})["held_loss"]

    def _batches(self, replicas):
        """Every batch with the rows of each replica in it and whether they count, (replicas, rows) both."""
        member = _members(replicas, self._data.rows)
        size = self._data.largest
        for first, batch in self._data.passes():
            count = len(jax.tree.leaves(batch)[0])
            rows = np.zeros((len(replicas), size), "int32")
            counted = np.zeros((len(replicas), size), bool)
            for number, is_own in enumerate(member[:, first : first + count]):
                own = np.flatnonzero(is_own)
                if len(own):
                    rows[number] = np.resize(own, size)
                    counted[number, : len(own)] = True
            yield self._filled(batch), rows, counted

    def _filled(self, batch):
        """The batch with rows repeated, up to the size of the largest."""
        count = len(jax.tree.leaves(batch)[0])
        rows = np.resize(np.arange(count), self._data.largest)
        return batch if count == len(rows) else jax.tree.map(lambda a: a[rows], batch)

    @functools.partial(jax.jit, static_argnums=(0, 6))
    def _step(self, state, batch, rows, counted, factors, is_settling):
        x, y, given = jax.tree.map(lambda a: a[rows], batch)
        weights = times(self._weighed(counted), given)
        optimizer = self._settler if is_settling else self._optimizer
        after = self._stepped(optimizer, state, x, y, weights, factors)
        return chosen(counted.any(axis=1)[:, None], after, state)


def _members(replicas, rows):
    """(replicas, rows): does the replica train on the row?"""
    member = np.zeros((len(replicas), rows), bool)
    for number, replica in enumerate(replicas):
        member[number, replica.train] = True
    return member
