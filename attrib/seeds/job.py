"""Seeds of a whole data set: resumable, in shards, by one engine or another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from attrib.datasets.label_files import inside, refuse_repeats
from attrib.datasets.labelled import LabelledDataset, digest
from attrib.errors import InputError, ModelError
from attrib.explain import Explainer
from attrib.journal import Journal, open_job
from attrib.methods import RIB, Method
from attrib.methods.rib import check_pool
from attrib.models import identity
from attrib.progress import progress_bar
from attrib.registry import format_spec
from attrib.seeds.combine import combine
from attrib.seeds.engine import Deal, Engine, Local, Outcome, SeedTask
from attrib.seeds.formats import Naming
from attrib.seeds.maker import views_of
from attrib.seeds.options import SeedOptions
from attrib.seeds.output import Part, SeedFiles, SeedOutput, SeedShards
from attrib.seeds.pool import pool_of
from attrib.targets import check_labels

__all__ = ["SeedReport", "make_seeds"]

IN_A_ROW = 10
"""So many failures one after the other are no accident."""
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
    pack: int | None = None,
    engine: Engine | None = None,
    progress: bool | None = False,
) -> SeedReport:
    """Make the seeds of every picture of a data set, or go on where an earlier run stopped.

    A file is whole or not there, so that a run that is killed at any moment and repeated gives the
    same files as one that was not. Under `out` there is a folder per format, `job.json` with what
    the job is, and `journal/` with what became of each picture. What is in a tar is written at
    once, and made again at once by a run after one that was killed before.

    Args:
        explainer: Model and method.
        dataset: Pictures with classes.
        out: Folder; made if absent. It takes one job only.
        options: What to make.
        shard: `(i, n)`: every n-th picture from the i-th on, counted from 1; of tars with `pack`.
        pack: Write the files of so many pictures in a row as one tar per format; None for a file
            per picture.
        engine: Where the work is done: `Local()`, this process, if left, or `OnRay()`; see there
            about equal bytes.
        progress: Show a bar; None for one on terminals only.

    Raises:
        InputError: the folder holds another job, or another process works on this shard.
        OutputError: a file cannot be written, e.g. on a full disk; a rerun goes on.
        ModelError: ten pictures in a row failed.
    """
    options, out, engine = options or SeedOptions(), Path(out), engine or Local()
    _check(explainer, dataset, shard)
    task = SeedTask(
        classifier=explainer.classifier,
        method=_with_pool(explainer, dataset),
        options=options,
        files=_files(dataset, out, options, pack),
        decode=explainer.decode,
    )
    deal = engine.ready(task)
    index, count = shard
    facts = _facts(explainer, dataset, options, engine, pack)
    with open_job(out, facts, f"{index}-of-{count}") as journal:
        work = _Work(deal, task.files, journal)
        started = time.perf_counter()
        work.run(_parts(dataset, task.files.together)[index - 1 :: count], progress)
        seconds = time.perf_counter() - started
        complete = _finish(dataset, out, options, journal)
    return SeedReport(
        made=work.made, kept=work.kept, failed=work.failed, seconds=seconds, complete=complete
    )


class _Work:
    """One run over one shard."""

    def __init__(self, deal: Deal, files: SeedOutput, journal: Journal) -> None:
        self._deal, self._files, self._journal = deal, files, journal
        self._in_a_row = 0
        self.made = self.kept = 0
        self.failed: dict[str, str] = {}

    def run(self, parts: Sequence[Part], progress: bool | None) -> None:
        """Deal with every picture that is not done yet."""
        todo = self._todo(parts)
        total = sum(len(part.samples) for part in parts)
        self.kept = total - sum(len(part.samples) for part in todo)
        self._files.clean(todo)
        bar = progress_bar(total, progress, initial=self.kept)
        with bar, closing(self._deal(todo)) as outcomes:
            for outcome in outcomes:
                self._note(outcome)
                bar.update()

    def _todo(self, parts: Sequence[Part]) -> list[Part]:
        """Leave out of each part what is done and still there."""
        known, todo = self._journal.read(), []
        for part in parts:
            done = tuple(s for s in part.samples if _done(known.get(s.id)))
            kept = self._files.whole(replace(part, samples=done)) if done else set()
            left = tuple(s for s in part.samples if s.id not in kept)
            if left:
                todo.append(replace(part, samples=left))
        return todo

    def _note(self, outcome: Outcome) -> None:
        """Write down what became of a picture; give up when nothing works."""
        if not outcome.error:
            self._journal.add(outcome.id, "done")
            self.made += 1
            self._in_a_row = 0
            return
        self.failed[outcome.id] = outcome.error
        self._journal.add(outcome.id, "failed", error=outcome.error)
        self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            raise ModelError(
                f"{IN_A_ROW} pictures in a row failed, the last ({outcome.id}) with: "
                f"{outcome.error}"
            )


def _done(entry: dict[str, Any] | None) -> bool:
    return entry is not None and entry["status"] == "done"


def _check(explainer: Explainer, dataset: LabelledDataset, shard: tuple[int, int]) -> None:
    index, count = shard
    if not 1 <= index <= count:
        raise InputError(f"shard is (i, n) with i from 1 to n, got {shard}")
    check_labels(explainer.classifier, dataset.name, dataset.labels)
    ids = [dataset[i].id for i in range(len(dataset))]
    for name in ids:
        inside(name, dataset.name)
    refuse_repeats(ids, dataset.name)


def _parts(dataset: LabelledDataset, together: int) -> list[Part]:
    """Divide a data set into what is written at once."""
    samples = [dataset[i] for i in range(len(dataset))]
    starts = range(0, len(samples), together)
    return [
        Part(number=number, samples=tuple(samples[start : start + together]))
        for number, start in enumerate(starts)
    ]


def _files(
    dataset: LabelledDataset, out: Path, options: SeedOptions, pack: int | None
) -> SeedOutput:
    naming = Naming(labels=dataset.labels, category_ids=dataset.category_ids)
    if pack is None:
        return SeedFiles(out=out, formats=options.formats, naming=naming)
    return SeedShards(out=out, formats=options.formats, naming=naming, together=pack)


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
    explainer: Explainer,
    dataset: LabelledDataset,
    options: SeedOptions,
    engine: Engine,
    pack: int | None,
) -> dict[str, Any]:
    """Everything that the bytes of the results depend on."""
    classifier = explainer.classifier
    scales, flip = views_of(explainer.method, options)
    chosen = {**asdict(options), "scales": scales, "flip": flip}
    return {
        "schema": "attrib.seeds/1",
        "dataset": dataset.name,
        "pictures": len(dataset),
        "list": digest(dataset[i] for i in range(len(dataset))),
        "labels": dataset.labels,
        **identity(classifier),
        "precision": classifier.precision,
        "multi_label": classifier.spec.multi_label,
        "mean": classifier.spec.mean,
        "std": classifier.spec.std,
        "method": format_spec(explainer.method),
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in chosen.items()},
        "device": engine.device_type(classifier),
        "versions": {name: version(name) for name in VERSIONS},
        **_decoder(explainer),
    } | ({} if pack is None else {"pack": pack})


def _decoder(explainer: Explainer) -> dict[str, str]:
    """Say who decodes JPEGs where the device is, if it is not the Pillow of `versions`."""
    decoder = f"torchvision {version('torchvision')}"
    return {} if explainer.decode == "pillow" else {"decode": decoder}


def _finish(dataset: LabelledDataset, out: Path, options: SeedOptions, journal: Journal) -> bool:
    """Gather what is one file per data set, once every picture has been dealt with."""
    known = journal.read()
    if any(dataset[i].id not in known for i in range(len(dataset))):
        return False
    if any(_done(entry) for entry in known.values()):
        if "rle" in options.formats:
            combine(out / "rle", out / "rle.json")
        if "boxes" in options.formats:
            combine(out / "boxes", out / "boxes.json")
            combine(out / "boxes", out / "boxes.csv")
    return True
