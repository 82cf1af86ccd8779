"""The parts of `python benchmarks/speed.py`, one per module.

The function of a part takes `Options` and yields the rows of its table. The functions that it measures are contenders:
each runs in a process of its own and returns numbers.
"""
