"""Keras' private names, which poise touches nowhere else."""

from keras.src.saving.keras_saveable import KerasSaveable

__all__ = ["KerasSaveable"]
