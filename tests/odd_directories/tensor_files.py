"""Weight files written with the standard library alone: safetensors, and the zip archives of torch.save."""

import collections
import io
import json
import math
import pickle
import random
import struct
import sys
import types
import zipfile

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1}


def values(name, count, center=0.0):
    """Random numbers that the name decides. All are multiples of 2^-9 below 1/2: exact in every floating type here
    (bfloat16 has 8 bits of precision)."""
    chance = random.Random(name)
    return [center + chance.randint(-127, 127) / 512 if center == 0 else center + chance.randint(-32, 32) / 128
            for _ in range(count)]


def encode(dtype, numbers):
    if dtype == "BF16":
        return b"".join(struct.pack("<f", x)[2:] for x in numbers)
    if dtype == "F8_E4M3":
        return bytes(0x38 for _ in numbers)  # ones
    if dtype in ("I64", "I32", "I8", "U8", "BOOL"):
        form = {"I64": "q", "I32": "i", "I8": "b", "U8": "B", "BOOL": "B"}[dtype]
        return struct.pack("<%d%s" % (len(numbers), form), *[int(abs(x)) for x in numbers])
    return struct.pack("<%d%s" % (len(numbers), {"F64": "d", "F32": "f", "F16": "e"}[dtype]), *numbers)


class Tensor:
    """Shape, dtype and numbers in row-major order."""

    def __init__(self, shape, numbers, dtype="F32"):
        assert len(numbers) == math.prod(shape), (shape, len(numbers))
        self.shape, self.numbers, self.dtype = list(shape), numbers, dtype

    def to(self, dtype):
        return Tensor(self.shape, self.numbers, dtype)

    def reshaped(self, *shape):
        return Tensor(shape, self.numbers, self.dtype)

    def transposed(self):
        rows, columns = self.shape
        return Tensor([columns, rows], [self.numbers[i * columns + j] for j in range(columns) for i in range(rows)],
                      self.dtype)

    def bytes(self):
        return encode(self.dtype, self.numbers)


def safetensors(tensors, metadata=None):
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, tensor in tensors.items():
        raw = tensor.bytes()
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


class _Rebuilt:
    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.args


class _Storage:
    def __init__(self, kind, key, count):
        self.kind, self.key, self.count = kind, key, count


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, _Storage):
            return ("storage", obj.kind, obj.key, "cpu", obj.count)
        return None


def torch_zip(items, shared=(), strided=()):
    """What torch.save writes for a dictionary of tensors (and other values). `shared`: pairs of names of which the second
    has the first one's storage; `strided`: names of matrices whose elements lie column by column."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    kinds = {}
    for dtype, name in (("F32", "FloatStorage"), ("F16", "HalfStorage"), ("BF16", "BFloat16Storage"),
                        ("F64", "DoubleStorage"), ("I64", "LongStorage"), ("BOOL", "BoolStorage")):
        kinds[dtype] = type(name, (), {"__module__": "torch"})
        setattr(torch, name, kinds[dtype])

    def _rebuild_tensor_v2():
        raise AssertionError("only its name is needed")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules["torch"], sys.modules["torch._utils"] = torch, utils
    storages, first_of = {}, {second: first for first, second in shared}
    try:
        state = collections.OrderedDict()
        for name, tensor in items.items():
            if not isinstance(tensor, Tensor):
                state[name] = tensor
                continue
            stride, step = [], 1
            for dim in reversed(tensor.shape):
                stride.insert(0, step)
                step *= dim
            stored = tensor
            if name in strided:
                stored, stride = tensor.transposed(), [1, tensor.shape[0]]
            owner = first_of.get(name, name)
            if owner not in storages:
                storages[owner] = (_Storage(kinds[tensor.dtype], str(len(storages)), len(tensor.numbers)), stored.bytes())
            state[name] = _Rebuilt(storages[owner][0], 0, tuple(tensor.shape), tuple(stride), False,
                                   collections.OrderedDict())
        text = io.BytesIO()
        _Pickler(text, 2).dump(state)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        def add(name, data):
            archive.writestr(zipfile.ZipInfo("archive/" + name, (1980, 1, 1, 0, 0, 0)), data)

        add("data.pkl", text.getvalue())
        add("byteorder", b"little")
        for storage, data in storages.values():
            add("data/" + storage.key, data)
        add("version", b"3\n")
    return out.getvalue()
