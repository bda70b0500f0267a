"""Runs commands in processes that are forked from one that has imported everything already."""

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import captum.attr  # noqa: F401 - what commands import late
import matplotlib.pyplot  # noqa: F401
import timm  # noqa: F401
import torch
import torchvision  # noqa: F401

from attrib.cli import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.forked"])
CAPABILITIES = 0x20080522
"""Version of the structures of capget(2)."""
RIGHTS = 0b110
"""To write where the owner may not, and to read there."""
AFTER = 20
"""So many modules run before Ctrl-C."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What happens to a command.

    Args:
        largest: No file may have more bytes.
        interrupt: `"working"` or `"writing"`: when a SIGINT comes.
        bound: Root has no more rights than files give to their owner.
        folder: Of the files whose writing is interrupted.
    """

    largest: int | None = None
    interrupt: str = ""
    bound: bool = False
    folder: str = ""

    def arrange(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.interrupt == "writing":
            sys.addaudithook(self._opened)
        if self.interrupt == "working":
            self._interrupt_work()
        if self.largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest, self.largest))
        if self.bound and os.geteuid() == 0:
            _lay_down_rights()

    def _opened(self, event: str, details: tuple[object, ...]) -> None:
        if event != "open" or not str(details[0]).startswith(self.folder):
            return
        if str(details[1])[0] in "wxa":
            os.kill(os.getpid(), signal.SIGINT)

    def _interrupt_work(self) -> None:
        left = [AFTER]

        def count(*_: object) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGINT)

        torch.nn.modules.module.register_module_forward_hook(count)


def _lay_down_rights() -> None:
    """As root, obey the permissions of files like anybody else."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their upper halves
    assert libc.capget(header, sets) == 0
    sets[0] &= ~RIGHTS
    assert libc.capset(header, sets) == 0


@dataclass(frozen=True, kw_only=True)
class Done:
    status: int
    output: str
    errors: str


def run(arguments: list[str], trouble: Trouble, scratch: Path, seconds: float = 300) -> Done:
    """Run `attrib` with arguments, in a folder for what it does not keep."""
    pipes = [scratch / "output", scratch / "errors"]  # limits of files do not hold for them
    for pipe in pipes:
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
    ends = [os.open(pipe, os.O_RDONLY | os.O_NONBLOCK) for pipe in pipes]
    process = FORKS.Process(target=_command, args=(arguments, trouble, pipes))
    process.start()
    process.join(seconds)
    assert process.exitcode is not None, "it hangs"
    output, errors = (os.read(end, 1 << 16).decode() for end in ends)
    for end in ends:
        os.close(end)
    return Done(status=process.exitcode, output=output, errors=errors)


def _command(arguments: list[str], trouble: Trouble, pipes: list[Path]) -> None:
    os.chdir(pipes[0].parent)
    for number, pipe in enumerate(pipes, 1):
        os.dup2(os.open(pipe, os.O_WRONLY), number)
    torch.set_num_threads(1)
    sys.argv = ["attrib", *arguments]
    trouble.arrange()
    main()
