"""Pictures read ahead of a model, and brought to where it is."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Literal, TypeVar

import torch
from PIL import Image

from attrib.ahead import read_ahead, readers_beside
from attrib.errors import ImageError, InputError
from attrib.images.jpeg import Jpeg, decode_jpegs, jpeg_or_picture
from attrib.images.picture import Picture, PictureLike, read_by, read_image
from attrib.transfer import Sender

__all__ = ["Decode", "Reader", "picture_of"]

S = TypeVar("S")

Decode = Literal["pillow", "device"]
"""Who decodes JPEG files: Pillow on the CPU, or torchvision where the model is: by nvJPEG on a GPU
of NVIDIA, else by libjpeg-turbo. Everything else is decoded by Pillow."""


class Reader:
    """Reads pictures in threads, and sends them to a GPU in a stream of its own.

    Args:
        device: Of the model.
        decode: See `Decode`.

    Raises:
        InputError: an unknown `decode`, or torchvision cannot decode there.
    """

    def __init__(self, device: torch.device, decode: Decode = "pillow") -> None:
        if decode not in ("pillow", "device"):
            raise InputError(f"decode is 'pillow' or 'device', got {decode!r}")
        self._device, self._there = device, decode == "device"
        self.send = Sender(device)
        if self._there:
            _try(_place(device))

    def read(self, picture: PictureLike) -> Picture:
        """Read one picture: as `attrib.read_image`, or decoded on the device.

        What was decoded on a GPU may be used in the stream that `send.aside()` enters; elsewhere
        once it has been sent.

        Raises:
            ImageError: as `read_image`.
        """
        found = self._read(picture)
        if isinstance(found, Picture):
            return found
        with self.send.aside():
            (made,) = decode_jpegs([found], _place(self._device))
        if isinstance(made, ImageError):
            raise made
        return made

    def ahead(
        self,
        items: Iterable[S],
        of: Callable[[S], PictureLike],
        *,
        readers: int | None = None,
        depth: int,
    ) -> Generator[tuple[S, Future[Picture]], None, None]:
        """Yield each item with its picture, in order, while threads read on.

        On a GPU a further thread decodes and sends `depth` pictures at once; see `Picture.sent`.

        Args:
            items: Taken in the calling thread, as far ahead as is read.
            of: Gives the picture of an item.
            readers: Threads; with 0 a picture is read when its turn comes. None for 2, or 0 where
                the model takes all cores of the CPU.
            depth: Pictures that are read ahead.
        """
        readers = readers_beside(self._device) if readers is None else readers
        if self._device.type != "cuda":
            yield from read_ahead(
                lambda item: self.read(of(item)), items, readers=readers, depth=depth
            )
            return
        files = read_ahead(lambda item: self._read(of(item)), items, readers=readers, depth=0)
        batches = iter(lambda: list(islice(files, depth)), [])
        for _, sent in read_ahead(self._sent, batches, readers=min(readers, 1), depth=1):
            yield from sent.result()

    def _read(self, picture: PictureLike) -> Picture | Jpeg:
        return read_by(picture, jpeg_or_picture) if self._there else read_image(picture)

    def _sent(
        self, batch: list[tuple[S, Future[Picture | Jpeg]]]
    ) -> list[tuple[S, Future[Picture]]]:
        """Decode what is to be decoded on the device, and send the rest there."""
        found = [read.exception() or read.result() for _, read in batch]
        jpegs = [one for one in found if isinstance(one, Jpeg)]
        with self.send.aside():
            decoded = iter(decode_jpegs(jpegs, self._device) if jpegs else ())
        made = [next(decoded) if isinstance(one, Jpeg) else one for one in found]
        here = [one for one in made if isinstance(one, Picture) and one.sent is None]
        sent = self.send([picture.pixels for picture in here])
        ready = {id(p): replace(p, sent=s) for p, s in zip(here, sent, strict=True)}
        return [
            (item, _settled(ready.get(id(one), one)))
            for (item, _), one in zip(batch, made, strict=True)
        ]


@cache
def _try(device: torch.device) -> None:
    """Decode one small JPEG, to find out before any work whether that can be done.

    Raises:
        InputError: it cannot.
    """
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    small = read_by(file.getvalue(), jpeg_or_picture)
    try:
        (made,) = decode_jpegs([small], device)  # type: ignore[list-item]
    except ImportError as error:
        made = ImageError(str(error))
    if isinstance(made, ImageError):
        raise InputError(
            f"torchvision cannot decode JPEGs on {device} here; leave decode='pillow' ({made})"
        )


def picture_of(numbered: tuple[int, PictureLike], read: Future[Picture], single: bool) -> Picture:
    """Return what was read; where it is one of several, an error says which."""
    try:
        return read.result()
    except InputError as error:
        if single:
            raise
        raise type(error)(f"picture {numbered[0]}: {error}") from error


def _place(device: torch.device) -> torch.device:
    """Return where torchvision decodes for a device."""
    return device if device.type == "cuda" else torch.device("cpu")


def _settled(found: Picture | BaseException) -> Future[Picture]:
    future = Future[Picture]()
    if isinstance(found, Picture):
        future.set_result(found)
    else:
        future.set_exception(found)
    return future
