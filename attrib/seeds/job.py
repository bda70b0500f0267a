"""Seeds of a whole data set: resumable, in shards, with reading and writing beside the model."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from attrib.datasets.labelled import LabelledDataset, LabelledSample, digest
from attrib.errors import AttribError, InputError, ModelError
from attrib.explain import Explainer
from attrib.files import writing
from attrib.journal import Journal, claim
from attrib.methods import RIB, Method
from attrib.methods.rib import check_pool
from attrib.models import fingerprint
from attrib.registry import format_spec
from attrib.seeds.combine import combine
from attrib.seeds.formats import FORMATS, Naming, Seed
from attrib.seeds.maker import SeedMaker
from attrib.seeds.options import SeedOptions
from attrib.seeds.pool import pool_of

__all__ = ["SeedReport", "make_seeds"]

IN_A_ROW = 10
"""So many failures one after the other are no accident."""
PENDING = 8
"""Seeds that may wait to be written."""
VERSIONS = ("attrib", "torch", "timm", "numpy", "pillow", "opencv-python-headless")


@dataclass(frozen=True, kw_only=True)
class SeedReport:
    """What a run has done.

    Args:
        made: Pictures whose seeds were made now.
        kept: Pictures that were done before.
        failed: Message by id of each picture that could not be done; a rerun tries them again.
        seconds: That this run took, without loading.
        complete: No picture of the whole data set is left, in any shard.
    """

    made: int
    kept: int
    failed: dict[str, str]
    seconds: float
    complete: bool


def make_seeds(
    explainer: Explainer,
    dataset: LabelledDataset,
    out: str | Path,
    options: SeedOptions | None = None,
    *,
    shard: tuple[int, int] = (1, 1),
    readers: int = 2,
    progress: bool | None = False,
) -> SeedReport:
    """Make the seeds of every picture of a data set, or go on where an earlier run stopped.

    A file is whole or not there, so that a run that is killed at any moment and repeated gives the
    same files as one that was not. Under `out` there is a folder per format, `job.json` with what
    the job is, and `journal/` with what became of each picture.

    Args:
        explainer: Model and method.
        dataset: Pictures with classes.
        out: Folder; made if absent. It takes one job only.
        options: What to make.
        shard: `(i, n)`: every n-th picture from the i-th on, counted from 1.
        readers: Threads that read pictures ahead.
        progress: Show a bar; None for one on terminals only.

    Raises:
        InputError: the folder holds another job, or another process works on this shard.
        OutputError: a file cannot be written, e.g. on a full disk; a rerun goes on.
        ModelError: ten pictures in a row failed.
    """
    options, out = options or SeedOptions(), Path(out)
    _check(explainer, dataset, shard)
    method = _with_pool(explainer, dataset)
    maker = SeedMaker(explainer.classifier, method, options)
    with writing(out):
        claim(out, _facts(explainer, dataset, options, maker))
        index, count = shard
        journal = Journal(out, f"{index}-of-{count}")
        with journal.open():
            work = _Work(maker, dataset, out, options, journal)
            started = time.perf_counter()
            work.run(range(index - 1, len(dataset), count), readers, progress)
            seconds = time.perf_counter() - started
        complete = _finish(dataset, out, options, journal)
    return SeedReport(
        made=work.made, kept=work.kept, failed=work.failed, seconds=seconds, complete=complete
    )


class _Work:
    """One run over one shard."""

    def __init__(
        self,
        maker: SeedMaker,
        dataset: LabelledDataset,
        out: Path,
        options: SeedOptions,
        journal: Journal,
    ) -> None:
        self._maker, self._dataset, self._out = maker, dataset, out
        self._journal = journal
        self._naming = Naming(labels=dataset.labels, category_ids=dataset.category_ids)
        self._formats = options.formats
        self._in_a_row = 0
        self.made = self.kept = 0
        self.failed: dict[str, str] = {}

    def run(self, indices: Iterable[int], readers: int, progress: bool | None) -> None:
        """Deal with every picture that is not done yet."""
        from tqdm import tqdm

        samples = [self._dataset[i] for i in indices]
        known = self._journal.read()
        todo = [s for s in samples if not self._is_done(s.id, known)]
        self.kept = len(samples) - len(todo)
        self._clean({sample.id for sample in todo})
        reading, writing = ThreadPoolExecutor(readers), ThreadPoolExecutor(1)
        written: deque[Future[None]] = deque()
        show = None if progress is None else not progress
        try:
            bar = tqdm(total=len(samples), initial=self.kept, disable=show, unit="picture")
            with bar:
                for sample, read in _ahead(reading, self._maker.read, todo, 2 * readers):
                    seed = self._seed(sample, read)
                    if seed is not None:
                        written.append(writing.submit(self._write, seed))
                    while len(written) > PENDING:
                        written.popleft().result()
                    bar.update()
            while written:
                written.popleft().result()
        finally:
            reading.shutdown(cancel_futures=True)
            writing.shutdown(cancel_futures=True)

    def _seed(self, sample: LabelledSample, read: Future[Any]) -> Seed | None:
        """Make a seed; write down why where that fails."""
        try:
            picture, views, salient = read.result()
            seed = self._maker(sample, picture, views, salient)
        except (AttribError, RuntimeError) as error:
            message = " ".join(str(error).split())
            self.failed[sample.id] = message
            self._journal.add(sample.id, "failed", error=message)
            self._in_a_row += 1
            if self._in_a_row >= IN_A_ROW:
                raise ModelError(
                    f"{IN_A_ROW} pictures in a row failed, the last ({sample.id}) with: {message}"
                ) from error
            return None
        self._in_a_row = 0
        return seed

    def _write(self, seed: Seed) -> None:
        for name in self._formats:
            FORMATS[name].write(seed, self._path(name, seed.id), self._naming)
        self._journal.add(seed.id, "done")
        self.made += 1

    def _is_done(self, seed_id: str, known: dict[str, dict[str, Any]]) -> bool:
        """Trust the journal, but not where a file is missing or was emptied by a power cut."""
        if known.get(seed_id, {}).get("status") != "done":
            return False
        paths = [self._path(name, seed_id) for name in self._formats]
        return all(path.is_file() and path.stat().st_size for path in paths)

    def _path(self, name: str, seed_id: str) -> Path:
        return self._out / name / f"{seed_id}{FORMATS[name].suffix}"

    def _clean(self, ids: set[str]) -> None:
        """Remove what a killed run was writing about these pictures."""
        for name in self._formats:
            folder = self._out / name
            for path in folder.rglob(".*"):
                stem = path.name[1:].removesuffix(path.suffix).rpartition(".")[0]
                if path.relative_to(folder).with_name(stem or ".").as_posix() in ids:
                    path.unlink(missing_ok=True)


def _ahead(
    pool: ThreadPoolExecutor,
    read: Callable[[LabelledSample], Any],
    samples: Iterable[LabelledSample],
    depth: int,
) -> Iterator[tuple[LabelledSample, Future[Any]]]:
    """Let some pictures be read while others are worked on, in order."""
    waiting: deque[tuple[LabelledSample, Future[Any]]] = deque()
    for sample in samples:
        waiting.append((sample, pool.submit(read, sample)))
        if len(waiting) > depth:
            yield waiting.popleft()
    yield from waiting


def _check(explainer: Explainer, dataset: LabelledDataset, shard: tuple[int, int]) -> None:
    index, count = shard
    if not 1 <= index <= count:
        raise InputError(f"shard is (i, n) with i from 1 to n, got {shard}")
    explainer.check_labels(dataset.name, dataset.labels)
    seen: set[str] = set()
    for i in range(len(dataset)):
        name = dataset[i].id
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"picture id {name!r} leads out of the output folder")
        if name in seen:
            raise InputError(f"{dataset.name} has two pictures with the id {name!r}")
        seen.add(name)


def _with_pool(explainer: Explainer, dataset: LabelledDataset) -> Method:
    """Let a method that wants other pictures of the data set have them."""
    method, classifier = explainer.method, explainer.classifier
    if not isinstance(method, RIB) or not isinstance(method.others, str):
        return method
    pool = pool_of(dataset, classifier, method, expected=method.others == "expected")
    sets = {dataset[i].labels for i in range(len(dataset))}
    rows = torch.zeros(len(sets), classifier.num_classes, dtype=torch.bool)
    for row, classes in zip(rows, sets, strict=True):
        row[list(classes)] = True
    check_pool(pool, rows, method)
    return replace(method, others=pool)


def _facts(
    explainer: Explainer, dataset: LabelledDataset, options: SeedOptions, maker: SeedMaker
) -> dict[str, Any]:
    """Everything that the bytes of the results depend on."""
    classifier = explainer.classifier
    chosen = {**asdict(options), "scales": maker.scales, "flip": maker.flip}
    return {
        "schema": "attrib.seeds/1",
        "dataset": dataset.name,
        "pictures": len(dataset),
        "list": digest(dataset[i] for i in range(len(dataset))),
        "labels": dataset.labels,
        "model": classifier.spec.name,
        "weights": fingerprint(classifier.model),
        "multi_label": classifier.spec.multi_label,
        "mean": classifier.spec.mean,
        "std": classifier.spec.std,
        "method": format_spec(explainer.method),
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in chosen.items()},
        "device": classifier.device.type,
        "versions": {name: version(name) for name in VERSIONS},
    }


def _finish(dataset: LabelledDataset, out: Path, options: SeedOptions, journal: Journal) -> bool:
    """Gather what is one file per data set, once every picture has been dealt with."""
    known = journal.read()
    if any(dataset[i].id not in known for i in range(len(dataset))):
        return False
    if any(entry["status"] == "done" for entry in known.values()):
        if "rle" in options.formats:
            combine(out / "rle", out / "rle.json")
        if "boxes" in options.formats:
            combine(out / "boxes", out / "boxes.json")
            combine(out / "boxes", out / "boxes.csv")
    return True
