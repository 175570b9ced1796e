#!/usr/bin/env python3
"""Prints te_kernels/base/float8_tables.h: what ml_dtypes makes of float8's conversions.

    python3 -m venv v && v/bin/pip install ml_dtypes==0.6.0 numpy
    v/bin/python te_kernels/testing/tools/make_float8_tables.py > te_kernels/base/float8_tables.h

ml_dtypes rounds to nearest even and does not saturate: E4M3 overflows to NaN, E5M2 to infinity. The
conversions of te do as PTX's cvt.rn.satfinite: values are clipped to the largest finite one before
ml_dtypes casts them, and NaN becomes 0x7f (E2M1: 0x7) whatever its sign. E8M0 is rounded up, for
which ml_dtypes gives the values and a search the smallest that is not below.
"""

import ml_dtypes
import numpy as np

FORMATS = [
    ("E4M3", ml_dtypes.float8_e4m3fn, 0x7F),
    ("E5M2", ml_dtypes.float8_e5m2, 0x7F),
    ("E2M1", ml_dtypes.float4_e2m1fn, 0x7),
]


def values_of(dtype, codes):
    return np.arange(codes, dtype=np.uint8).view(dtype).astype(np.float32)


def encode(x, dtype, nan_code):
    largest = np.float32(ml_dtypes.finfo(dtype).max)
    clipped = np.where(np.isnan(x), np.float32(0), np.clip(x, -largest, largest))
    codes = clipped.astype(dtype).view(np.uint8)
    return np.where(np.isnan(x), np.uint8(nan_code), codes)


def encode_e8m0(x):
    values = values_of(ml_dtypes.float8_e8m0fnu, 255)
    codes = np.minimum(np.searchsorted(values, x), 254)
    return np.where(np.isnan(x), 255, codes)


def runs(codes):
    """(first index, code) of every run of equal codes."""
    starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    return [(int(i), int(codes[i])) for i in starts]


def ties(dtype, codes):
    """Middles between neighbouring magnitudes, a float32 to each side, and what is at the ends."""
    magnitudes = values_of(dtype, codes // 2)
    magnitudes = magnitudes[np.isfinite(magnitudes)]
    middles = ((magnitudes[:-1].astype(np.float64) + magnitudes[1:]) / 2).astype(np.float32)
    top = magnitudes[-1]
    ends = np.array([top, top + (top - magnitudes[-2]) / 2, 3e38, np.inf, 0, 1e-45, 1e-38, np.nan], np.float32)
    with np.errstate(over="ignore"):
        beside = [np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(np.inf))]
    positive = np.concatenate([middles, *beside, ends])
    return np.concatenate([positive, -positive]).astype(np.float32)


def print_array(element, name, items):
    print(f"inline constexpr {element} {name}[] = {{")
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > 100:
            print(line)
            line = "   "
        line += f" {item},"
    print(line + "\n};")


def hexes(values):
    return [f"0x{int(v):x}" for v in values]


def pairs(items):
    return [f"{{0x{a:x}, 0x{b:x}}}" for a, b in items]


def main():
    bfloat16 = (np.arange(65536, dtype=np.uint32) << 16).view(np.float32)
    print("// Written by te_kernels/testing/tools/make_float8_tables.py with ml_dtypes " + ml_dtypes.__version__)
    print("// (clipped before the cast). For float8_test alone.")
    print("// clang-format off")
    print("#pragma once\n\n#include <cstdint>\n\nnamespace te::float8_tables {\n")
    print("struct Pair {\n  uint32_t input;\n  uint8_t code;\n};\n")
    for name, dtype, nan_code in FORMATS:
        codes = 16 if name == "E2M1" else 256
        print(f"// {name}: each code's value in float32; runs of bfloat16 that share a code; float32 and codes.")
        print_array("uint32_t", f"k{name}Values", hexes(values_of(dtype, codes).view(np.uint32)))
        print_array("Pair", f"k{name}Runs", pairs(runs(encode(bfloat16, dtype, nan_code))))
        floats = ties(dtype, codes)
        print_array("Pair", f"k{name}Ties", pairs(zip(floats.view(np.uint32).tolist(), encode(floats, dtype, nan_code).tolist())))
    print("// E8M0 of bfloat16 that are not negative, and of float32 around each power of two.")
    print_array("uint32_t", "kE8M0Values", hexes(values_of(ml_dtypes.float8_e8m0fnu, 256).view(np.uint32)))
    print_array("Pair", "kE8M0Runs", pairs(runs(encode_e8m0(bfloat16[:32768]))))
    powers = values_of(ml_dtypes.float8_e8m0fnu, 255)
    floats = np.concatenate([powers, np.nextafter(powers, np.float32(0)), np.nextafter(powers, np.float32(np.inf))])
    print_array("Pair", "kE8M0Ties", pairs(zip(floats.view(np.uint32).tolist(), encode_e8m0(floats).tolist())))
    print("\n}  // namespace te::float8_tables")


if __name__ == "__main__":
    main()
