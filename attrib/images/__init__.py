"""Pictures in, tensors and Frames out."""

from attrib.images.fitting import boxes_to_source, boxes_to_tensor, preprocess, tensor_picture
from attrib.images.picture import MAX_PIXELS, Picture, PictureLike, as_batch, read_image

__all__ = [
    "MAX_PIXELS",
    "Picture",
    "PictureLike",
    "as_batch",
    "boxes_to_source",
    "boxes_to_tensor",
    "preprocess",
    "read_image",
    "tensor_picture",
]
