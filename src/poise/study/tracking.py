"""Send a study to TensorBoard and MLflow, both optional dependencies.

`check_tensorboard` and `check_mlflow` find problems before anything is trained.
"""

import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from poise.files import OutputExistsError, check_writable
from poise.study.description_file import read_description
from poise.study.errors import DataError
from poise.study.report.comparison import list_networks
from poise.study.result import Study
from poise.study.settings import NO_PENALTY
from poise.study.watching import WatchedTraining

if TYPE_CHECKING:
    from mlflow import MlflowClient

EVENTS = "*tfevents*"
LOCAL = "sqlite:///mlflow.db"
"""Where MLflow stores its runs by default: a file in the working directory."""
MOST_PER_REQUEST = 1000
"""Metrics that MLflow accepts in one request."""
SHORT_WAIT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Settings under which MLflow gives up soon; by default it retries for minutes."""


def to_tensorboard(study: Study, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write the training curves of the chosen network, and of that without a penalty, as two runs of TensorBoard.

    Scalars by training step: `losses/loss`, `losses/val_loss` (held-out rows), `losses/penalty`, `losses/total_loss`,
    and for each penalized variable the columns of `poise.forces` about the two gradients, as
    `forces/COLUMN/VARIABLE`. Histograms: the
    penalized `weights` before and after training.

    Args:
        study: What `poise.run_study` returned.
        folder: The folder to write; each run is a folder in it, named after its candidate.
        overwrite: Whether to replace events that are there. Default: `False`.

    Raises:
        DataError: See `check_tensorboard`.
        OSError: If the folder cannot be written.
    """
    check_tensorboard(folder, overwrite=overwrite)
    from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = time.time()
    for old in Path(folder).rglob(EVENTS):
        old.unlink()
    for name, watched in study.findings.watched.items():
        run = Path(folder) / name
        run.mkdir(parents=True, exist_ok=True)
        # TensorBoard's EventFileWriter would import TensorFlow if it is installed.
        with open(run / f"events.out.tfevents.{int(now)}.poise", "wb") as file:
            writer = RecordWriter(file)
            writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
            for step, summary in _summarize(watched):
                writer.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())


def check_tensorboard(folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Check, before anything is trained, whether `to_tensorboard` can write.

    Raises:
        DataError: If TensorBoard is not installed.
        FileExistsError: If the folder holds events that must not be replaced.
        OSError: If the folder cannot be written.
    """
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError:
        raise DataError('TensorBoard is not installed. Run `pip install "poise[tensorboard]"`.') from None
    if not overwrite and any(Path(folder).rglob(EVENTS)):
        raise OutputExistsError(folder)
    check_writable(Path(folder) / NO_PENALTY)


def _summarize(watched: WatchedTraining) -> Iterator[tuple[int, object]]:
    """Yield the step and the summary of each scalar and histogram."""
    from tensorboard.plugins.histogram.summary_v2 import histogram_pb
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb

    numbers = {f"losses/{column}": values for column, values in watched.history.items()}
    for variable, rows in watched.forces.set_index("step").groupby("variable"):
        numbers |= {f"forces/{column}/{variable}": values for column, values in rows.select_dtypes("number").items()}
    for tag, values in numbers.items():
        for step, value in zip(values.index.tolist(), values.tolist(), strict=True):
            if math.isfinite(value):
                yield step, scalar_pb(tag, value)
    for step, weights in ((0, watched.before), (watched.history.index.tolist()[-1], watched.after)):
        yield step, histogram_pb("weights", weights)


def to_mlflow(folder: str | os.PathLike[str], *, uri: str | None = None, experiment: str | None = None) -> str:
    """Log a saved study to MLflow: settings as parameters, scores as metrics, its folder as artifacts.

    Metrics of the saved network have their names in study.json (`test_loss`, `score`, ...); those of every network
    are logged as `CANDIDATE/test_loss` as well. The answer is the description of MLflow's run.

    Args:
        folder: The folder that `Study.save` wrote.
        uri: The address of the tracking server. Default: `None`, which takes MLFLOW_TRACKING_URI, or else a file in the
            working directory, mlflow.db.
        experiment: The name of the experiment. Default: `None`, which takes MLFLOW_EXPERIMENT_NAME, or else `"poise"`.

    Returns:
        The id of MLflow's run.

    Raises:
        DataError: If the folder holds no study, MLflow is not installed, or its server refuses.
    """
    study = read_description(folder)
    client, uri = _client(uri)
    name = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "poise"
    with _explain_errors(uri):
        from mlflow.entities import Metric, Param, RunTag

        known = client.get_experiment_by_name(name)
        experiment_id = client.create_experiment(name) if known is None else known.experiment_id
        run = client.create_run(experiment_id, run_name=Path(folder).resolve().name).info.run_id
        now = int(time.time() * 1000)
        try:
            params = [Param(key, value) for key, value in _parameters(study).items()]
            tags = [RunTag("mlflow.note.content", "\n\n".join(study["answer"]))]
            tags += [RunTag(f"version.{package}", version) for package, version in study["versions"].items()]
            client.log_batch(run, params=params, tags=tags)
            metrics = [Metric(key, value, now, 0) for key, value in _metrics(study).items()]
            for first in range(0, len(metrics), MOST_PER_REQUEST):
                client.log_batch(run, metrics=metrics[first : first + MOST_PER_REQUEST])
            client.log_artifacts(run, os.fspath(folder))
        except BaseException:
            client.set_terminated(run, "FAILED")
            raise
        client.set_terminated(run)
    return run


def check_mlflow(uri: str | None = None) -> str:
    """Check, before anything is trained, whether MLflow answers.

    Args:
        uri: See `to_mlflow`.

    Returns:
        Its address, without a password.

    Raises:
        DataError: If MLflow is not installed, or its server does not answer.
    """
    before = {name: os.environ.get(name) for name in SHORT_WAIT}
    os.environ.update(SHORT_WAIT)
    try:
        client, uri = _client(uri)
        with _explain_errors(uri):
            client.search_experiments(max_results=1)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return _hide_password(uri)


def _client(uri: str | None) -> "tuple[MlflowClient, str]":
    """Return MLflow's client and the address of its server."""
    try:
        from mlflow import MlflowClient, get_tracking_uri
        from mlflow.tracking import is_tracking_uri_set
    except ImportError:
        raise DataError('MLflow is not installed. Run `pip install "poise[mlflow]"`.') from None
    address = uri or (get_tracking_uri() if is_tracking_uri_set() else LOCAL)
    with _explain_errors(address):
        return MlflowClient(tracking_uri=address), address


@contextmanager
def _explain_errors(uri: str) -> Iterator[None]:
    """Turn an error of MLflow, its database or its server into one sentence."""
    try:
        yield
    except Exception as error:  # of MLflow, SQLAlchemy, requests or the system
        reason = _hide_password(str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(
            f"MLflow at {_hide_password(uri)} cannot be used: {reason}. Set MLFLOW_TRACKING_URI to a running server, "
            "or to a file such as sqlite:///mlflow.db.",
            "uri",
        ) from error


def _hide_password(text: str) -> str:
    """Return a text without the user name and password of an address."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _parameters(study: dict) -> dict[str, str]:
    data = study["data"]
    params = {name: data[name] for name in ("name", "source", "target", "task", "groups", "time", "weight")}
    params = {"data": params.pop("name"), **params, **study["settings"], "chosen": study["chosen"]}
    params["strength"] = _saved(study)["strength"]
    texts = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in params.items()}
    return {key: str(value) for key, value in texts.items() if value not in (None, "")}


def _metrics(study: dict) -> dict[str, float]:
    def numbers(candidate: Mapping, prefix: str = "") -> dict[str, float]:
        return {prefix + key: float(value) for key, value in candidate.items() if isinstance(value, int | float)}

    metrics = numbers(_saved(study)) | {"seconds": study["seconds"]}
    for candidate in list_networks(study):
        metrics |= numbers(candidate, f"{candidate['candidate']}/")
    return metrics


def _saved(study: dict) -> Mapping:
    return next(network for network in list_networks(study) if network["candidate"] == study["saved"])
