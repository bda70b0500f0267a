"""A GPU that is not there: tensors that say they are on one, with their values on the CPU.

What only works on one device fails here as it would there, and wherever the host would wait for a
GPU the line is written down; the answer is given all the same, so that one run finds all of them.
A tensor of one stream that another one uses without waiting for it, or whose memory might be given
away before it is used, is an error.
"""

import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

ROOT = Path(__file__).parents[1] / "attrib"
GPU = torch.device("cuda", 0)
READS = {
    "aten::_local_scalar_dense",
    "aten::_unique2",
    "aten::bincount",
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
    "aten::unique_dim",
}
"""What cannot answer, or cannot tell the size of its answer, without a look at values."""
ACROSS = {"aten::_to_copy", "aten::copy_", "aten::index.Tensor", "aten::index_put_"}
"""What takes tensors of both devices."""


class _Event(torch.cuda.Event):
    """Says up to where a stream had come."""

    def __new__(cls, stream: "Stream") -> "_Event":
        return super().__new__(cls)

    def __init__(self, stream: "Stream") -> None:
        self.stream, self.time = stream, stream.time


class Stream:
    """What is queued in it is only counted, and how far it has waited for others."""

    def __init__(self, _device: object = None) -> None:
        self.time, self.waited = 0, {self: float("inf")}

    def record_event(self) -> _Event:
        return _Event(self)

    def wait_event(self, event: _Event) -> None:
        self.waited[event.stream] = max(event.time, self.waited.get(event.stream, 0))

    def synchronize(self) -> None:
        _state.waits.append(_place())

    def __deepcopy__(self, _memo: object) -> "Stream":
        return self


class _State(threading.local):
    """Of each thread its stream, and where it waits."""

    stream = main = Stream()
    waits: list[str] = []  # noqa: RUF012


_state = _State()


@contextmanager
def _in_stream(stream: Stream) -> Iterator[None]:
    before, _state.stream = _state.stream, stream
    try:
        yield
    finally:
        _state.stream = before


def _refuse_races(name: str, tensors: list["Pretended"]) -> None:
    own = _state.stream
    for tensor in tensors:
        stream, time = tensor.made
        if own.waited.get(stream, -1) < time:
            raise RuntimeError(f"{name} of a tensor that another stream may not have made yet")
        if stream is not own and own not in tensor.kept_for:
            raise RuntimeError(f"{name} of a tensor whose memory its stream may reuse before")


class Pretended(Tensor):
    """A tensor that says it is on a GPU; `held` holds its values."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Pretended":
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=GPU,
        )
        made.held, made.kept_for = inner, set()
        made.touch()
        return made

    def touch(self) -> None:
        """Note that the current stream writes it now."""
        _state.stream.time += 1
        self.made = (_state.stream, _state.stream.time)

    def record_stream(self, stream: Stream) -> None:
        self.kept_for.add(stream)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {}, [])

    def tolist(self):
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"Pretended({self.held!r})"


class _Watching(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __enter__(self) -> "_Watching":
        _state.waits = self.waits
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {}, self.waits)


def _call(func, args, kwargs, waits):
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, Pretended)]
    device = kwargs.get("device")
    onto = bool(there) if device is None else torch.device(device).type == "cuda"
    if not there and not onto:
        return func(*args, **kwargs)
    name = func.name()
    _refuse_races(name, there)
    here = [x for x in tensors if not isinstance(x, Pretended) and x.ndim]
    if there and here and name not in ACROSS:
        raise RuntimeError(f"{name} of tensors on {GPU} and on the CPU")
    if _waits(name, args, kwargs, bool(there), onto, here):
        waits.append(_place())
    if device is not None:
        kwargs = {**kwargs, "device": "cpu"}
    inner_args, inner_kwargs = tree_map_only(Pretended, lambda x: x.held, (args, kwargs))
    out = func(*inner_args, **inner_kwargs)
    if not onto:
        return out
    if func._schema.is_mutable and isinstance(args[0], Pretended):
        args[0].touch()
    out = tree_map_only(Tensor, Pretended, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if there else out


def _waits(name, args, kwargs, there, onto, here) -> bool:
    if name in READS or (name == "aten::repeat_interleave.Tensor" and _size_unknown(args, kwargs)):
        return True
    if name == "aten::_to_copy":
        return there != onto and not kwargs.get("non_blocking")
    if name == "aten::copy_":
        crosses = isinstance(args[0], Pretended) != isinstance(args[1], Pretended)
        return crosses and not (args[2:] or [kwargs.get("non_blocking")])[0]
    if name.startswith("aten::index"):
        indices = args[1] if isinstance(args[1], (list, tuple)) else []
        return bool(here) or any(i is not None and i.dtype == torch.bool for i in indices)
    return False


def _size_unknown(args, kwargs) -> bool:
    return kwargs.get("output_size") is None


def _place() -> str:
    """Name the line of attrib that came last on the way here."""
    own = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(ROOT)]
    last = own[-1] if own else traceback.extract_stack()[-4]
    return f"{Path(last.filename).name} {last.name}"


def beneath(call, *args):
    """Call something with the values beneath its arguments, and put what it returns on the GPU."""
    found = call(*tree_map_only(Pretended, lambda x: x.held, args))
    if not any(isinstance(x, Pretended) for x in args):
        return found
    return replace(found, **tree_map_only(Tensor, Pretended, vars(found)))


class _WatchedThreads(ThreadPoolExecutor):
    """Threads in which a GPU is pretended to; those that read may wait."""

    def submit(self, call, *args):
        def watched():
            with _Watching():
                return call(*args)

        return super().submit(watched)


def no_gradients(monkeypatch) -> None:
    """Let every gradient be 1: the passes back are beyond a GPU that is not there."""

    def ones(_outputs, inputs, *_, **__):
        several = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        return tuple(torch.ones_like(x) for x in several)

    monkeypatch.setattr("torch.autograd.grad", ones)


@contextmanager
def pretend_gpu(monkeypatch) -> Iterator[list[str]]:
    """Let tensors be brought to a GPU; yields the lines that wait for it, as they come up."""
    ready = getattr(torch._C, "_ensureCUDADeviceGuardSet", None)
    if ready is None:
        pytest.skip(f"torch {torch.__version__} cannot pretend to a GPU; a later one can")
    ready()  # so that "cuda" without a number is asked of nobody
    state = torch.get_rng_state
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", _in_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: _state.stream)
    monkeypatch.setattr(torch.cuda, "device", lambda *_: nullcontext())
    monkeypatch.setattr(torch.cuda, "default_generators", (torch.Generator(),))
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr("attrib.ahead.ThreadPoolExecutor", _WatchedThreads)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with torch.backends.cudnn.flags(enabled=False), _Watching() as watching:
            yield watching.waits
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
