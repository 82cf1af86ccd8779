"""Studies that several files read: a worker trains them once, and leaves them to the others."""

import os
import pickle
from dataclasses import replace

import pytest
from oracles.hostile import TARGET, hostile_frame

from poise.study import run_study

SMALL = {"max_iter": 60, "strengths": 4, "cv": 2}


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A function of a name and of what trains a study; it trains where no worker has yet."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name, train):
        file = shared / f"{name}.pickle"
        if not file.exists():
            own = base / f"{name}.part"
            own.write_bytes(pickle.dumps(train()))
            own.replace(file)
        return pickle.loads(file.read_bytes())

    return once


@pytest.fixture(scope="session")
def diabetes_study(trained):
    """The candidates none, l2, group and adaptive, of which l2 is chosen."""

    def train():
        penalties = ["l2", "group", "adaptive"]
        found = run_study("diabetes", penalties=penalties, choose="l2", hidden_layer_sizes=(16, 4), **SMALL)
        return replace(found, settings=replace(found.settings, choose=None))

    return trained("diabetes", train)


@pytest.fixture(scope="session")
def alone(trained):
    """No penalty at all."""
    return trained("alone", lambda: run_study("wine", penalties=[], hidden_layer_sizes=(4,), **SMALL))


@pytest.fixture(scope="session")
def hostile(trained):
    """Names, values and classes that are code elsewhere."""

    def train():
        given = {**SMALL, "strengths": 5}
        return run_study(hostile_frame(), TARGET, penalties=["l2", "adaptive"], hidden_layer_sizes=(6,), **given)

    return trained("hostile", train)
