"""The version of poise, which can be read without importing Keras."""

__version__ = "0.2.0"
