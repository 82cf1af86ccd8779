"""Trainings that save themselves after every epoch, and a process that is killed in the middle of one.

Keras saves no state of its random layers, so that a training with dropout draws anew when it is resumed: here is none.

    python interrupted.py kill FOLDER      begins every training, and dies in the third epoch of all of them
    python interrupted.py resume FOLDER    trains on from what is on the disk, and writes what came out
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import callbacks, optimizers
from oracles.models import compiled, table

import poise

EPOCHS, ROWS, BATCH = 4, 40, 8
KILLED_IN = (2, 3)
"""The epoch and the batch, both counted from 0: two epochs are finished, and a part of the third is lost."""


class Stronger(callbacks.Callback):
    """Raises the first strength after every epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        strength = poise.get_penalized_optimizer(self.model).strength
        strength[next(iter(strength))] *= 1.5


def averaged_and_proximal() -> keras.Model:
    inner = optimizers.SGD(0.05, 0.9, nesterov=True, use_ema=True, ema_momentum=0.8)
    rules = [poise.Rule("features/kernel", poise.GroupLasso(0.02)), poise.Rule("head/kernel", poise.L1(0.02))]
    return compiled(poise.PenalizedOptimizer(inner, rules, update="proximal", observe_every=2))


def scheduled_and_decoupled() -> keras.Model:
    inner = optimizers.Adam(optimizers.schedules.ExponentialDecay(0.05, 5, 0.8))
    warm_up = optimizers.schedules.PolynomialDecay(0.0, 15, 0.2)
    rules = [
        poise.Rule("features/kernel", poise.L1(0.01)),
        poise.Rule("head/kernel", poise.Anchored(poise.L2(warm_up))),
    ]
    return compiled(poise.PenalizedOptimizer(inner, rules, update="decoupled"))


def half_and_accumulated() -> keras.Model:
    """5 batches an epoch and 2 to an update: at the end of the first epoch there is a gradient to carry on."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inner = optimizers.RMSprop(0.02, momentum=0.5, gradient_accumulation_steps=2)
        return compiled(poise.PenalizedOptimizer(inner, poise.L1(0.02), update="proximal", observe_every=1))
    finally:
        keras.config.set_dtype_policy("float32")


BACKED_UP: dict[str, Callable[[], keras.Model]] = {
    made.__name__: made for made in (averaged_and_proximal, scheduled_and_decoupled, half_and_accumulated)
}
CHECKPOINTED = "checkpointed"
KINDS = [*BACKED_UP, CHECKPOINTED]


def train(kind: str, folder: Path, *watch: callbacks.Callback) -> None:
    """Trains, from what is saved in the folder if something is, and writes the weights, the state and the logs."""
    folder = folder / kind
    folder.mkdir(exist_ok=True)
    done = 0
    if kind == CHECKPOINTED:
        saved = sorted(folder.glob("*.keras"))
        done = len(saved)
        model = keras.saving.load_model(saved[-1]) if saved else averaged_and_proximal()
        save = callbacks.ModelCheckpoint(str(folder / "{epoch}.keras"))
    else:
        model = BACKED_UP[kind]()
        save = callbacks.BackupAndRestore(str(folder / "backup"))
    raises = poise.TargetSparsity("kernels", 0.5) if kind == half_and_accumulated.__name__ else Stronger()
    fit = {"initial_epoch": done, "verbose": 0, "shuffle": False}
    history = model.fit(
        *table(ROWS), BATCH, EPOCHS, **fit, callbacks=[poise.PenaltyLogger(), *watch, raises, save]
    ).history
    values = [*model.variables, *model.optimizer.variables]
    np.savez(folder / "state.npz", *[keras.ops.convert_to_numpy(value) for value in values])
    (folder / "logs.json").write_text(json.dumps(history))


class Stop(callbacks.Callback):
    """Says that the fatal batch is reached, and waits there for ever."""

    def __init__(self, is_there: threading.Event) -> None:
        super().__init__()
        self.is_there = is_there
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == KILLED_IN:
            self.is_there.set()
            threading.Event().wait()


def kill(folder: Path) -> None:
    """Each training runs in a thread of its own to the fatal batch; then the process is killed with all of them."""
    for kind in KINDS:
        is_there = threading.Event()
        threading.Thread(target=train, args=(kind, folder, Stop(is_there)), daemon=True).start()
        if not is_there.wait(timeout=120):
            sys.exit(f"{kind} did not come to batch {KILLED_IN}.")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    command, arguments = sys.argv[1], Path(sys.argv[2])
    if command == "kill":
        kill(arguments)
    for kind in KINDS:
        train(kind, arguments)
