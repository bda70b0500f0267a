"""A job's pictures on a Ray cluster: actors hold the model, pictures stream past them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from attrib.datasets.labelled import LabelledSample
from attrib.errors import InputError, MissingExtraError, ModelError
from attrib.models import SpatialClassifier
from attrib.seeds.engine import Deal, Outcome, Outcomes, SeedTask, deal_with

__all__ = ["OnRay"]


@dataclass(frozen=True, kw_only=True)
class OnRay:
    """Works on a Ray cluster, through Ray Data.

    The cluster is the one that this process is connected to, else the one that the environment
    variable RAY_ADDRESS names, else one on this machine that ends with the job. Its machines need
    attrib, the pictures and the output folder, under the same paths. An actor writes the files of
    the pictures that it was given; this process keeps the journal. What a dying actor was given
    goes to another one, which writes the same files once more.

    Args:
        workers: Actors, each with a copy of the model.
        cpus: Cores per actor, and torch's threads in it. On the CPU the files are byte for byte
            those of `Local` in a process of as many threads.
        gpus: GPUs per actor: 1, or less for several actors on one; 0 computes on the CPU.
        readers: Threads per actor that read pictures ahead.
        batch: Pictures given to an actor at a time; so many are done again when it dies.
    """

    workers: int = 1
    cpus: int = 1
    gpus: float = 0.0
    readers: int = 2
    batch: int = 16

    def __post_init__(self) -> None:
        for name in ("workers", "cpus", "readers", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is 1 or more, got {getattr(self, name)}")
        if not 0 <= self.gpus <= 1:
            raise InputError(f"gpus is from 0 to 1 for each worker, got {self.gpus}")

    def device_type(self, classifier: SpatialClassifier) -> str:
        """Return where the actors run the model.

        Raises:
            InputError: the model is not on the CPU, from where it is sent to them.
        """
        if classifier.device.type != "cpu":
            raise InputError(
                f"the model is on {classifier.device}; leave it on the CPU, from where it is sent "
                "to the workers, and say by gpus= (--worker-gpus) what each of them has"
            )
        return "cuda" if self.gpus else "cpu"

    def ready(self, task: SeedTask) -> Deal:
        """Try here what every worker will do first; then pictures are worked on in any order.

        What is returned raises an InputError if there is no such cluster or this machine has too
        few GPUs, and a ModelError if the model cannot be sent or a worker fails through no
        picture's fault.

        Raises:
            MissingExtraError: Ray is not installed.
        """
        _imported()
        task.maker()
        return partial(self._run, task)

    def _run(self, task: SeedTask, samples: Sequence[LabelledSample]) -> Outcomes:
        if not samples:
            return
        ids = {sample.id for sample in samples}
        due = set(ids)
        with self._cluster() as ray, _failures(ray):
            sent = _sent(ray, task)  # held here, so that an actor can be started again
            for row in self._rows(ray, sent, samples):
                if row["broken"]:
                    raise OSError(row["broken"])
                if row["id"] in due:
                    due.remove(row["id"])
                    yield Outcome(id=row["id"], error=row["error"])
        task.files.clean(ids)  # what a worker that died was writing
        if due:
            raise ModelError(
                f"Ray lost {len(due)} pictures, one of them {min(due)}; repeat the job"
            )

    def _rows(
        self, ray: Any, sent: Any, samples: Sequence[LabelledSample]
    ) -> Iterator[dict[str, str]]:
        rows = [{"sample": pickle.dumps(sample)} for sample in samples]
        batch = min(self.batch, _parts(len(rows), self.workers))
        count = _parts(len(rows), batch)
        blocks = ray.data.from_items(rows, override_num_blocks=count)
        blocks.context.enable_progress_bars = False  # the job shows its own
        done = blocks.map_batches(
            _Worker,
            fn_constructor_args=(sent, self.cpus, self.readers),
            batch_size=batch,
            compute=ray.data.ActorPoolStrategy(size=min(self.workers, count)),
            num_cpus=self.cpus,
            num_gpus=self.gpus,
        )
        for block in done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pandas"):
            yield from block.to_dict("records")

    @contextmanager
    def _cluster(self) -> Iterator[Any]:
        """Be connected to a cluster, and leave it if this connected to it."""
        ray = _imported()
        if ray.is_initialized():
            yield ray
            return
        try:
            self._connect(ray)
            yield ray
        finally:
            ray.shutdown()

    def _connect(self, ray: Any) -> None:
        address = os.environ.get("RAY_ADDRESS")
        if address:
            try:
                ray.init(logging_level="WARNING")
            except (ConnectionError, ValueError) as error:
                raise InputError(f"no Ray cluster at RAY_ADDRESS={address}: {error}") from error
            return
        ray.init(
            address="local",
            num_cpus=self.workers * self.cpus,
            include_dashboard=False,
            logging_level="WARNING",
        )
        gpus = ray.cluster_resources().get("GPU", 0)
        if gpus < self.workers * self.gpus:
            raise InputError(
                f"{self.workers} workers with {self.gpus:g} GPUs each need more than the {gpus:g} "
                "of this machine; set RAY_ADDRESS for a cluster, or ask for less"
            )


def _imported() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError("Ray Data", "ray") from None
    return ray


class _Worker:
    """An actor with a model of its own.

    Args:
        sent: Reference to the pickled task.
        cpus: Threads that torch may use.
        readers: Threads that read ahead.
    """

    def __init__(self, sent: Any, cpus: int, readers: int) -> None:
        import ray

        torch.set_num_threads(cpus)
        task = _placed(pickle.loads(ray.get(sent)), on_gpu=bool(ray.get_gpu_ids()))
        self._maker, self._files, self._readers = task.maker(), task.files, readers

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Take pickled samples, give columns of outcomes; `broken` says why writing failed."""
        samples = [pickle.loads(sample) for sample in batch["sample"]]
        outcomes, broken = [], ""
        try:
            for outcome in deal_with(samples, self._maker, self._files, self._readers):
                outcomes.append(outcome)
        except OSError as error:
            outcomes, broken = [*outcomes, Outcome(id="")], str(error)
        return {
            "id": [outcome.id for outcome in outcomes],
            "error": [outcome.error for outcome in outcomes],
            "broken": [*[""] * (len(outcomes) - 1), broken],
        }


def _parts(whole: int, size: int) -> int:
    return -(-whole // size)


def _placed(task: SeedTask, *, on_gpu: bool) -> SeedTask:
    if not on_gpu:
        return task
    model = task.classifier.model.to("cuda")  # this actor's own copy, and the only GPU it sees
    return replace(task, classifier=task.classifier.of(model))


def _sent(ray: Any, task: SeedTask) -> Any:
    try:
        packed = ray.cloudpickle.dumps(task)
    except (TypeError, AttributeError, RuntimeError, pickle.PicklingError) as error:
        raise ModelError(f"the model cannot be pickled and sent to workers: {error}") from error
    return ray.put(packed)


@contextmanager
def _failures(ray: Any) -> Iterator[None]:
    try:
        yield
    except ray.exceptions.RayError as error:
        cause = str(error).strip().splitlines()[-1]
        raise ModelError(f"a worker failed: {cause}. What is done is kept") from error
