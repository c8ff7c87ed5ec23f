"""Adapter files: what goes in comes out, and nothing else gets in."""

import errno
import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.files import load_adapter, save_adapter
from fedloom.adapters.header import factor_key, tensor_key
from fedloom.adapters.io import from_bytes, to_bytes, to_file
from fedloom.adapters.packing import FORMATS, Coding, rounded
from fedloom.errors import AdapterError, WrongBaseError

NAMES = st.text(min_size=0, max_size=12) | st.sampled_from(["clients/a.b", "clients/a", "b/c", "a.b.c/a", "%2F", "é"])


def factors(rank=2, out=3, inner=4, scaling=2.0, dtype=torch.float32, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    return Factors(
        torch.randn(rank, inner, generator=drawn).to(dtype), torch.randn(out, rank, generator=drawn).to(dtype), scaling
    )


@st.composite
def adapters(draw):
    sizes = st.integers(0, 4)
    return Adapter(
        {
            module: factors(
                draw(sizes),
                draw(sizes),
                draw(sizes),
                draw(st.floats(-1e6, 1e6)),
                draw(st.sampled_from([torch.float32, torch.bfloat16])),
                draw(st.integers(0, 99)),
            )
            for module in draw(st.lists(NAMES, max_size=3, unique=True))
        }
    )


@pytest.fixture
def sample():
    return Adapter({"layer.q_proj": factors(), "layer.v_proj": factors(rank=1, seed=1)})


@pytest.fixture
def data(sample):
    return to_bytes({"shared": sample}, {"classifier.weight": torch.ones(2, 2)}, facts={"base": "x"})


def header_of(data):
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(data, change):
    """The same tensor bytes under a header changed by `change(safetensors_header, our_header)`."""
    outer, body = header_of(data)
    ours = json.loads(outer["__metadata__"]["fedloom"])
    change(outer, ours)
    if "__metadata__" in outer:
        outer["__metadata__"]["fedloom"] = ours if isinstance(ours, str) else json.dumps(ours)
    text = json.dumps(outer).encode()
    return struct.pack("<Q", len(text)) + text + body


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, adapters(), max_size=3), st.dictionaries(NAMES, NAMES, max_size=2))
def test_what_is_written_is_read_again(named, facts):
    tensors = {"step": torch.tensor(3), "m.v": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)}
    data = to_bytes(named, tensors, facts=facts)
    again, plain, facts_again = from_bytes(data, where="file")
    assert {name: adapter.digest() for name, adapter in again.items()} == {
        name: adapter.digest() for name, adapter in named.items()
    }
    assert facts_again == facts
    assert all(
        torch.equal(plain[name], tensor) and plain[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )
    assert to_bytes(again, plain, facts=facts_again) == data


@settings(max_examples=200, deadline=None)
@given(st.tuples(NAMES, NAMES, st.sampled_from("ab")), st.tuples(NAMES, NAMES, st.sampled_from("ab")))
def test_keys_are_unambiguous(left, right):
    assert (factor_key(*left) == factor_key(*right)) == (left == right)
    assert factor_key(*left) != tensor_key(right[0])


def test_views_of_one_memory_are_written_as_values():
    whole = torch.arange(12.0).reshape(3, 4)
    shared = Adapter({"m": Factors(whole[:2], whole.T[:, :2])})
    assert from_bytes(to_bytes({"x": shared}, {"t": whole}, facts={}), where="f")[0]["x"].digest() == shared.digest()


@pytest.mark.parametrize("side", ["a", "b", ""])
def test_sides_that_stay_are_restored(sample, side):
    start = sample.map(lambda _, pair: Factors(pair.a * 3, pair.b * 5, pair.scaling))
    everything = to_bytes({"adapter": sample}, {}, facts={})
    data = to_bytes({"adapter": sample}, {}, facts={}, sides={"adapter": {module: side for module in sample if side}})
    assert len(data) < len(everything)
    read = from_bytes(data, where="message", restore={"adapter": start})[0]["adapter"]
    for module in sample:
        for name in "ab":
            wanted = sample if name == side else start
            assert torch.equal(getattr(read[module], name), getattr(wanted[module], name))


def test_restoring_in_another_precision_loses_nothing(sample):
    data = to_bytes(
        {"x": sample.map(lambda _, pair: pair.to(torch.bfloat16))},
        {},
        facts={},
        sides={"x": dict.fromkeys(sample, "b")},
    )
    read = from_bytes(data, where="message", restore={"x": sample})[0]["x"]
    assert all(torch.equal(read[module].a, sample[module].a) for module in sample)


@pytest.mark.parametrize(
    ("restore", "message"),
    [
        (None, "nothing to restore"),
        ({"x": Adapter({"layer.q_proj": factors(rank=1), "layer.v_proj": factors(rank=1)})}, r"expected \(2, 4\)"),
    ],
)
def test_a_side_that_cannot_be_restored_is_an_error(sample, restore, message):
    data = to_bytes({"x": sample}, {}, facts={}, sides={"x": dict.fromkeys(sample, "b")})
    with pytest.raises(AdapterError, match=message) as error:
        from_bytes(data, where="message", restore=restore)
    assert "layer.q_proj" in str(error.value)


def set_module(key, value):
    def change(_, ours):
        ours["adapters"]["shared"]["layer.q_proj"][key] = value

    return change


CHANGES = {
    "other format": (lambda _, ours: ours.update(format="gguf"), "expected fedloom.adapters, found gguf"),
    "other version": (lambda _, ours: ours.update(version=2), "expected 1, found 2"),
    "version of another type": (lambda _, ours: ours.update(version=True), "expected 1, found True"),
    "other kind": (lambda _, ours: ours.update(kind="x"), "kind"),
    "missing table": (lambda _, ours: ours.pop("tensors"), "not complete"),
    "facts that are no text": (lambda _, ours: ours.update(facts={"x": 1}), "facts 'x'"),
    "no metadata": (lambda outer, _: outer.pop("__metadata__"), "without the header"),
    "rank": (set_module("rank", 3), r"layer.q_proj', side a.*expected float32 \(3, 4\), found float32 \(2, 4\)"),
    "rank below 0": (set_module("rank", -1), "q_proj', rank.*expected a whole number from 0, found -1"),
    "rank of another type": (set_module("rank", 2.0), "rank"),
    "scaling that is not finite": (set_module("scaling", float("nan")), "scaling"),
    "scaling that overflows": (set_module("scaling", 10**400), "scaling"),
    "dtype": (set_module("dtype", "bfloat16"), r"expected bfloat16 \(2, 4\), found float32 \(2, 4\)"),
    "dtype that is no float": (set_module("dtype", "int8"), "dtype"),
    "sides": (set_module("sides", "ba"), "sides"),
    "unknown key": (set_module("more", 1), "unknown keys"),
    "module no table": (lambda _, ours: ours["adapters"]["shared"].update({"layer.q_proj": 3}), "q_proj"),
    "missing tensor": (lambda _, ours: ours["tensors"].update(x={"shape": [1], "dtype": "float32"}), "missing"),
    "unknown tensor": (lambda _, ours: ours["tensors"].clear(), "does not know.*classifier"),
    "shape of a tensor": (
        lambda _, ours: ours["tensors"]["classifier.weight"].update(shape=[4]),
        r"classifier.weight.*expected float32 \(4,\), found float32 \(2, 2\)",
    ),
    "offsets beyond the file": (
        lambda outer, _: next(v for k, v in outer.items() if "classifier" in k).update(data_offsets=[0, 10**12]),
        "not an intact",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_header_that_does_not_agree_is_refused(data, change, message):
    with pytest.raises(AdapterError, match=message) as error:
        from_bytes(with_header(data, change), where="some.safetensors")
    assert str(error.value).startswith("some.safetensors")


def test_the_changes_above_start_from_an_intact_file(data):
    assert from_bytes(with_header(data, lambda *_: None), where="f")[0]["shared"]


@pytest.mark.parametrize("claimed", [0, 1, 2**20, 2**40, 2**63, 2**64 - 1])
def test_a_header_length_beyond_the_file_is_refused(data, claimed):
    with pytest.raises(AdapterError, match="not an intact"):
        from_bytes(struct.pack("<Q", claimed) + data[8:], where="f")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_never_give_another_error(draw):
    data = to_bytes({"shared": Adapter({"layer.q_proj": factors()})}, {"t": torch.ones(2)}, facts={"base": "x"})
    position = draw.draw(st.integers(0, len(data) - 1))
    flipped = data[:position] + bytes([data[position] ^ draw.draw(st.integers(1, 255))]) + data[position + 1 :]
    try:
        from_bytes(flipped, where="f")
    except AdapterError as error:
        assert "f" in str(error)  # noqa: PT017 (a flip in the tensors themselves is valid: digests are for those)
    with pytest.raises(AdapterError):
        from_bytes(data[:position], where="f")


def test_a_dtype_that_the_format_lacks_is_refused():
    with pytest.raises(AdapterError, match="complex64"):
        to_bytes({}, {"t": torch.ones(1, dtype=torch.complex64)}, facts={})


def test_an_adapter_file_knows_its_base(tmp_path, sample):
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, sample, base_digest="abc", facts={"run": "pilot"})
    adapter, facts = load_adapter(path, base_digest="abc")
    assert (adapter.digest(), facts) == (sample.digest(), {"run": "pilot", "base_digest": "abc"})
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    with pytest.raises(WrongBaseError, match=r"adapter.safetensors.*expected abd, found abc"):
        load_adapter(path, base_digest="abd")


def test_files_that_are_not_one_adapter_are_refused(tmp_path, data):
    path = tmp_path / "state.safetensors"
    with pytest.raises(AdapterError, match="No such file"):
        load_adapter(path)
    path.write_bytes(data)
    with pytest.raises(AdapterError, match="not the file of one adapter"):
        load_adapter(path)
    with pytest.raises(AdapterError, match="cannot be written"):
        save_adapter(tmp_path / "missing" / "x", Adapter(), base_digest="", facts={})


def test_the_header_is_described_by_its_values(data):
    ours = json.loads(header_of(data)[0]["__metadata__"]["fedloom"])
    assert ours["adapters"]["shared"]["layer.q_proj"] == {
        "rank": 2, "scaling": 2.0, "out": 3, "in": 4, "dtype": "float32", "sides": "ab",
    }  # fmt: skip


def test_tensors_that_share_memory_are_written_apart():
    whole = torch.arange(12.0).reshape(3, 4)
    tied = {"whole": whole, "rows": whole[1:], "columns": whole[:, :2], "again": whole}
    _, again, _ = from_bytes(to_bytes({}, tied, facts={}), where="test")
    assert all(torch.equal(again[name], tensor) for name, tensor in tied.items())


PACKED = [name for name in FORMATS if name != "float32"]


def packed_bytes(format, block=3):
    coding = Coding(format, block)
    adapters = {"sent": Adapter({"x": factors(3, 5, 7), "": factors(1, 2, 3)}), "plain": Adapter({"x": factors()})}
    tensors = {"head": torch.randn(4, 3), "steps": torch.tensor([3, 4])}
    return adapters, tensors, to_bytes(adapters, tensors, facts={}, codings={"sent": coding}, tensor_coding=coding)


@pytest.mark.parametrize("format", PACKED)
def test_what_is_packed_is_read_rounded_and_the_rest_as_it_was(format):
    adapters, tensors, data = packed_bytes(format)
    again, plain, _ = from_bytes(data, where="message")
    assert again["plain"].digest() == adapters["plain"].digest()
    assert torch.equal(plain["steps"], tensors["steps"])
    assert torch.equal(plain["head"], rounded(tensors["head"], Coding(format, 3)))
    for module, found in again["sent"].items():
        before = adapters["sent"][module]
        assert torch.equal(found.a, rounded(before.a, Coding(format, 3)))
        assert torch.equal(found.b.T, rounded(before.b.T, Coding(format, 3))), "scales run along the columns of b"
        assert found.scaling == before.scaling
        assert not torch.equal(found.a, before.a)


@pytest.mark.parametrize(
    "change",
    [
        lambda ours: ours["adapters"]["sent"]["x"].update(rank=-1),
        lambda ours: ours["adapters"]["sent"]["x"].update(rank=2**40, out=2**40),
        lambda ours: ours["adapters"]["sent"]["x"].update(rank=2**80),
        lambda ours: ours["tensors"]["head"].update(shape=[4, 4]),
        lambda ours: ours["packed"].update(sent=["int2", 3]),
        lambda ours: ours["packed"].update(sent=["int4", 0]),
        lambda ours: ours["packed"].update(sent=["int4", 2**40]),
        lambda ours: ours.update(packed=[]),
        lambda ours: ours.update(packed_tensors=["int4", 3]),
    ],
)
def test_a_header_that_does_not_fit_what_is_packed_is_refused(change):
    with pytest.raises(AdapterError, match="message"):
        from_bytes(with_header(packed_bytes("int8")[2], lambda _, ours: change(ours)), where="message")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PACKED), st.integers(0, 10_000), st.integers(0, 255))
def test_cut_off_or_changed_packed_bytes_are_refused_or_finite(format, place, byte):
    data = packed_bytes(format)[2]
    place %= len(data)
    with pytest.raises(AdapterError):
        from_bytes(data[:place], where="message")
    try:
        again = from_bytes(data[:place] + bytes([byte]) + data[place + 1 :], where="message")[0]
    except AdapterError:
        return
    assert all(torch.isfinite(f.a).all() and torch.isfinite(f.b).all() for f in again.get("sent", {}).values())


def test_a_file_has_the_bytes_of_the_message(tmp_path):
    adapters, tensors = (
        {"one": Adapter({"m": factors(seed=1)}), "two": Adapter({"m": factors(seed=2)})},
        {"x": torch.arange(3.0)},
    )
    to_file(tmp_path / "file", adapters, tensors, facts={"k": "v"})
    assert (tmp_path / "file").read_bytes() == to_bytes(adapters, tensors, facts={"k": "v"})


def test_a_file_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError) as error:
        to_file(tmp_path / "gone" / "file", {}, {}, facts={})
    assert error.value.errno == errno.ENOENT
