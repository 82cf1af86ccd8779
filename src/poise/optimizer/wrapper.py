"""An optimizer around another one, whose settings are read and set through it."""

from collections.abc import Sequence
from typing import Any

import keras

from poise.optimizer.inner import PAUSED


class InnerSetting:
    """A setting that Keras' base class stores, and that the wrapper reads from and writes to its inner optimizer."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, wrapper: Any, owner: type | None = None) -> Any:
        if wrapper is None:
            return self
        inner = vars(wrapper).get("inner_optimizer")
        if self._name == "use_ema" and inner is not None and PAUSED in vars(inner):
            return vars(inner)[PAUSED][1]
        return None if inner is None else getattr(inner, self._name)

    def __set__(self, wrapper: Any, value: Any) -> None:
        # The constructor of the base class sets its defaults before there is an inner optimizer.
        if "inner_optimizer" in vars(wrapper):
            wrapper.set_inner(self._name, value)


class OptimizerWrapper(keras.optimizers.Optimizer):
    """An optimizer that takes its settings, learning rate and iterations from its `inner_optimizer`.

    A subclass sets `inner_optimizer` in its constructor and gives `set_inner`.
    """

    inner_optimizer: Any

    weight_decay = InnerSetting()
    clipnorm = InnerSetting()
    clipvalue = InnerSetting()
    global_clipnorm = InnerSetting()
    use_ema = InnerSetting()
    ema_momentum = InnerSetting()
    ema_overwrite_frequency = InnerSetting()
    gradient_accumulation_steps = InnerSetting()
    loss_scale_factor = InnerSetting()

    def __init__(self, name: str | None) -> None:
        # The inner optimizer counts the steps and holds the rate; the base class's step count and rate stay unchanged.
        super().__init__(learning_rate=0.0, name=name)

    def set_inner(self, name: str, value: Any) -> None:
        """Set an attribute of the inner optimizer."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        inner = vars(self).get("inner_optimizer")
        if inner is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        inner = vars(self).get("inner_optimizer")
        is_own = inner is None or name.startswith("_") or name in vars(self) or hasattr(type(self), name)
        if is_own or not hasattr(inner, name):
            super().__setattr__(name, value)
        else:
            self.set_inner(name, value)

    @property
    def iterations(self) -> Any:
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    def scale_loss(self, loss: Any) -> Any:
        return self.inner_optimizer.scale_loss(loss)

    def exclude_from_weight_decay(
        self, var_list: Sequence[Any] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)
