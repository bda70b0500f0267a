"""Where a job's pictures are worked on: what an engine is, and the one of this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from attrib.ahead import read_ahead, readers_beside
from attrib.datasets.labelled import LabelledSample
from attrib.errors import AttribError, InputError, in_one_line
from attrib.images import Decode
from attrib.methods import Method
from attrib.models import SpatialClassifier
from attrib.seeds.formats import FORMATS, Seed
from attrib.seeds.maker import SeedMaker
from attrib.seeds.options import SeedOptions
from attrib.seeds.output import Contents, Part, SeedOutput

__all__ = ["Deal", "Engine", "Local", "Outcome", "Outcomes", "SeedTask", "deal_with"]

PENDING = 8
"""Seeds that may wait to be written."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one picture.

    Args:
        id: Of the picture.
        error: Why it has no seed; empty if all its files are written.
    """

    id: str
    error: str = ""


Outcomes = Generator[Outcome, None, None]
Deal = Callable[[Sequence[Part]], Outcomes]


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedTask:
    """What is to be done with every picture of a job.

    Args:
        classifier: The model, split.
        method: With its other pictures, if it wants any.
        options: What to make.
        files: Where to put it.
        decode: Who decodes JPEG files.
    """

    classifier: SpatialClassifier
    method: Method
    options: SeedOptions
    files: SeedOutput
    decode: Decode = "pillow"

    def maker(self) -> SeedMaker:
        """Return what makes the seeds, ready on the classifier's device."""
        return SeedMaker(self.classifier, self.method, self.options, self.decode)


@runtime_checkable
class Engine(Protocol):
    """Works on the pictures of a job, somewhere."""

    def device_type(self, classifier: SpatialClassifier) -> str:
        """Return where models run, `"cpu"` or `"cuda"`.

        Raises:
            InputError: the engine cannot take this model where it is.
        """

    def ready(self, task: SeedTask) -> Deal:
        """Get ready for a task, and find out here what is wrong with it; nothing is written yet.

        Returns:
            A function that makes and writes the seeds of parts and yields the outcome of each
            picture, once, when its part is there, in any order. To stop it early, close the
            generator. It raises an OSError where a file cannot be written.

        Raises:
            AttribError: the task or the engine cannot be used as given.
        """


@dataclass(frozen=True, kw_only=True)
class Local:
    """Works in this process, on the model itself.

    Args:
        readers: Threads that read pictures ahead; with 0 each is read when its turn comes. None for
            2, or 0 where the model takes all cores of the CPU.
    """

    readers: int | None = None

    def __post_init__(self) -> None:
        if self.readers is not None and self.readers < 0:
            raise InputError(f"readers is 0 or more, got {self.readers}")

    def device_type(self, classifier: SpatialClassifier) -> str:
        """Return the type of the device that the model is on."""
        return classifier.device.type

    def ready(self, task: SeedTask) -> Deal:
        """Make what makes the seeds; pictures are then worked on in order."""
        own = self.readers
        readers = readers_beside(task.classifier.device) if own is None else own
        return partial(deal_with, maker=task.maker(), files=task.files, readers=readers)


def deal_with(parts: Sequence[Part], maker: SeedMaker, files: SeedOutput, readers: int) -> Outcomes:
    """Make and write seeds in order, reading and writing in threads beside the model.

    Args:
        parts: The pictures.
        maker: Makes a seed.
        files: Takes it.
        readers: Threads that read ahead, if any.

    Yields:
        The outcome of each picture, in order.

    Raises:
        OSError: a file cannot be written.
    """
    writing = ThreadPoolExecutor(1)
    waiting: deque[Future[list[Outcome]]] = deque()
    write = _Writer(files, parts)
    samples = [sample for part in parts for sample in part.samples]
    try:
        for sample, read in read_ahead(maker.read, samples, readers=readers, depth=2 * readers):
            made = _made(maker, sample, read)
            waiting.append(writing.submit(write, made))
            while waiting and (waiting[0].done() or len(waiting) > PENDING):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        writing.shutdown(cancel_futures=True)


def _made(maker: SeedMaker, sample: LabelledSample, read: Future[Any]) -> Seed | Outcome:
    """Make a seed, or tell why that fails."""
    try:
        picture, views, salient = read.result()
        return maker(sample, picture, views, salient)
    except (AttribError, RuntimeError) as error:
        return Outcome(id=sample.id, error=in_one_line(error) or type(error).__name__)


class _Writer:
    """Takes what was made of the pictures, in order, and writes a part once all of it is there."""

    def __init__(self, files: SeedOutput, parts: Sequence[Part]) -> None:
        self._files, self._parts = files, iter(parts)
        self._part: Part | None = None
        self._contents: dict[str, Contents] = {}
        self._outcomes: list[Outcome] = []

    def __call__(self, made: Seed | Outcome) -> list[Outcome]:
        """Return the outcomes of a part when it is written, else none yet."""
        part = self._part = self._part or next(self._parts)
        if isinstance(made, Seed):
            self._contents[made.id] = self._encoded(made)
        self._outcomes.append(made if isinstance(made, Outcome) else Outcome(id=made.id))
        if len(self._outcomes) < len(part.samples):
            return []
        self._files.write(part.number, self._contents)
        done, self._part, self._contents, self._outcomes = self._outcomes, None, {}, []
        return done

    def _encoded(self, seed: Seed) -> Contents:
        return {
            name: FORMATS[name].encode(seed, self._files.naming) for name in self._files.formats
        }
