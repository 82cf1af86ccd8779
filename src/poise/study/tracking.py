"""A study in the tools by which people follow their experiments: TensorBoard and MLflow, both extras.

What would stop them is found out before anything is trained, by `check_tensorboard` and `check_mlflow`.
"""

import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poise.study.result import NONE, Study
from poise.study.sources import DataError
from poise.study.storage import check_writable, read_description
from poise.study.watching import Watched

EVENTS = "*tfevents*"
LOCAL = "sqlite:///mlflow.db"
"""Where MLflow keeps its runs where nobody says otherwise: a file in the working directory."""
MOST_AT_ONCE = 1000
"""Metrics that MLflow takes in one request."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Before a training MLflow is not waited for: it would try for minutes."""


# ---------------------------------------------------------------- TensorBoard


def to_tensorboard(study: Study, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes how the chosen network was trained, and beside it that without a penalty, as two runs of TensorBoard.

    Scalars by training step: `losses/loss`, `losses/val_loss` (on the rows held out), `losses/penalty` and
    `losses/total_loss`, and of every penalized variable the columns of `poise.forces`, as `forces/COLUMN/VARIABLE`.
    Histograms: the penalized `weights` before and after.

    Args:
        study: what `poise.run_study` returned.
        folder: where to; a folder in it is a run, named by its candidate.
        overwrite: whether events that are there may be replaced.

    Raises:
        DataError: as for `check_tensorboard`.
        OSError: it cannot be written.
    """
    check_tensorboard(folder, overwrite=overwrite)
    from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = time.time()
    for old in Path(folder).rglob(EVENTS):
        old.unlink()
    for name, seen in study.watched.items():
        run = Path(folder) / name
        run.mkdir(parents=True, exist_ok=True)
        # Not by TensorBoard's EventFileWriter, which imports TensorFlow where it finds it.
        with open(run / f"events.out.tfevents.{int(now)}.poise", "wb") as file:
            writer = RecordWriter(file)
            writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
            for step, summary in _summaries(seen):
                writer.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())


def check_tensorboard(folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Finds out, before anything is trained, whether `to_tensorboard` can write.

    Raises:
        DataError: TensorBoard is not installed, or the folder holds events that may not be replaced.
        OSError: it cannot be written.
    """
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError:
        raise DataError('TensorBoard is not installed. Use `pip install "poise[tensorboard]"`.') from None
    if not overwrite and any(Path(folder).rglob(EVENTS)):
        raise DataError(
            f"The folder {os.fspath(folder)!r} already holds events of TensorBoard, and nothing is overwritten "
            "unasked. Use --force (overwrite=True), or another folder."
        )
    check_writable(Path(folder) / NONE, "--tensorboard")


def _summaries(seen: Watched) -> Iterator[tuple[int, object]]:
    """(step, what to show there) of a training."""
    from tensorboard.plugins.histogram.summary_v2 import histogram_pb
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb

    numbers = {f"losses/{column}": values for column, values in seen.history.items()}
    for variable, rows in seen.forces.set_index("step").groupby("variable"):
        numbers |= {f"forces/{column}/{variable}": values for column, values in rows.select_dtypes("number").items()}
    for tag, values in numbers.items():
        for step, value in zip(values.index.tolist(), values.tolist(), strict=True):
            if math.isfinite(value):
                yield step, scalar_pb(tag, value)
    for step, weights in ((0, seen.before), (seen.history.index.tolist()[-1], seen.after)):
        yield step, histogram_pb("weights", weights)


# ---------------------------------------------------------------- MLflow


def to_mlflow(folder: str | os.PathLike[str], *, uri: str | None = None, experiment: str | None = None) -> str:
    """Logs a saved run to MLflow: settings as parameters, scores as metrics, its folder as artifacts.

    Metrics of the chosen candidate have their names in study.json (`test_loss`, `score`, ...), those of every candidate
    stand as `CANDIDATE/test_loss` beside them. The answer is the run's description.

    Args:
        folder: of a run, as `poise.study.save` wrote it.
        uri: of the tracking server; None for that which MLflow was told (MLFLOW_TRACKING_URI), or else a file in the
            working directory, mlflow.db.
        experiment: its name; None for that in MLFLOW_EXPERIMENT_NAME, or else "poise".

    Returns:
        The id of MLflow's run.

    Raises:
        DataError: the folder holds no run, MLflow is not installed, or its server refuses.
    """
    found = read_description(folder)
    client, uri = _client(uri)
    name = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "poise"
    with _told(uri):
        from mlflow.entities import Metric, Param, RunTag

        known = client.get_experiment_by_name(name)
        number = client.create_experiment(name) if known is None else known.experiment_id
        run = client.create_run(number, run_name=Path(folder).resolve().name).info.run_id
        now = int(time.time() * 1000)
        try:
            params = [Param(key, value) for key, value in _parameters(found).items()]
            tags = [RunTag("mlflow.note.content", "\n\n".join(found["answer"]))]
            tags += [RunTag(f"version.{package}", version) for package, version in found["versions"].items()]
            client.log_batch(run, params=params, tags=tags)
            metrics = [Metric(key, value, now, 0) for key, value in _metrics(found).items()]
            for first in range(0, len(metrics), MOST_AT_ONCE):
                client.log_batch(run, metrics=metrics[first : first + MOST_AT_ONCE])
            client.log_artifacts(run, os.fspath(folder))
        except BaseException:
            client.set_terminated(run, "FAILED")
            raise
        client.set_terminated(run)
    return run


def check_mlflow(uri: str | None = None) -> str:
    """Finds out, before anything is trained, whether MLflow can be reached; returns its address, without a password.

    Args:
        uri: as for `to_mlflow`.

    Raises:
        DataError: MLflow is not installed, or its server does not answer.
    """
    before = {name: os.environ.get(name) for name in PATIENCE}
    os.environ.update(PATIENCE)
    try:
        client, uri = _client(uri)
        with _told(uri):
            client.search_experiments(max_results=1)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return _shown(uri)


def _client(uri: str | None):
    """MLflow's client, and the address of its server."""
    try:
        from mlflow import MlflowClient, get_tracking_uri
        from mlflow.tracking import is_tracking_uri_set
    except ImportError:
        raise DataError('MLflow is not installed. Use `pip install "poise[mlflow]"`.') from None
    found = uri or (get_tracking_uri() if is_tracking_uri_set() else LOCAL)
    with _told(found):
        return MlflowClient(tracking_uri=found), found


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """What MLflow, its database or its server refuse, in one sentence."""
    try:
        yield
    except Exception as error:  # of MLflow, SQLAlchemy, requests or the system
        reason = _shown(str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(
            f"MLflow at {_shown(uri)} cannot be used: {reason}. Set MLFLOW_TRACKING_URI to a server that runs, or to a "
            "file such as sqlite:///mlflow.db."
        ) from error


def _shown(text: str) -> str:
    """Without the name and password of an address."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _parameters(found: dict) -> dict[str, str]:
    data = found["data"]
    given = {name: data[name] for name in ("name", "source", "target", "task", "groups", "time", "weight")}
    given = {"data": given.pop("name"), **given, **found["settings"], "chosen": found["chosen"]}
    given["strength"] = _chosen(found)["strength"]
    texts = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in given.items()}
    return {key: str(value) for key, value in texts.items() if value not in (None, "")}


def _metrics(found: dict) -> dict[str, float]:
    def numbers(candidate, before="") -> dict[str, float]:
        return {before + key: float(value) for key, value in candidate.items() if isinstance(value, int | float)}

    every = numbers(_chosen(found)) | {"seconds": found["seconds"]}
    for candidate in found["candidates"]:
        every |= numbers(candidate, f"{candidate['candidate']}/")
    return every


def _chosen(found: dict) -> dict:
    return next(one for one in found["candidates"] if one["candidate"] == found["chosen"])
