import pytest
import torch

from attrib.errors import TargetError, UnknownNameError
from attrib.targets import label_index, resolve_targets
from attrib.types import Targets

LABELS = ("tench, Tinca tinca", "goldfish", "crane", "great white shark, white shark")
LOGITS = torch.tensor([[0.0, 3.0, 1.0, 2.0], [4.0, 0.0, 0.0, 0.0]])


def pairs(targets, images=2):
    found = resolve_targets.__wrapped__(targets, images, LABELS)(LOGITS)
    return list(zip(found.image.tolist(), found.label.tolist(), strict=True))


@pytest.mark.parametrize(
    ("targets", "want"),
    [
        (None, [(0, 1), (1, 0)]),
        (2, [(0, 2), (1, 2)]),
        ("goldfish", [(0, 1), (1, 1)]),
        ([3, "Tinca Tinca"], [(0, 3), (1, 0)]),
        ([[0, "crane"], []], [(0, 0), (0, 2)]),
        ([[], []], []),
        (torch.tensor([3, 1]), [(0, 3), (1, 1)]),
        (torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0]]), [(0, 1), (0, 3)]),
        (Targets(image=torch.tensor([1]), label=torch.tensor([2])), [(1, 2)]),
    ],
)
def test_what_a_user_may_say(targets, want):
    assert pairs(targets) == want


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ([1], TargetError, "got 1 targets for 2 images"),
        ([1, 4], TargetError, "class 4 is out of range; there are 4"),
        (-1, TargetError, "class -1 is out of range"),
        (["goldfsh", 1], UnknownNameError, "unknown label 'goldfsh'; did you mean 'goldfish'"),
        ([True, 1], TargetError, "got True"),
        (3.0, TargetError, "got float"),
        (torch.tensor([1.0, 2.0]), TargetError, "class indices are integers"),
        (torch.tensor([1, 2, 3]), TargetError, r"shape \[2\] .* got \(3,\)"),
        (torch.tensor([[0, 2, 0, 0], [0, 0, 0, 0]]), TargetError, "only 0 and 1"),
        (
            Targets(image=torch.tensor([2]), label=torch.tensor([0])),
            TargetError,
            "image 2 is out of range; there are 2",
        ),
        (
            Targets(image=torch.tensor([1, 0]), label=torch.tensor([0, 0])),
            TargetError,
            "ascending order; sort the pairs",
        ),
    ],
)
def test_errors_say_what_was_given(targets, error, message):
    with pytest.raises(error, match=message):
        pairs(targets)


def test_names_need_labels():
    with pytest.raises(TargetError, match="carries no label names; give 'cat' as an index"):
        label_index("cat", ())


def test_whole_names_win_over_synonyms():
    assert label_index("crane", ("x, crane", "crane")) == 1


def test_fixed_pairs_are_checked_and_handed_on():
    logits = torch.zeros(3, 4)
    pairs = Targets(image=torch.tensor([0, 0, 2]), label=torch.tensor([3, 1, 0]))
    assert pairs(logits) is pairs
    for image, label, message in (([2, 0], [1, 1], "ascending"), ([0, 3], [1, 1], "image 3")):
        with pytest.raises(TargetError, match=message):
            Targets(image=torch.tensor(image), label=torch.tensor(label))(logits)
