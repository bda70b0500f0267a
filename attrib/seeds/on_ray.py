"""A job's pictures on a Ray cluster: actors hold the model, pictures stream past them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from attrib.ahead import READERS
from attrib.cluster import Answer, Crew, Lost, Work, imported
from attrib.errors import InputError, ModelError
from attrib.models import SpatialClassifier
from attrib.seeds.engine import Deal, Outcome, Outcomes, SeedTask, deal_with
from attrib.seeds.output import Part

__all__ = ["OnRay", "placed"]

MANY = 10
"""After so many lost hands and none that was done, it is the model."""


@dataclass(frozen=True, kw_only=True)
class OnRay:
    """Works on a Ray cluster, through Ray Data.

    The cluster is the one that this process is connected to, else the one that the environment
    variable RAY_ADDRESS names, else one on this machine that ends with the job. Its machines need
    attrib, the pictures and the output folder, under the same paths. An actor writes the files of
    the pictures that it was given; this process keeps the journal. What a dying actor was given
    is worked on again, and the same files are written once more. A picture that its actor dies with
    every time has failed, as one that cannot be read has; with `pack`, all pictures of its tar.

    Args:
        workers: Actors, each with a copy of the model.
        cpus: Cores per actor, and torch's threads in it. On the CPU the files are byte for byte
            those of `Local` in a process of as many threads.
        gpus: GPUs per actor: 1, or less for several actors on one; 0 computes on the CPU.
        readers: Threads per actor that read pictures ahead.
        batch: Pictures given to an actor at a time, at least; so many are done again when it dies.
            What is written at once is given at once.
    """

    workers: int = 1
    cpus: int = 1
    gpus: float = 0.0
    readers: int = READERS
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
        imported()
        task.maker()
        return partial(self._run, task)

    def answers(self, work: Work, hands: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Deal any work to the actors, see `Crew.answers`, of which each hand has to succeed.

        Raises:
            ModelError: workers died with a hand every time.
        """
        for index, answer in self._crew.answers(work, hands):
            if isinstance(answer, Lost):
                raise ModelError(f"part {index + 1} of {len(hands)}, {answer.hand!r:.80}: {answer}")
            yield index, answer

    @property
    def _crew(self) -> Crew:
        return Crew(workers=self.workers, cpus=self.cpus, gpus=self.gpus)

    def _run(self, task: SeedTask, parts: Sequence[Part]) -> Outcomes:
        pictures = sum(len(part.samples) for part in parts)
        hands = _hands(parts, min(self.batch, max(1, -(-pictures // self.workers))))
        work = _SeedWork(task=task, readers=self.readers)
        lost: list[Part] = []  # with the hand that they were in: most of them do no harm alone
        answered = False
        for index, answer in self._crew.answers(work, hands):
            if isinstance(answer, Lost):
                lost += hands[index]
                if not answered and len(lost) >= MANY * len(hands[0]):
                    raise ModelError(f"no part of the job could be done: {answer}")
            else:
                answered = True
                yield from _told(answer)
        for index, answer in self._crew.answers(work, [[part] for part in lost]):
            if isinstance(answer, Lost):
                yield from (Outcome(id=s.id, error=str(answer)) for s in lost[index].samples)
            else:
                yield from _told(answer)
        task.files.clean(parts)  # what a worker that died was writing


def _told(answer: tuple[list[Outcome], str]) -> Outcomes:
    """Yield what a worker tells of its pictures; raise an OSError if it could not write."""
    outcomes, broken = answer
    yield from outcomes
    if broken:
        raise OSError(broken)


def _hands(parts: Sequence[Part], size: int) -> list[list[Part]]:
    """Put parts together until they are so many pictures."""
    hands: list[list[Part]] = []
    held = size
    for part in parts:
        if held >= size:
            hands.append([])
            held = 0
        hands[-1].append(part)
        held += len(part.samples)
    return hands


@dataclass(frozen=True, kw_only=True, eq=False)
class _SeedWork:
    """A task for actors.

    Args:
        task: What to do.
        readers: Threads per actor that read ahead.
    """

    task: SeedTask
    readers: int

    def ready(self, *, on_gpu: bool) -> Answer:
        """Bring the model to the GPU."""
        task = replace(self.task, classifier=placed(self.task.classifier, on_gpu=on_gpu))
        return partial(_dealt, task, task.maker(), self.readers)


def _dealt(
    task: SeedTask, maker: Any, readers: int, parts: Sequence[Part]
) -> tuple[list[Outcome], str]:
    """Give the outcomes of some parts, and why writing failed, if it did."""
    outcomes = []
    try:
        for outcome in deal_with(parts, maker, task.files, readers):
            outcomes.append(outcome)
    except OSError as error:
        return outcomes, str(error)
    return outcomes, ""


def placed(classifier: SpatialClassifier, *, on_gpu: bool) -> SpatialClassifier:
    """Bring an actor's own copy of a model to the only GPU that it sees, if it has one."""
    return classifier.of(classifier.model.to("cuda")) if on_gpu else classifier
