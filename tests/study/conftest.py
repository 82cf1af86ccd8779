"""Findings of studies that several files use: one worker trains them once and shares them with the others."""

import os
import pickle
from dataclasses import replace
from typing import Any

import pytest
from oracles.hostile import TARGET, hostile_frame

from poise.study.candidates import references
from poise.study.run import run_study


@pytest.fixture(autouse=True)
def few_trees(request, monkeypatch) -> None:
    """Boosted trees take most of the time of a small study."""
    if "test_references" not in request.node.nodeid:
        monkeypatch.setattr(references, "TREES", 5)


SMALL: dict[str, Any] = {"max_iter": 60, "strengths": 4, "cv": 2}


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Any:
    """A function of a name and a training; it trains unless a worker already has."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name, train) -> Any:
        file = shared / f"{name}.pickle"
        if not file.exists():
            part = base / f"{name}.part"
            part.write_bytes(pickle.dumps(train()))
            part.replace(file)
        return pickle.loads(file.read_bytes())

    return once


@pytest.fixture(scope="session")
def diabetes_study(trained) -> Any:
    """The candidates none, l2, group and adaptive, of which l2 is chosen."""

    def train() -> Any:
        penalties = ["l2", "group", "adaptive"]
        study = run_study("diabetes", penalties=penalties, choose="l2", hidden_layer_sizes=(16, 4), **SMALL)
        return replace(study.findings, settings=replace(study.findings.settings, choose=None))

    return trained("diabetes", train)


@pytest.fixture(scope="session")
def alone(trained) -> Any:
    """A study without any penalty."""
    return trained("alone", lambda: run_study("wine", penalties=[], hidden_layer_sizes=(4,), **SMALL).findings)


@pytest.fixture(scope="session")
def hostile(trained) -> Any:
    """A study of names, values and classes that are code elsewhere."""

    def train() -> Any:
        settings = {**SMALL, "strengths": 5, "hidden_layer_sizes": (6,)}
        return run_study(hostile_frame(), TARGET, penalties=["l2", "adaptive"], **settings).findings

    return trained("hostile", train)
