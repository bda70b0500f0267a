"""Pictures in, tensors and Frames out."""

from attrib.images.fitting import (
    boxes_to_source,
    boxes_to_tensor,
    pixels_on,
    preprocess,
    resample,
    tensor_picture,
)
from attrib.images.picture import MAX_PIXELS, Picture, PictureLike, as_batch, read_image
from attrib.images.reader import Decode, Reader

__all__ = [
    "MAX_PIXELS",
    "Decode",
    "Picture",
    "PictureLike",
    "Reader",
    "as_batch",
    "boxes_to_source",
    "boxes_to_tensor",
    "pixels_on",
    "preprocess",
    "read_image",
    "resample",
    "tensor_picture",
]
