"""What users hand over becomes tensors over the same memory, and results come back in kind."""

import warnings

import numpy as np
import pytest
import torch

import fastcal
from fastcal.core.arrays import real_dtype, to_tensor


class Foreign:
    """An array of another library: nothing but the DLPack protocol."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


class Subclass(torch.Tensor):
    """Stands for MONAI's MetaTensor: every operation on it goes through Python."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} went through the subclass")


def test_a_plain_tensor_is_itself():
    tensor = torch.zeros(3)
    assert to_tensor(tensor, "x") is tensor


def test_a_tensor_that_requires_grad_is_detached_and_shares_memory():
    tensor = torch.zeros(3, requires_grad=True)
    seen = to_tensor(tensor, "x")
    assert not seen.requires_grad
    assert seen.data_ptr() == tensor.data_ptr()


def test_a_subclass_is_seen_as_a_plain_tensor():
    tensor = torch.arange(3.0)
    seen = to_tensor(tensor.as_subclass(Subclass), "x")
    assert type(seen) is torch.Tensor
    assert seen.data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u1", "u2", "u4", "u8", "?"])
def test_a_numpy_array_shares_memory(dtype):
    array = np.ones((2, 3), dtype)
    seen = to_tensor(array.T, "x")
    assert seen.data_ptr() == array.ctypes.data
    assert seen.shape == (3, 2)
    assert seen.stride() == (1, 3)


def test_a_read_only_array_shares_memory_without_a_warning():
    array = np.arange(4.0)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = to_tensor(array, "x")
    assert seen.data_ptr() == array.ctypes.data
    del array
    assert seen.tolist() == [0, 1, 2, 3]


def test_a_memory_map_is_read_where_it_lies(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6.0).reshape(2, 3))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    seen = to_tensor(mapped, "x")
    assert seen.data_ptr() == mapped.ctypes.data
    assert seen.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_torch_cannot_describe_is_copied_with_its_values():
    array = np.arange(6.0).reshape(2, 3)
    assert to_tensor(array[::-1], "x").tolist() == [[3, 4, 5], [0, 1, 2]]
    assert to_tensor(array.astype(">f4"), "x").tolist() == array.tolist()
    record = np.zeros(3, [("a", "i1"), ("b", "f4")])
    record["b"] = [1, 2, 3]
    assert to_tensor(record["b"], "x").tolist() == [1, 2, 3]


def test_bfloat16_arrays_are_bfloat16_tensors():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1.0, -2.5], ml_dtypes.bfloat16)
    seen = to_tensor(array, "x")
    assert seen.dtype == torch.bfloat16
    assert seen.tolist() == [1.0, -2.5]


def test_a_foreign_array_shares_memory():
    tensor = torch.arange(4.0)
    assert to_tensor(Foreign(tensor), "x").data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("value", [[1.0, 2.0], 1.0, "text", None])
def test_what_is_no_array_is_refused_by_name(value):
    with pytest.raises(TypeError, match=f"preds.*{type(value).__name__}"):
        to_tensor(value, "preds")


def test_arrays_of_no_numbers_and_sparse_tensors_are_refused():
    with pytest.raises(TypeError, match="target must hold numbers"):
        to_tensor(np.array(["a"]), "target")
    with pytest.raises(TypeError, match="mask must be a dense tensor"):
        to_tensor(torch.eye(2).to_sparse(), "mask")


def test_the_accumulation_type_is_float32_except_for_float64():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert real_dtype(torch.zeros(1, dtype=dtype), "x") == torch.float32
    assert real_dtype(torch.zeros(1, dtype=torch.float64), "x") == torch.float64
    with pytest.raises(TypeError, match=r"x must be float16.*int64"):
        real_dtype(torch.zeros(1, dtype=torch.int64), "x")


def test_numpy_in_numpy_out():
    members = np.zeros((2, 1, 2, 3), np.float32)
    target = np.zeros((1, 3), np.uint8)
    result = fastcal.ensemble_statistics(list(members), target, maps=("mean", "label"))
    assert isinstance(result.mean, np.ndarray)
    assert result.mean.dtype == np.float32
    assert result.label.dtype == np.int64
    assert isinstance(fastcal.ensemble_entropy(members), np.ndarray)
    accumulator = fastcal.EnsembleAccumulator()
    accumulator.update(members[0])
    assert isinstance(accumulator.finalize().entropy, np.ndarray)


def test_torch_and_foreign_in_torch_out():
    member = torch.zeros(1, 2, 3)
    assert isinstance(fastcal.ensemble_entropy([member]), torch.Tensor)
    assert isinstance(fastcal.ensemble_entropy([Foreign(member)]), torch.Tensor)


def test_a_given_numpy_output_is_written_and_handed_back():
    members = np.zeros((1, 1, 2, 3), np.float32)
    out = np.full((1, 3), -1, np.float32)
    assert fastcal.ensemble_entropy(members, out=out) is out
    assert out == pytest.approx(np.log(2), abs=1e-6)


@pytest.mark.parametrize("spoil", ["read-only", "reversed", "big-endian"])
def test_an_output_that_would_be_a_copy_is_refused(spoil):
    out = np.zeros((1, 3), ">f4" if spoil == "big-endian" else "f4")
    if spoil == "read-only":
        out.flags.writeable = False
    if spoil == "reversed":
        out = out[:, ::-1]
    with pytest.raises(ValueError, match="out for 'entropy' must be a writeable array"):
        fastcal.ensemble_entropy(np.zeros((1, 1, 2, 3), np.float32), out=out)
