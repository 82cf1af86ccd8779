"""Many trainings of one network at once: the lanes of a path, in one compiled JAX program.

A lane is one training: its weights, the state of its layers and of its optimizer, in which its strength is a variable
like any other. All lanes are the same program on other numbers, so `vmap` runs them side by side: inside over the
strengths of a replica, which share their batches, so that the first layer is one matrix product for all of them;
outside over the replicas, which train on other rows. Rows are found by index, so that folds copy no data.

Where a replica has too few rows for its last batch, rows of its own fill up with weight zero. A mean loss is then
multiplied by (rows in the batch / rows that count), which makes it the mean over those that count.
"""

import functools
import inspect
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from poise.optimizer.penalized import PenalizedOptimizer
from poise.optimizer.targets import measure, values
from poise.path.data.batches import WHOLE, at_once, batches_of
from poise.path.lanes.compile_ahead import Ahead
from poise.path.lanes.losses import loss_of, times
from poise.path.lanes.patience import Keeper, chosen
from poise.path.lanes.threads import Threads, first_part, joined, parted, shares
from poise.path.training import Replica, Training

SEGMENT = 100
"""Steps of settling between two looks at the residuals."""
LOOK = 10
"""A look takes all rows, and settling at least so many times the rows of one look before the next."""
TIMED = 3
"""How often the steps are timed of which the fastest counts."""


@dataclass(eq=False)
class Chunk:
    """What some lanes leave behind, the leading axes being (replicas, strengths).

    `weights` are those of the model, in the order of `model.weights`; `measures` has by name what was measured.
    """

    weights: list[np.ndarray]
    measures: dict[str, np.ndarray]


class Program:
    """The lanes of one model, loss, optimizer and table.

    Args:
        model: a compiled Keras model, on the backend JAX; it is left as it is.
        optimizer: a `PenalizedOptimizer`, built for the model's trainable variables.
        settler: the same optimizer with the learning rates of settling, built likewise.
        data: x, y and sample weights or None, structures of arrays that share their first axis.
        training: how a lane is trained; its `settle` is a number.
        is_mean: whether the loss is a mean over rows (see `is_mean_loss`).
    """

    def __init__(
        self, model, optimizer: PenalizedOptimizer, settler: PenalizedOptimizer, data, training: Training, is_mean: bool
    ):
        self._model = model
        self._optimizer = optimizer
        self._settler = settler
        self._data: Any = self._placed_data(data)
        self._training = training
        self._steps_to_settle = training.settle or 0
        self._is_mean = is_mean
        self._ahead = Ahead()
        self._threads = Threads()

    def _placed_data(self, data):
        return jax.tree.map(jnp.asarray, data)

    def run(self, replicas: list[Replica], starts, lanes, strengths, factors, limits=None, report=None) -> Chunk:
        """Trains every replica at every strength.

        Args:
            replicas: replicas with equally many steps in an epoch.
            starts: for every replica the first values of the trained variables.
            lanes: (replicas, strengths) a number for each lane, of which its dropout is a function.
            strengths: (strengths, rules).
            factors: by (index of a target, number of a rule) the factors of the penalty, (replicas, strengths, groups
                or *shape); empty for those that the rules have.
            limits: (strengths,) epochs after which a lane stops, where nothing is held out to tell; or None.
            report: called with the share of the work that is done.
        """
        training = self._training
        anchors, factors = _stacked_starts(starts), _tensors(factors)
        steps = self._steps(replicas)
        total = training.epochs * steps * (2 if training.start == "dense" else 1) + self._steps_to_settle
        done = 0

        def advanced(by):
            nonlocal done
            done += by
            if report is not None:
                report(min(done / max(total, 1), 1.0))

        def trained(state, factors, keeper=None):
            # Patience looks at all lanes after every epoch.
            count = 1 if keeper else self._shares(state[0][0].shape[:2])
            states, own = parted(state, count), parted(factors, count)
            for epoch in range(training.epochs):
                states = self._threads.each(
                    functools.partial(self._passed, replicas=replicas, epoch=epoch), states, own
                )
                advanced(steps)
                if keeper is not None and keeper.is_through(states[0], epoch + 1):
                    break
            return joined(states, state[0][0].shape[1])

        began = anchors
        if training.start == "dense":
            free = self._begin(self._optimizer, anchors, anchors, lanes[:, :1], 0.0 * strengths[:1])
            began = [w[:, 0] for w in trained(free, {key: value[:, :1] for key, value in factors.items()})[0]]
        keeper = Keeper(self, replicas, lanes.shape, training.patience, limits) if training.patience else None
        state = trained(self._begin(self._optimizer, began, anchors, lanes, strengths), factors, keeper)
        # The optimizer's state is done with, and its memory is wanted for what follows.
        state = (*(state[:2] if keeper is None else keeper.best), [])
        state, settled, measures = self._settled(state, anchors, replicas, strengths, factors, advanced)
        measures["settled"] = settled
        if keeper is not None:
            measures["epochs"] = keeper.best_epochs
        return Chunk(self._weights(state), measures)

    def prepare(self, replicas: list[Replica], starts, lanes, strengths, factors, limits=None):
        """Begins to compile what `run` will call with these arguments, in that order."""
        began, shape = _stacked_starts(starts), lanes.shape
        factors = {key: np.asarray(value, "float32") for key, value in factors.items()}
        trained, fixed, state = self._first(self._optimizer, began, began, lanes, strengths)
        if self._training.epochs:
            batches = batches_of(replicas, self._training.batch_size, 0)
            count = 1 if self._training.patience else self._shares(shape)
            some, own = first_part(((trained, fixed, state), factors), count)
            self._ahead.compile(Program._epoch, self, some, self._data, *batches, own)
        segment = self._segment_steps(replicas)

        def settling(steps):
            first = self._first(self._settler, began, began, lanes, strengths)[2]
            state, own, done = first_part(
                ((trained, fixed, first), factors, np.zeros(shape, bool)), self._shares(shape)
            )
            batches = self._settling_batches(replicas, 0, steps)
            self._ahead.compile(Program._segment, self, state, self._data, *batches, own, done)

        if self._steps_to_settle:
            settling(min(segment, self._steps_to_settle))
        own, others, here = jax.tree.map(lambda a: a[:1], (trained, fixed, factors))
        block, masks = next(self._blocks(replicas))
        counted = {name: (mask[:1], np.int64(0)) for name, mask in masks.items()}
        self._ahead.compile(Program._block, self, own, others, block, counted)
        self._ahead.compile(Program._balance, self, own, own, np.asarray(strengths, "float32"), here)
        if self._steps_to_settle > segment and self._steps_to_settle % segment:
            settling(self._steps_to_settle % segment)

    def forget(self):
        """Lets go of the data and of all that was compiled.

        JAX keeps a method's traces, and with them this object, and what was compiled of it for as long as the process
        lives. Linux lets a process map 65,530 places of memory, and ten studies need as many. What other programs
        have compiled goes too, and is compiled again when it is called.
        """
        self._ahead.close()
        self._threads.close()
        self._data = None
        for _, method in inspect.getmembers(type(self), lambda member: hasattr(member, "clear_cache")):
            method.clear_cache()

    def seconds_of_a_step(self, replicas, starts, lanes, strengths, factors) -> float:
        """How long one training step of these lanes takes, compilation apart."""
        began, factors = _stacked_starts(starts), _tensors(factors)
        state = self._begin(self._optimizer, began, began, lanes, strengths)
        batches = batches_of(replicas, self._training.batch_size, 0)
        count = self._shares(lanes.shape)
        states, own = parted(state, count), parted(factors, count)
        self._ahead.compile(Program._epoch, self, states[0], self._data, *batches, own[0])
        epoch = functools.partial(self._passed, replicas=replicas, epoch=0)
        taken = []
        for _ in range(1 + TIMED):  # the first compiles
            start = time.perf_counter()
            states = jax.block_until_ready(self._threads.each(epoch, states, own))
            taken.append(time.perf_counter() - start)
        return min(taken[1:]) / batches[0].shape[1]

    def _begin(self, optimizer, began, anchors, lanes, strengths):
        return _placed(self._first(optimizer, began, anchors, lanes, strengths))

    def _first(self, optimizer, began, anchors, lanes, strengths):
        """The first trained values, other values and values of the optimizer, each (replicas, strengths, ...)."""
        shape = lanes.shape
        trained = [np.broadcast_to(np.asarray(w)[:, None], (*shape, *w.shape[1:])) for w in began]
        fixed = []
        for variable in self._model.non_trainable_variables:
            value = np.broadcast_to(np.asarray(variable.value), (*shape, *variable.shape))
            if variable.name.endswith("seed_generator_state"):
                value = value + np.stack([lanes, np.zeros_like(lanes)], axis=-1).astype(value.dtype)
            fixed.append(value)
        own = {}
        for number, variable in optimizer.strength.variables.items():
            own[id(variable)] = np.asarray(strengths[:, number], variable.dtype)
        for target in optimizer.targets:
            for variable in target.anchors:
                own[id(variable)] = np.asarray(anchors[target.index])[:, None]
        first = [own.get(id(variable), np.asarray(variable.value)) for variable in optimizer.variables]
        state = [np.broadcast_to(w, (*shape, *v.shape)) for v, w in zip(optimizer.variables, first, strict=True)]
        return trained, fixed, state

    def _steps(self, replicas):
        """How many batches an epoch has."""
        return batches_of(replicas, self._training.batch_size, 0)[0].shape[1]

    def _shares(self, shape) -> int:
        """Among how many threads the strengths of lanes, (replicas, strengths), are shared out."""
        return shares(shape, sum(int(np.prod(v.shape)) for v in [*self._model.weights, *self._optimizer.variables]))

    def _passed(self, state, factors, replicas, epoch):
        """The state after an epoch."""
        batches = batches_of(replicas, self._training.batch_size, epoch)
        return self._ahead.call(Program._epoch, self, state, self._data, *batches, factors)

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def _epoch(self, state, data, rows, counted, factors):
        """All batches of an epoch. `rows`, `counted`: (replicas, steps, rows in a batch).

        The data are an argument: what a program reads from `self` is written into it, a copy for every compilation.
        """

        def step(state, batch):
            rows, counted = batch
            x, y, given = jax.tree.map(lambda a: a[rows], data)
            weights = times(self._weighed(counted), given)
            return self._stepped(self._optimizer, state, x, y, weights, factors), None

        return jax.lax.scan(step, state, (rows.swapaxes(0, 1), counted.swapaxes(0, 1)))[0]

    def _weighed(self, counted):
        """The weights of the rows of some batches, (..., rows): 0 for those that do not count."""
        rows = counted.shape[-1]
        return counted * self._factor(rows, counted.sum(-1, keepdims=True))

    def _stepped(self, optimizer, state, x, y, weights, factors):
        def lane(state, x, y, weights, factors):
            trained, fixed, inner = state
            (_, (_, fixed)), gradients = self._gradient(trained, fixed, x, y, weights, True)
            with optimizer.reweighted(factors):
                trained, inner = optimizer.stateless_apply(inner, gradients, trained)
            return list(trained), fixed, list(inner)

        strengths = jax.vmap(lane, in_axes=(0, None, None, None, 0))
        return jax.vmap(strengths)(state, x, y, weights, factors)

    def _gradient(self, trained, fixed, x, y, weights, is_training):
        """((prediction loss, (predictions, the other variables' new values)), its gradient) of one lane."""

        def loss_at(trained):
            with self._scope(trained, fixed) as scope:
                predicted = self._model(x, training=is_training)
                loss = loss_of(self._model, x, y, predicted, weights, is_training)
            after = [scope.get_current_value(variable) for variable in self._model.non_trainable_variables]
            after = [old if new is None else new for old, new in zip(fixed, after, strict=True)]
            return loss, (predicted, after)

        return jax.value_and_grad(loss_at, has_aux=True)(trained)

    def _scope(self, trained, fixed):
        variables = [*self._model.trainable_variables, *self._model.non_trainable_variables]
        mapping = [*zip(variables, [*trained, *fixed], strict=True)]
        return keras.StatelessScope(mapping, collect_losses=True)

    def _settled(self, state, anchors, replicas, strengths, factors, advanced):
        """Full-batch steps until every lane's residual is small, or their number is reached.

        Returns the state, how many steps each lane took, (replicas, strengths), and what is measured at the end. A
        lane that has settled stays as it is, whatever the others do.
        """
        trained, fixed, _ = state
        shape = trained[0].shape[:2]
        taken = np.zeros(shape, int)
        if not self._steps_to_settle:
            return state, taken, self.measured(state, replicas, strengths, factors)
        begun = self._begin(self._settler, anchors, anchors, np.zeros(shape, int), strengths)[2]
        state = (trained, fixed, begun)
        done = np.zeros(shape, bool)
        count, segment = self._shares(shape), self._segment_steps(replicas)
        for first in range(0, self._steps_to_settle, segment):
            steps = min(segment, self._steps_to_settle - first)
            parts = (parted(tree, count) for tree in (state, factors, done))
            move = functools.partial(self._moved, replicas=replicas, first=first, steps=steps)
            state = joined(self._threads.each(move, *parts), shape[1])
            taken += np.where(done, 0, steps)
            advanced(steps)
            measures = self.measured(state, replicas, strengths, factors)
            is_small = measures["residual"] <= self._training.tolerance * measures["gradient"]
            done = done | is_small | measures["diverged"]
            if done.all():
                break
        return state, taken, measures

    def _moved(self, state, factors, done, replicas, first, steps):
        """The state after so many steps of settling, that of the lanes that are done as it was."""
        batches = self._settling_batches(replicas, first, steps)
        return self._ahead.call(Program._segment, self, state, self._data, *batches, factors, done)

    def _settling_batches(self, replicas, first, steps):
        """The rows, whether they count, and the number of the batch for every step."""
        rows, counted = batches_of(replicas, at_once(max(len(replica.train) for replica in replicas)), 0)
        return rows, counted, np.arange(first, first + steps) % rows.shape[1]

    def _segment_steps(self, replicas):
        return max(SEGMENT, LOOK * self._parts(replicas))

    def _parts(self, replicas):
        """In how many steps of settling every row comes once."""
        rows = max(len(replica.train) for replica in replicas)
        return -(-rows // at_once(rows))

    @functools.partial(jax.jit, static_argnums=0)
    def _segment(self, state, data, rows, counted, numbers, factors, done):
        whole = rows.shape[1] == 1
        gathered: Any = jax.tree.map(lambda a: a[rows[:, 0]], data) if whole else None

        def step(state, number):
            here = rows[:, number]
            x, y, given = gathered if whole else jax.tree.map(lambda a: a[here], data)
            weights = times(self._weighed(counted[:, number]), given)
            return self._stepped(self._settler, state, x, y, weights, factors), None

        after = jax.lax.scan(step, state, numbers)[0]

        return chosen(done, state, after)

    def held_losses(self, state, replicas):
        """The prediction losses on the rows held out, (replicas, strengths)."""
        trained, fixed, _ = state
        held = [replica.held for replica in replicas]
        size = max(map(len, held))
        rows = np.stack([np.resize(h, size) for h in held]).astype("int32")
        counted = np.stack([np.arange(size) < len(h) for h in held])
        return np.asarray(self._held(trained, fixed, self._data, rows, counted), "float64")

    @functools.partial(jax.jit, static_argnums=0)
    def _held(self, trained, fixed, data, rows, counted):
        def lane(trained, fixed, x, y, weights):
            with self._scope(trained, fixed):
                return loss_of(self._model, x, y, self._model(x, training=False), weights, False)

        x, y, given = jax.tree.map(lambda a: a[rows], data)
        inside = jax.vmap(lane, in_axes=(0, 0, None, None, None))
        return jax.vmap(inside)(trained, fixed, x, y, times(self._weighed(counted), given))

    def measured(self, state, replicas, strengths, factors):
        """By name (replicas, strengths): the losses, the penalty, the residual and its like, with dropout off."""
        trained, fixed, _ = state
        counts = {
            "loss": np.array([len(replica.train) for replica in replicas]),
            "held_loss": np.array([len(replica.held) for replica in replicas]),
        }
        # Each replica alone: their activations would not fit the cache together, and one program does for any number.
        whole = jax.tree.map(np.asarray, (trained, fixed, factors))
        alone = [_placed(jax.tree.map(lambda a, n=n: a[n : n + 1], whole)) for n in range(len(replicas))]
        sums: list[Any] = [None] * len(replicas)
        for block, masks in self._blocks(replicas):
            for number, (own, others, _) in enumerate(alone):
                if not any(mask[number].any() for mask in masks.values()):
                    continue
                here = {name: (mask[number : number + 1], counts[name][number]) for name, mask in masks.items()}
                found = self._ahead.call(Program._block, self, own, others, block, here)
                sums[number] = found if sums[number] is None else jax.tree.map(jnp.add, sums[number], found)
        strengths = np.asarray(strengths, "float32")
        found = [
            (losses, *self._ahead.call(Program._balance, self, own, gradients, strengths, here))
            for (own, _, here), (losses, gradients) in zip(alone, sums, strict=True)
        ]
        losses, squares, penalty = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
        squares = np.asarray(squares, "float64")
        measures = {
            "loss": np.asarray(losses["loss"], "float64"),
            "held_loss": np.asarray(losses["held_loss"], "float64"),
            "penalty": np.asarray(penalty, "float64"),
            "gradient": np.sqrt(squares[..., 0].sum(-1)),
            "residual": np.sqrt(squares[..., 3].sum(-1)),
        }
        measures["held_loss"][[len(replica.held) == 0 for replica in replicas]] = np.nan
        shape = measures["loss"].shape
        is_finite = functools.reduce(
            np.logical_and, [np.isfinite(np.asarray(w, "float32")).reshape(*shape, -1).all(-1) for w in whole[0]]
        )
        measures["diverged"] = ~(is_finite & np.isfinite(measures["loss"]))
        return measures

    def _blocks(self, replicas):
        """All rows in parts: (x, y, sample weights) and how often each row trains and is held out, (replicas, rows).

        Where every replica has rows of its own, as those of a study, a part is no larger than the rows of one.
        """
        count = len(jax.tree.leaves(self._data)[0])
        masks = {name: np.zeros((len(replicas), count), "float32") for name in ("loss", "held_loss")}
        for number, replica in enumerate(replicas):
            np.add.at(masks["loss"][number], replica.train, 1.0)
            np.add.at(masks["held_loss"][number], replica.held, 1.0)
        span = max(np.ptp(np.concatenate([replica.train, replica.held])) + 1 for replica in replicas)
        size = min(int(span), WHOLE) if 2 * span <= count else WHOLE
        for first in range(0, count, size):
            part = slice(first, first + size)
            yield (
                jax.tree.map(lambda a: a[part], self._data),  # noqa: B023
                {name: mask[:, part] for name, mask in masks.items()},
            )

    def _factor(self, rows, counted):
        """What makes a loss over `rows` of which `counted` count (weight 1) the loss over those that count."""
        return rows / jnp.maximum(counted, 1.0) if self._is_mean else jnp.ones(counted.shape, "float32")

    @functools.partial(jax.jit, static_argnums=0)
    def _block(self, trained, fixed, data, masks):
        x, y, given = data
        shares = {name: mask * self._factor(mask.shape[1], count) for name, (mask, count) in masks.items()}

        def lane(trained, fixed, shares):
            (loss, (predicted, _)), gradient = self._gradient(trained, fixed, x, y, times(shares["loss"], given), False)
            with self._scope(trained, fixed):
                held = loss_of(self._model, x, y, predicted, times(shares["held_loss"], given), False)
            return {"loss": loss, "held_loss": held}, gradient

        return jax.vmap(jax.vmap(lane, in_axes=(0, 0, None)))(trained, fixed, shares)

    @functools.partial(jax.jit, static_argnums=0)
    def _balance(self, trained, gradients, strengths, factors):
        """The sums of `poise.optimizer.targets.measure` per target, (replicas, strengths, targets, 4), and the penalty."""

        def lane(trained, gradients, strengths, factors):
            targets = [target.reweighted(factors) for target in self._optimizer.targets]
            if not targets:
                return jnp.zeros((0, 4)), jnp.zeros(())
            weights = {target.index: target.gathered(trained.__getitem__) for target in targets}
            rows = [measure(t, weights[t.index], t.gathered(gradients.__getitem__), strengths) for t in targets]
            worth = values(targets, weights, strengths)
            return jnp.stack(rows), sum(worth)

        return jax.vmap(jax.vmap(lane), in_axes=(0, 0, None, 0))(trained, gradients, strengths, factors)

    def _weights(self, state):
        trained, fixed, _ = state
        variables = [*self._model.trainable_variables, *self._model.non_trainable_variables]
        found = {id(v): value for v, value in zip(variables, [*trained, *fixed], strict=True)}
        return [np.asarray(found[id(weight)]) for weight in self._model.weights]


def _tensors(factors):
    return {key: jnp.asarray(value, "float32") for key, value in factors.items()}


def _stacked_starts(starts):
    return [np.stack(values) for values in zip(*starts, strict=True)]


def _placed(state):
    """The state with its strengths shared out over the local devices, if their number divides evenly."""
    devices = jax.local_devices()
    if len(devices) == 1 or state[0][0].shape[1] % len(devices):
        return jax.device_put(jax.tree.map(np.array, state))
    mesh = jax.sharding.Mesh(np.array(devices), ("lanes",))
    return jax.device_put(state, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "lanes")))
