"""Work on a Ray cluster: actors get ready once, then hand after hand is dealt to them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, no_type_check, runtime_checkable

import torch

from attrib.errors import AttribError, InputError, MissingExtraError, ModelError, OutputError

__all__ = ["Answer", "Crew", "Lost", "Work", "imported"]

TRIES = 3
"""A hand with which so many workers died is not dealt again."""

Answer = Callable[[Any], Any]
"""What gives the answer to a hand."""


@runtime_checkable
class Work(Protocol):
    """What actors do. It is pickled and sent to each of them."""

    def ready(self, *, on_gpu: bool) -> Answer:
        """Get ready in an actor.

        Args:
            on_gpu: The actor has a GPU, and sees no other.

        Returns:
            A function of one hand; it may raise an AttribError or OSError, which ends the work.
        """


@dataclass(frozen=True, kw_only=True)
class Lost:
    """In the place of an answer: workers died with the hand every time.

    Args:
        hand: The hand.
    """

    hand: Any

    def __str__(self) -> str:
        return (
            f"workers died with it {TRIES} times: the model crashes the process, or takes more "
            "memory than there is"
        )


@dataclass(frozen=True, kw_only=True)
class Crew:
    """Actors of Ray Data, on the cluster that this process is connected to.

    If it is connected to none, then on the one that the environment variable RAY_ADDRESS names,
    else on one of this machine that ends with the work. Relative paths mean on all machines what
    they mean here: each needs the folder that this process is in.

    Args:
        workers: Actors.
        cpus: Cores per actor, and torch's threads in it.
        gpus: GPUs per actor, from 0 to 1.
    """

    workers: int = 1
    cpus: int = 1
    gpus: float = 0.0

    def answers(self, work: Work, hands: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Deal hands to the actors; what a dying actor was dealt is dealt again, a few times.

        Args:
            work: What to do with each.
            hands: Values that can be pickled.

        Yields:
            Index and answer of each hand, or `Lost`, once, when it is there, in any order.

        Raises:
            MissingExtraError: Ray is not installed.
            InputError: there is no such cluster, this machine has too few GPUs, or a hand's answer
                is this error.
            OSError: a hand's answer is this error.
            ModelError: the work cannot be sent, or a worker fails in another way.
        """
        if not hands:
            return
        due = set(range(len(hands)))
        with self._cluster() as ray, _failures(ray):
            sent = _sent(ray, work)  # held here, so that an actor can be started again
            begun = _begun(ray)
            for row in self._rows(ray, (sent, begun), hands):
                if row["error"]:
                    raise _KINDS[row["kind"]](row["error"])
                if row["index"] in due:
                    index = row["index"]
                    due.remove(index)
                    lost = not row["answer"]
                    yield index, Lost(hand=hands[index]) if lost else pickle.loads(row["answer"])
        if due:
            raise ModelError(f"Ray lost {len(due)} of {len(hands)} hands; repeat the job")

    def _rows(self, ray: Any, held: Any, hands: Sequence[Any]) -> Iterator[dict[str, Any]]:
        rows = [{"index": i, "hand": pickle.dumps(hand)} for i, hand in enumerate(hands)]
        blocks = ray.data.from_items(rows, override_num_blocks=len(rows))
        blocks.context.enable_progress_bars = False  # the job shows its own
        done = blocks.map_batches(
            _Actor,
            fn_constructor_args=(*held, self.cpus, os.getcwd()),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(rows))),
            num_cpus=self.cpus,
            num_gpus=self.gpus,
        )
        for block in done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pandas"):
            yield from block.to_dict("records")

    @contextmanager
    def _cluster(self) -> Iterator[Any]:
        """Be connected to a cluster, and leave it if this connected to it."""
        ray = imported()
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


def imported() -> Any:
    """Return Ray, with Ray Data; `MissingExtraError` if it is not installed."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError("Ray Data", "ray") from None
    return ray


class _Actor:
    """What a worker process holds.

    Args:
        sent: Reference to the pickled work.
        begun: Counts how often each hand was begun.
        cpus: Threads that torch may use.
        folder: That relative paths are meant from; every machine has it.
    """

    def __init__(self, sent: Any, begun: Any, cpus: int, folder: str) -> None:
        import ray

        os.chdir(folder)
        torch.set_num_threads(cpus)
        work: Work = pickle.loads(ray.get(sent))
        self._answer = work.ready(on_gpu=bool(ray.get_gpu_ids()))
        self._times = lambda index: ray.get(begun.count.remote(index))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Take one pickled hand, give a row: its answer, what went wrong, or neither if lost."""
        row = {"index": int(batch["index"][0]), "answer": b"", "error": "", "kind": ""}
        try:
            if self._times(row["index"]) <= TRIES:
                row["answer"] = pickle.dumps(self._answer(pickle.loads(batch["hand"][0])))
        except (AttribError, OSError) as error:
            row["kind"] = next(name for name, kind in _KINDS.items() if isinstance(error, kind))
            row["error"] = str(error) or type(error).__name__
        return {key: [value] for key, value in row.items()}


_KINDS: dict[str, type[Exception]] = {
    "input": InputError,
    "model": ModelError,
    "output": OutputError,
    "system": OSError,
    "other": AttribError,
}
"""As what an actor's errors arrive; errors of their own form cannot all be pickled."""


def _begun(ray: Any) -> Any:
    """Start an actor that outlives those who die, and remembers what they had begun."""

    class Begun:  # in here, it travels by itself: its process need not load torch
        @no_type_check  # jaxtyping's checks, which tests put into functions, cannot be pickled
        def __init__(self) -> None:
            self._times: dict[int, int] = {}

        @no_type_check
        def count(self, index: int) -> int:
            """Return how often a hand was begun, with this time."""
            self._times[index] = self._times.get(index, 0) + 1
            return self._times[index]

    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Begun).remote()


def _sent(ray: Any, work: Work) -> Any:
    try:
        packed = ray.cloudpickle.dumps(work)
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
