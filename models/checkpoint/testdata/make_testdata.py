#!/usr/bin/env python3
"""Writes the .bin files of the reader's tests: what torch.save makes of the tensors that checkpoints may hold.

usage: make_testdata.py OUT_DIR        needs torch

Values are i / 8 - 3 for element i in row-major order (exact in every floating dtype), so that the tests need no second file.
"""
import collections, os, sys, zipfile
import torch


def values(*shape, dtype=torch.float32):
    n = 1
    for d in shape:
        n *= d
    return (torch.arange(n, dtype=torch.float64) / 8 - 3).reshape(shape).to(dtype)


class Tagged(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(values(2, 3))
        self.register_buffer("count", torch.tensor(7))


class Harmful:
    def __reduce__(self):
        return (os.system, ("true",))


def main(out):
    os.makedirs(out, exist_ok=True)
    put = lambda name, value, **kw: torch.save(value, os.path.join(out, name), **kw)
    put("dtypes.bin", {"f32": values(2, 3), "f64": values(2, 3, dtype=torch.float64), "f16": values(2, 3, dtype=torch.float16),
                       "bf16": values(2, 3, dtype=torch.bfloat16), "i64": torch.arange(6).reshape(2, 3),
                       "i32": torch.arange(6, dtype=torch.int32), "i16": torch.arange(6, dtype=torch.int16),
                       "i8": torch.arange(6, dtype=torch.int8) - 3, "u8": torch.arange(6, dtype=torch.uint8),
                       "bool": torch.tensor([True, False]), "f8": values(2, 3).to(torch.float8_e4m3fn),
                       "u16": torch.arange(3).to(torch.uint16), "c64": torch.zeros(2, dtype=torch.complex64)})
    big = values(4, 6)
    cube = values(2, 3, 4)
    put("views.bin", {"whole": big, "transposed": values(6, 4).t().contiguous().t(), "rows": big[1:3], "columns": big[:, 2:5],
                      "every_second": big[::2, ::3], "permuted": cube.permute(2, 0, 1), "expanded": values(3, 1).expand(3, 4),
                      "scalar": values(1).reshape(()), "empty": torch.zeros(0, 5), "last": big[3, 5:], "same": big,
                      "expanded_inside": values(3, 4).t()[:, None, :].expand(4, 2, 3)})
    put("overlapping.bin", {"a": values(10).as_strided((3, 3), (2, 1)), "b": values(10).as_strided((3, 3), (1, 1))})
    put("parameters.bin", collections.OrderedDict(weight=torch.nn.Parameter(values(2, 3)),
                                                  frozen=torch.nn.Parameter(values(2, 3), requires_grad=False)))
    put("state_dict.bin", Tagged().state_dict())
    for protocol in (3, 4, 5):
        put("protocol%d.bin" % protocol, {"a": values(2, 3), "b": values(300)}, pickle_protocol=protocol)
    put("legacy.bin", {"a": values(2, 3)}, _use_new_zipfile_serialization=False)
    put("nested.bin", {"state_dict": {"a": values(2, 3)}, "epoch": 3})
    put("list.bin", [values(2, 3)])
    put("number.bin", {"a": values(2, 3), "step": 3})
    put("harmful.bin", {"a": values(2, 3), "b": Harmful()})
    put("numpy.bin", {"a": values(2, 3).numpy()})
    put("sparse.bin", {"a": torch.eye(3).to_sparse()})
    torch.serialization.set_crc32_options(False)
    put("no_crc.bin", {"a": values(2, 3)})
    torch.serialization.set_crc32_options(True)

    def repack(old_name, new_name, kind, order=b"little"):
        with zipfile.ZipFile(os.path.join(out, old_name)) as old:
            entries = [(item.filename, old.read(item)) for item in old.infolist()]
        with zipfile.ZipFile(os.path.join(out, new_name), "w") as new:
            for name, data in entries:
                new.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), order if name.endswith("/byteorder") else data,
                             compress_type=kind)

    # A few elements far apart in a large storage; compressed, since almost all of it is zero.
    far = torch.zeros(1000, 300)
    far[:, 7] = values(1000)
    put("far.bin", {"column": far[:, 7], "rows": far[::499, 5:9], "corner": far[999, 298:]})
    repack("far.bin", "far.bin", zipfile.ZIP_DEFLATED)
    # As other zip tools repack it: deflated; and as a big-endian machine writes it.
    repack("views.bin", "deflated.bin", zipfile.ZIP_DEFLATED)
    repack("views.bin", "big_endian.bin", zipfile.ZIP_STORED, b"big")
    # With 64-bit sizes, as every archive above 4 GB has them.
    with zipfile.ZipFile(os.path.join(out, "views.bin")) as old, zipfile.ZipFile(os.path.join(out, "zip64.bin"), "w") as new:
        for item in old.infolist():
            with new.open(zipfile.ZipInfo(item.filename, (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True) as entry:
                entry.write(old.read(item))


if __name__ == "__main__":
    main(*sys.argv[1:])
