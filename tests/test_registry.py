import dataclasses

import pytest

from attrib.errors import InputError, SpecError, UnknownNameError
from attrib.methods import METHODS, InfoCAMPlus, Method, resolve
from attrib.registry import Registry, format_spec, parse_spec


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ("cam", ("cam", {})),
        (" infocam+ ( region = 4 , border = 'same' ) ", None),
        ("gradcam(layer='layer4.2', relu=False)", None),
        ("x(a=-1.5, b=None, c=(1, 2))", ("x", {"a": -1.5, "b": None, "c": (1, 2)})),
    ],
)
def test_parse(spec, want):
    got = parse_spec(spec)
    assert want is None or got == want
    assert got[0] == spec.split("(")[0].strip()


@pytest.mark.parametrize(
    "spec", ["", "cam(", "cam(4)", "cam(region=open('x'))", "cam(**{})", "cam(region=)", "a b"]
)
def test_what_does_not_parse(spec):
    with pytest.raises(SpecError, match="cannot read"):
        parse_spec(spec)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("infocm", UnknownNameError, "unknown method 'infocm'; did you mean 'infocam'"),
        ("cam(regoin=4)", SpecError, "'cam' has no option 'regoin'; did you mean 'region'"),
        ("cam(region=0)", SpecError, "region is a whole number of at least 1, got 0"),
    ],
)
def test_mistakes_are_answered(spec, error, message):
    with pytest.raises(error, match=message):
        METHODS.make(spec)


def test_format_writes_what_differs_from_the_defaults():
    method = InfoCAMPlus(region=3, border="same")
    assert format_spec(method) == "infocam+(region=3, border='same')"
    assert METHODS.make(format_spec(method)) == method
    assert resolve(method) is method


def test_a_name_is_taken_once():
    table = Registry("thing")

    @table.register
    @dataclasses.dataclass(frozen=True)
    class One:
        name = "one"

    with pytest.raises(ValueError, match="'one' is already registered"):
        table.register(One)
    assert list(table) == ["one"]


def test_resolve_refuses_what_is_no_method():
    with pytest.raises(InputError, match="a Method, got 3"):
        resolve.__wrapped__(3)


def test_methods_are_final_and_documented():
    for name in METHODS:
        cls = METHODS[name]
        assert Method in cls.__bases__
        assert not cls.__subclasses__()
        assert cls.__final__
        assert cls.summary
        assert "$$" in cls.__doc__
        told = "".join(parent.__doc__ or "" for parent in cls.__mro__)
        for field in dataclasses.fields(cls):
            assert f"{field.name}:" in told
