#!/usr/bin/env python3
"""Writes safetensors_headers.json: many headers, and for each whether the reference library reads the file.

By hand, with safetensors installed:  python3 make_safetensors_headers.py
A file is a list of parts [text in hexadecimal, how often]; safetensors_reference_test.cc writes each and holds our reader
to the verdict. The header's length comes first, as in every file, unless a case gives whole bytes.
"""

import json
import os
import struct
import tempfile

import safetensors
from safetensors import safe_open

CASES = {}  # name: parts


def file(name, *parts):
    """Whole bytes: each part is bytes, or (bytes, times)."""
    assert name not in CASES, name
    CASES[name] = [(p, 1) if isinstance(p, bytes) else p for p in parts]


def header(name, text, data=0):
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    file(name, struct.pack("<Q", len(raw)), raw, (b"x", data))


def entry(dtype='"F32"', shape="[2]", offsets="[0,8]", extra=""):
    return '{"dtype":%s,"shape":%s,"data_offsets":%s%s}' % (dtype, shape, offsets, extra)


def one(name, data=8, **fields):
    header(name, '{"a":%s}' % entry(**fields), data)


def lengths():
    file("empty file")
    for n in (1, 7):
        file("%d bytes" % n, b"1234567"[:n])
    file("length alone", struct.pack("<Q", 0))
    file("length 0 and data", struct.pack("<Q", 0), b"x")
    file("length 1 beyond the end", struct.pack("<Q", 3), b"{}")
    file("length above the limit", struct.pack("<Q", 100_000_001), b"{}")
    file("length at the limit of a short file", struct.pack("<Q", 100_000_000), b"{}")
    file("length of all ones", b"\xff" * 8, b"{}")
    file("length of 2^63", struct.pack("<Q", 1 << 63), b"{}")
    file("header at the limit", struct.pack("<Q", 100_000_000), b"{}", (b" ", 99_999_998))
    file("header above the limit", struct.pack("<Q", 100_000_001), b"{}", (b" ", 99_999_999))
    file("length in big endian", struct.pack(">Q", 2), b"{}")


def space():
    whole = '{"a":%s}' % entry()
    header("plain", whole, 8)
    header("no tensors", "{}")
    header("no tensors, unaligned length", "{} ")
    header("space before", " " + whole, 8)
    header("line before", "\n" + whole, 8)
    header("byte order mark before", "\ufeff" + whole, 8)
    header("spaces after", whole + "   ", 8)
    header("line after", whole + "\n", 8)
    header("tab after", whole + "\t", 8)
    header("carriage return after", whole + "\r\n", 8)
    header("spaces and lines after", whole + " \n \t", 8)
    header("zero byte after", whole + "\0", 8)
    header("form feed after", whole + "\f", 8)
    header("letter after", whole + "x", 8)
    header("bracket after", whole + "}", 8)
    header("second object after", whole + "{}", 8)
    header("comma after", whole + ",", 8)
    header("white space within", '{ \n"a"\t:\r\n' + entry() + " }", 8)
    header("form feed within", '{\f"a":' + entry() + "}", 8)
    header("no-break space within", '{\u00a0"a":' + entry() + "}", 8)


def structure():
    header("array", "[]")
    header("null", "null")
    header("number", "5")
    header("string", '"a"')
    header("empty text", "")
    header("spaces alone", "        ")
    header("open", '{"a":')
    header("comma at the end", '{"a":%s,}' % entry(), 8)
    header("comma at the end of an entry", '{"a":%s}' % entry(extra=","), 8)
    header("comment", "{/**/}")
    header("single quotes", "{'a':%s}" % entry().replace('"', "'"), 8)
    header("key without quotes", "{a:%s}" % entry(), 8)
    header("entry is a number", '{"a":5}')
    header("entry is null", '{"a":null}')
    header("entry is an array", '{"a":["F32",[2],[0,8]]}', 8)
    header("entry is a longer array", '{"a":["F32",[2],[0,8],1]}', 8)
    header("entry is a string", '{"a":"F32"}')
    header("entry is empty", '{"a":{}}')
    header("deep unknown key", '{"a":%s}' % entry(extra=',"x":' + "[" * 100 + "]" * 100), 8)
    header("deeper unknown key", '{"a":%s}' % entry(extra=',"x":' + "[" * 200 + "]" * 200), 8)
    header("deep entry", '{"a":' + "[" * 1000 + "]" * 1000 + "}")
    one("unknown key", extra=',"x":1')
    one("unknown key of null", extra=',"x":null')
    one("unknown key with a bad number", extra=',"x":01')
    one("unknown key that is NaN", extra=',"x":NaN')
    one("unknown key with a large number", extra=',"x":1e999')
    one("unknown key twice", extra=',"x":1,"x":2')
    header("duplicate tensor, equal", '{"a":%s,"a":%s}' % (entry(), entry()), 8)
    header("duplicate tensor, adjoining", '{"a":%s,"a":%s}' % (entry(), entry(offsets="[8,16]")), 16)
    header("duplicate tensor, the last alone fits", '{"a":5,"a":%s}' % entry(), 8)
    header("duplicate tensor, the last of other shape", '{"a":%s,"a":%s}' % (entry(shape="[1]", offsets="[0,4]"), entry()), 8)
    header("duplicate among others", '{"a":%s,"b":%s,"a":%s}' % (entry(), entry(offsets="[8,16]"), entry()), 16)
    one("duplicate shape", extra=',"shape":[2]')
    one("duplicate dtype", extra=',"dtype":"F32"')
    one("duplicate data_offsets", extra=',"data_offsets":[0,8]')
    for levels in (123, 124, 125, 126, 127):
        header("unknown key of %d levels" % levels, '{"a":%s}' % entry(extra=',"x":' + "[" * levels + "]" * levels), 8)
    one("unknown key with minus zero", extra=',"x":[-0,-0.0,1E5,-1e-999]')
    one("unknown key with a long integer", extra=',"x":' + "9" * 300)
    one("unknown key with a longer integer", extra=',"x":' + "9" * 400)
    one("unknown key with a lone surrogate", extra=',"x":"\\ud800"')
    one("unknown key with a control character", extra=',"x":"\x01"')
    one("unknown key of an object", extra=',"x":{"y":{"y":1,"y":2},"":[{}]}')
    header("entries of both forms", '{"a":["F32",[2],[0,8]],"b":%s}' % entry(offsets="[8,16]"), 16)
    header("entry is a shorter array", '{"a":["F32",[2]]}', 8)
    header("entry is an array in another order", '{"a":[[2],"F32",[0,8]]}', 8)
    header("entry is an empty array", '{"a":[]}', 8)
    header("entry is an array with an unknown value", '{"a":["F32",[2],[0,8],{"x":1}]}', 8)
    header("no dtype", '{"a":{"shape":[2],"data_offsets":[0,8]}}', 8)
    header("no shape", '{"a":{"dtype":"F32","data_offsets":[0,8]}}', 8)
    header("no data_offsets", '{"a":{"dtype":"F32","shape":[2]}}', 8)
    header("other order of keys", '{"a":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"}}', 8)
    header("key in escapes", '{"a":{"\\u0064type":"F32","shape":[2],"data_offsets":[0,8]}}', 8)
    header("dtype in escapes", '{"a":{"dtype":"F\\u00332","shape":[2],"data_offsets":[0,8]}}', 8)
    header("key in capitals", '{"a":{"DTYPE":"F32","shape":[2],"data_offsets":[0,8]}}', 8)


def names():
    for label, name in (("empty", ""), ("Unicode", "t\u00e9nsor\u6f22\U0001f600"), ("space", "a b"), ("line", "a\\nb"),
                        ("zero", "a\\u0000b"), ("quote", 'a\\"b'), ("slash", "a\\/b"), ("escaped Unicode", "\\u00e9"),
                        ("surrogate pair", "\\ud83d\\ude00"), ("lone high surrogate", "\\ud83d"),
                        ("lone low surrogate", "\\udc00"), ("high surrogate and a letter", "\\ud83dx"),
                        ("bad escape", "\\x41"), ("short escape", "\\u12"), ("raw line", "a\nb"), ("raw tab", "a\tb"),
                        ("raw control", "a\x01b"), ("delete", "a\x7fb"), ("raw zero", "a\0b"), ("long", "n" * 5000)):
        header("name: " + label, '{"%s":%s}' % (name, entry()), 8)
    for label, raw in (("byte ff", b"\xff"), ("overlong", b"\xc0\xaf"), ("encoded surrogate", b"\xed\xa0\x80"),
                       ("above Unicode", b"\xf4\x90\x80\x80"), ("cut", b"\xe6\xbc"), ("Latin 1", b"\xe9")):
        header("name: " + label, b'{"' + raw + b'":' + entry().encode() + b"}", 8)
    header("names that differ in normal form", '{"\u00e9":%s,"e\u0301":%s}' % (entry(), entry(offsets="[8,16]")), 16)
    header("name: metadata in another place", '{"a":%s,"__metadata__x":%s}' % (entry(), entry(offsets="[8,16]")), 16)


def metadata():
    for label, text in (("empty", "{}"), ("null", "null"), ("array", "[]"), ("string", '"pt"'), ("number", "1"),
                        ("strings", '{"format":"pt","x":""}'), ("number within", '{"a":1}'), ("null within", '{"a":null}'),
                        ("object within", '{"a":{}}'), ("duplicate key", '{"a":"1","a":"2"}'), ("bool within", '{"a":true}'),
                        ("array within", '{"a":["b"]}'), ("Unicode", '{"\u00e9":"\u6f22"}'), ("like a tensor", entry())):
        header("metadata: " + label, '{"__metadata__":%s,"a":%s}' % (text, entry()), 8)
    header("metadata: alone", '{"__metadata__":{"format":"pt"}}')
    header("metadata: after the tensors", '{"a":%s,"__metadata__":{"format":"pt"}}' % entry(), 8)
    header("metadata: twice", '{"__metadata__":{"a":"1"},"__metadata__":{"b":"2"},"a":%s}' % entry(), 8)
    header("metadata: twice, the first wrong", '{"__metadata__":5,"__metadata__":{"b":"2"},"a":%s}' % entry(), 8)
    header("metadata: name in escapes", '{"\\u005f_metadata__":{"b":"2"},"a":%s}' % entry(), 8)


def dtypes():
    bits = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
            "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
            "F8_E4M3FN": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "F4_E2M1": 4, "C64": 64, "C128": 128, "C32": 32, "I4": 4,
            "U4": 4, "I128": 128, "F128": 128, "TF32": 32, "BF8": 8, "E8M0": 8, "F4_E2M1_X2": 8, "F8": 8, "B8": 8}
    for dtype, width in bits.items():
        one("dtype " + dtype, dtype='"%s"' % dtype, shape="[4]", offsets="[0,%d]" % (width // 2), data=width // 2)
    for count in (1, 2, 3):
        for dtype in ("F4", "F6_E2M3"):
            size = (count * bits[dtype] + 7) // 8
            one("%d of dtype %s" % (count, dtype), dtype='"%s"' % dtype, shape="[%d]" % count, offsets="[0,%d]" % size, data=size)
            size = count * bits[dtype] // 8
            one("%d of dtype %s, rounded down" % (count, dtype), dtype='"%s"' % dtype, shape="[%d]" % count,
                offsets="[0,%d]" % size, data=size)
    for label, text in (("small letters", '"f32"'), ("spaces", '" F32"'), ("unknown", '"F31"'), ("empty", '""'),
                        ("number", "1"), ("null", "null"), ("object", '{"F32":null}'), ("object of an object", '{"F32":{}}'),
                        ("object of a fuller object", '{"F32":{"x":1}}'), ("object of an array", '{"F32":[]}'),
                        ("object of a number", '{"F32":1}'), ("object of a string", '{"F32":"F32"}'),
                        ("object of two", '{"F32":null,"F16":null}'), ("empty object", "{}"),
                        ("object of an unknown one", '{"F31":null}'), ("true", "true"), ("array", '["F32"]'),
                        ("Python's", '"float32"'), ("torch's", '"torch.float32"')):
        one("dtype: " + label, dtype=text)


def shapes():
    def shape(text, size, dtype="F32"):
        one("shape %s of %s" % (text, dtype), dtype='"%s"' % dtype, shape=text, offsets="[0,%d]" % size, data=size)

    for text, size in (("[]", 4), ("[1]", 4), ("[0]", 0), ("[0,5]", 0), ("[5,0]", 0), ("[1,1,1,1,1,1,1,1,1,1,2]", 8),
                       ("[2,]", 8), ("[,2]", 8), ("[-2]", 8), ("[-0]", 0), ("[2.0]", 8), ("[2e0]", 8), ("[1.5]", 6),
                       ('["2"]', 8), ("[null]", 4), ("[true]", 4), ("[[2]]", 8), ("[02]", 8), ("[+2]", 8), ("[0x2]", 8),
                       ("2", 8), ("null", 8), ("{}", 4), ('"[2]"', 8), ("[18446744073709551615]", 8),
                       ("[18446744073709551616]", 8), ("[9223372036854775807,2]", 8), ("[9223372036854775808]", 0),
                       ("[4294967296,4294967296]", 0), ("[4294967296,4294967296,0]", 0), ("[0,4294967296,4294967296]", 0),
                       ("[0,9223372036854775807]", 0), ("[0,9223372036854775808]", 0), ("[0,18446744073709551615]", 0),
                       ("[0,18446744073709551616]", 0), ("[4611686018427387904]", 0), ("[2305843009213693952]", 0),
                       ("[576460752303423488]", 0), ("[288230376151711744,0]", 0), ("[1e400]", 0), ("[NaN]", 0)):
        shape(text, size)
    shape("[2305843009213693952]", 0, "U8")
    shape("[4611686018427387904,0]", 0, "F4")
    shape("[" + "1," * 2000 + "2]", 8)


def offsets():
    def at(text, data=8, **more):
        one("offsets %s with %d bytes%s" % (text, data, " and shape " + more["shape"] if more else ""), offsets=text, data=data,
            **more)

    for text in ("[0]", "[]", "[0,8,8]", "[8,0]", "[-8,0]", "[0,-8]", "[-0,8]", "[0.0,8]", "[0,8.0]", "[0,8e0]", '["0","8"]',
                 "[null,8]", "[0,null]", "[0,true]", "[0,18446744073709551608]", "[18446744073709551608,0]",
                 "[0,18446744073709551616]", "[9223372036854775808,9223372036854775816]", "0", "null", "{}", '"[0,8]"',
                 '{"0":0,"1":8}', "[[0,8]]", "[00,8]"):
        at(text)
    at("[0,4]", 4)
    at("[0,16]", 16)
    at("[0,7]", 7)
    at("[0,9]", 9)
    at("[4,12]", 12)
    at("[1,9]", 9)
    for data in (0, 7, 9, 16):
        at("[0,8]", data)
    at("[0,0]", 0, shape="[0]")
    at("[0,0]", 8, shape="[0]")
    at("[5,5]", 0, shape="[0]")
    header("data and no tensors", "{}", 1)
    two = '{"a":%s,"b":%s}'
    for label, a, b, data in (("in order", "[0,8]", "[8,16]", 16), ("in the other order", "[8,16]", "[0,8]", 16),
                              ("the same", "[0,8]", "[0,8]", 8), ("overlap", "[0,8]", "[4,12]", 12),
                              ("hole", "[0,8]", "[12,20]", 20), ("hole before both", "[4,12]", "[12,20]", 20),
                              ("data after both", "[0,8]", "[8,16]", 17), ("the second beyond", "[0,8]", "[8,16]", 12)):
        header("two: " + label, two % (entry(offsets=a), entry(offsets=b)), data)
    for label, at_b, data in (("before", "[0,0]", 8), ("after", "[8,8]", 8), ("within", "[4,4]", 8), ("beyond", "[9,9]", 8)):
        header("two: an empty one " + label, two % (entry(), entry(shape="[0]", offsets=at_b)), data)
    header("two: empty ones at one place", two % (entry(shape="[0]", offsets="[0,0]"), entry(shape="[0]", offsets="[0,0]")), 0)
    header("two: unaligned", two % (entry('"U8"', "[1]", "[0,1]"), entry(offsets="[1,9]")), 9)
    header("two: names against the order of data", '{"b":%s,"a":%s}' % (entry(), entry(offsets="[8,16]")), 16)
    header("three: the middle one empty", '{"a":%s,"b":%s,"c":%s}' % (
        entry(), entry(shape="[0]", offsets="[8,8]"), entry(offsets="[8,16]")), 16)


def others():
    file("a git-lfs pointer", b"version https://git-lfs.github.com/spec/v1\n")
    file("an HTML page", b"<!DOCTYPE html><html></html>")
    file("a zip archive", b"PK\x03\x04" + bytes(30))
    file("a GGUF file", b"GGUF\x03\0\0\0" + bytes(30))
    file("a gzip file", b"\x1f\x8b\x08\0" + bytes(30))
    file("zeros", (b"\0", 64))
    file("JSON alone", b'{"a":1}          ')


def ask(path):
    try:
        with safe_open(path, framework="np") as f:
            list(f.keys())
        return True, ""
    except Exception as error:
        return False, " ".join(str(error).split())[:120]


def main():
    for group in (lengths, space, structure, names, metadata, dtypes, shapes, offsets, others):
        group()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.safetensors")
        for name, parts in CASES.items():
            with open(path, "wb") as f:
                for part, times in parts:
                    f.write(part * times)
            accepted, error = ask(path)
            row = {"name": name, "accepted": accepted,
                   "parts": [[part.hex(), times] for part, times in parts if part and times]}
            if error:
                row["error"] = error
            rows.append(json.dumps(row))
            os.unlink(path)
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "safetensors_headers.json")
    with open(out, "w", encoding="ascii") as f:
        f.write('{\n "safetensors": "%s",\n "files": [\n  ' % safetensors.__version__)
        f.write(",\n  ".join(rows) + "\n ]\n}\n")
    print("%d files, %d accepted" % (len(rows), sum('"accepted": true' in row for row in rows)))


if __name__ == "__main__":
    main()
