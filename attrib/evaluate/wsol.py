"""Runs a method over a data set, or reads its maps, and scores them by several protocols."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attrib.ahead import read_ahead
from attrib.datasets.samples import BoxDataset, BoxSample, batch_of
from attrib.errors import InputError
from attrib.evaluate.wsol_batches import Scoring, each, feed
from attrib.evaluate.wsol_kept import about_data, about_protocols
from attrib.evaluate.wsol_maps import MapFile, made_by, read_map, write_origin
from attrib.explain import Explainer
from attrib.journal import open_job
from attrib.metrics import WsolBatch, WsolProtocol
from attrib.models import ModelRecord
from attrib.registry import format_spec
from attrib.seeds import OnRay
from attrib.targets import check_labels

__all__ = ["evaluate_saved_maps", "evaluate_wsol"]

SCHEMA = "attrib.wsol/2"


def evaluate_wsol(
    explainer: Explainer,
    dataset: BoxDataset,
    protocols: WsolProtocol | Sequence[WsolProtocol],
    *,
    validation: BoxDataset | None = None,
    batch_size: int = 16,
    limit: int | None = None,
    every: int = 1,
    save_maps: str | Path | None = None,
    work: str | Path | None = None,
    engine: OnRay | None = None,
    progress: bool | None = False,
) -> dict[str, Any]:
    """Localise the labelled object of every picture once, and score it by each protocol.

    Args:
        explainer: Model and method.
        dataset: Pictures with a class and what the protocols need: boxes, masks.
        protocols: Fresh; are filled.
        validation: Another split, by which thresholds are chosen; all of it is used.
        batch_size: Pictures per forward pass.
        limit: Score only so many pictures.
        every: Score every so many-th picture.
        save_maps: Folder to write the maps to, for `evaluate_saved_maps`.
        work: Folder that keeps what was counted, batch by batch: repeat a call that was interrupted
            and it goes on, with this engine or another, also from few pictures to more. The figures
            are those of a call that was not. It takes one score only.
        engine: None for this process, or `OnRay()`: batches go to its workers, and what they count
            is added up here. On the CPU the figures are those of one process of as many threads.
        progress: Show a bar; None for one on terminals only.

    Returns:
        Data set, model, method, accuracy, the figures of each protocol by its name, and seconds per
        picture; documented in the JSON answers.

    Raises:
        InputError: classes that the model has not, a picture without what a protocol needs, a
            protocol that cannot be added up, with `engine`, or kept, with `work`; or the folder
            `work` holds another score, or another process works on it.
        OutputError: a file cannot be written, e.g. on a full disk; with `work` a rerun goes on.
    """
    chosen = _several(protocols)
    origin = _origin(explainer, dataset)
    if validation is not None:
        check_labels(explainer.classifier, validation.name, validation.labels)
    _check_engine(engine, explainer, chosen)
    indices = _indices(dataset, every, limit)
    place, best = None if save_maps is None else Path(save_maps), None
    with ExitStack() as stack:
        journal = None
        if work is not None:
            facts = _facts(explainer, dataset, chosen, validation, batch_size, engine) | origin
            journal = stack.enter_context(open_job(Path(work), facts))
        if place is not None:
            write_origin(place, origin)
        scoring = Scoring(
            explainer=explainer, size=batch_size, engine=engine, journal=journal, progress=progress
        )
        if validation is not None:
            best = deepcopy(chosen)
            scoring.run(best, validation, range(len(validation)), part="validation")
        total = scoring.run(chosen, dataset, indices, save_maps=place)
    seconds = total.seconds / len(indices)
    return _answer(origin, validation, chosen, best, total.ranks, every, seconds)


def _check_engine(
    engine: OnRay | None, explainer: Explainer, protocols: Sequence[WsolProtocol]
) -> None:
    """Raise `InputError` if the engine cannot take the model or the protocols."""
    if engine is None:
        return
    engine.device_type(explainer.classifier)
    for protocol in protocols:
        if not hasattr(protocol, "add"):
            raise InputError(
                f"the protocol {protocol.name!r} cannot be added up over workers; give it a "
                "method add(other), or score in one process"
            )


def _facts(
    explainer: Explainer,
    dataset: BoxDataset,
    protocols: Sequence[WsolProtocol],
    validation: BoxDataset | None,
    batch_size: int,
    engine: OnRay | None,
) -> dict[str, Any]:
    """Everything beside the origin of maps that the counts of a batch depend on, but for it."""
    classifier = explainer.classifier
    return {
        "schema": "attrib.wsol-job/1",
        "data": about_data(dataset),
        "validation": None if validation is None else about_data(validation),
        "batch_size": batch_size,
        "device": engine.device_type(classifier) if engine else classifier.device.type,
        **about_protocols(protocols),
    }


def evaluate_saved_maps(
    folder: str | Path,
    dataset: BoxDataset,
    protocols: WsolProtocol | Sequence[WsolProtocol],
    *,
    validation: tuple[str | Path, BoxDataset] | None = None,
    batch_size: int = 16,
    limit: int | None = None,
    every: int = 1,
    progress: bool | None = False,
) -> dict[str, Any]:
    """Score maps in files, as `evaluate_wsol` wrote them or another tool did.

    Args:
        folder: Holds `ID.npz` or `ID.npy` for each picture, see `read_map`.
        dataset: As for `evaluate_wsol`.
        protocols: Fresh; are filled.
        validation: Folder of the maps of another split, and that split, to choose thresholds by.
        batch_size: Maps scored at once, where they are of one size.
        limit: Score only so many pictures.
        every: Score every so many-th picture.
        progress: Show a bar; None for one on terminals only.

    Returns:
        As `evaluate_wsol`; model and method are None if the files do not say.

    Raises:
        InputError: a map is missing or damaged, or a picture lacks what a protocol needs.
    """
    chosen, best = _several(protocols), None
    origin = _unknown(dataset) | made_by(Path(folder), dataset)
    if validation is not None:
        best, (place, split) = deepcopy(chosen), validation
        other = _unknown(split) | made_by(Path(place), split)
        for batch in _read(Path(place), split, range(len(split)), batch_size, progress):
            feed(best, replace(batch, normalize=other["normalize"]))
    indices = _indices(dataset, every, limit)
    ranks, started = [], time.perf_counter()
    for batch in _read(Path(folder), dataset, indices, batch_size, progress):
        feed(chosen, replace(batch, normalize=origin["normalize"]))
        ranks.append(batch.rank)
    seconds = (time.perf_counter() - started) / len(indices)
    chosen_on = None if validation is None else validation[1]
    return _answer(origin, chosen_on, chosen, best, ranks, every, seconds)


def _several(protocols: WsolProtocol | Sequence[WsolProtocol]) -> list[WsolProtocol]:
    several = [protocols] if isinstance(protocols, WsolProtocol) else list(protocols)
    names = [protocol.name for protocol in several]
    if not names or len(set(names)) < len(names):
        raise InputError(f"give one protocol or several of different names, got {names}")
    return several


def _origin(explainer: Explainer, dataset: BoxDataset) -> dict[str, Any]:
    """Say what makes maps, and of what; the classes must be the model's."""
    check_labels(explainer.classifier, dataset.name, dataset.labels)
    classifier = explainer.classifier
    return {
        "dataset": dataset.name,
        "model": classifier.spec.name,
        "method": format_spec(explainer.method),
        "exact": classifier.exact or not explainer.method.needs_class_maps,
        "normalize": explainer.method.normalize,
        "made_by": ModelRecord(classifier, explainer.fit, explainer.decode).to_dict(),
    }


def _unknown(dataset: BoxDataset) -> dict[str, Any]:
    """Say what is taken of maps in files that do not say what made them."""
    unknown = dict.fromkeys(("model", "method", "exact"))
    return {"dataset": dataset.name, **unknown, "normalize": "minmax"}


def _indices(dataset: BoxDataset, every: int, limit: int | None) -> range:
    indices = range(0, len(dataset), every)[:limit]
    if not indices:
        raise InputError(f"{dataset.name} has no pictures to score")
    return indices


def _read(
    folder: Path, dataset: BoxDataset, indices: Sequence[int], size: int, progress: bool | None
) -> Iterator[WsolBatch]:
    """Read maps and batch those in a row that are of one size."""
    waiting: list[tuple[BoxSample, MapFile]] = []
    maps = read_ahead(partial(read_map, folder), (dataset[i] for i in indices), depth=size)
    for sample, read in each(maps, len(indices), progress):
        if waiting and (len(waiting) == size or _shape(read) != _shape(waiting[0][1])):
            yield _stack(waiting)
            waiting = []
        waiting.append((sample, read))
    if waiting:
        yield _stack(waiting)


def _shape(read: MapFile) -> tuple[Any, ...]:
    return read.plane.shape, read.frame.tensor, read.rank < 0


def _stack(rows: list[tuple[BoxSample, MapFile]]) -> WsolBatch:
    reads = [read for _, read in rows]
    ranks = torch.tensor([read.rank for read in reads])
    return batch_of(
        [sample for sample, _ in rows],
        torch.stack([read.plane for read in reads]),
        [read.frame for read in reads],
        None if reads[0].rank < 0 else ranks,
    )


def _answer(
    origin: dict[str, Any],
    validation: BoxDataset | None,
    protocols: list[WsolProtocol],
    best: list[WsolProtocol] | None,
    ranks: Sequence[Tensor | None],
    every: int,
    seconds: float,
) -> dict[str, Any]:
    by: Sequence[WsolProtocol | None] = best or [None] * len(protocols)
    known = [rank.cpu() for rank in ranks if rank is not None]
    accuracy = {}
    if len(known) == len(ranks):
        rank = torch.cat(known)
        accuracy = {f"top{k}_acc": 100 * float((rank < k).double().mean()) for k in (1, 5)}
    figures = {p.name: p.result(v) for p, v in zip(protocols, by, strict=True)}
    return {
        "schema": SCHEMA,
        **origin,
        "validation": None if validation is None else validation.name,
        "every": every,
        "images": next(iter(figures.values()))["images"],
        **accuracy,
        "protocols": figures,
        "seconds_per_image": seconds,
    }
