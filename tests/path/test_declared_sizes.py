"""What a file declares is checked before it is unpacked or built, and what real libraries write passes."""

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from poise.path import declared_sizes
from poise.path.declared_sizes import check_archive, check_arrays, check_cells, format_bytes
from poise.study.errors import DataError
from poise.study.sources import load


def _archive(file, compression: Any = zipfile.ZIP_DEFLATED, **members) -> Any:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return file


def _header(shape, dtype="<f8") -> Any:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": dtype, "fortran_order": False, "shape": shape})
    return content.getvalue()


# ---------------------------------------------------------------- archives and arrays


def test_an_archive_that_unpacks_to_far_more_than_it_holds_is_refused(tmp_path, monkeypatch) -> None:
    zeros = bytes(1 << 20)
    packed, stored = tmp_path / "packed.zip", tmp_path / "stored.zip"
    _archive(packed, x=zeros)
    _archive(stored, zipfile.ZIP_STORED, x=zeros)
    assert check_archive(packed) == check_archive(stored) == 1 << 20

    monkeypatch.setattr(declared_sizes, "FLOOR", 1 << 19)
    assert check_archive(stored) == 1 << 20
    with pytest.raises(ValueError, match=r"^it holds 1\.\d+ kB and unpacks to 1\.05 MB, which is not safe to read$"):
        check_archive(packed)


def test_json_within_an_archive_has_its_own_limit(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(declared_sizes, "LARGEST_JSON", 10)
    with pytest.raises(ValueError, match=r"^'config\.json' in it unpacks to 11 bytes$"):
        check_archive(_archive(tmp_path / "a.zip", config__json=" " * 11))


def test_what_does_not_fit_the_memory_is_refused(tmp_path, monkeypatch) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(1000))
    check_arrays(tmp_path / "a.npz")
    monkeypatch.setattr(declared_sizes, "memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"^it unpacks to 8\.\d+ kB, and this machine has 1 kB of memory$"):
        check_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((10**9, 5), "<f8"), ((-1, 5), "<f8"), ((10**30,), "|u1"), ((10**9,), "<U0"), ((0, 10**10), "<f8"), ((3,), "<f8")],
)
def test_an_array_that_declares_more_than_the_file_holds_is_refused(shape, dtype, tmp_path) -> None:
    content = _header(shape, dtype) + bytes(16)
    (tmp_path / "a.npy").write_bytes(content)

    with pytest.raises(ValueError, match=r"^it declares an array of shape \("):
        check_arrays(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"^'x\.npy' declares an array of shape \("):
        check_arrays(_archive(tmp_path / "a.npz", x__npy=content))


@pytest.mark.parametrize("dtype", ["float32", "int8", "U3", "bool", "datetime64[s]"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3)])
def test_arrays_as_numpy_writes_them_pass(dtype, shape, tmp_path) -> None:
    array = np.zeros(shape, dtype)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", x=array)
    np.savez_compressed(tmp_path / "b.npz", x=array)

    for name in ("a.npy", "a.npz", "b.npz"):
        check_arrays(tmp_path / name)
        with open(tmp_path / name, "rb") as content:
            check_arrays(content)
            np.load(content)


# ---------------------------------------------------------------- tables


def test_a_sheet_that_spans_far_more_cells_than_it_holds_is_refused(tmp_path) -> None:
    rows = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576" s="1"><v>1</v></c></row>'
    book = _archive(tmp_path / "a.xlsx", **{"xl/worksheets/sheet1__xml": f"<sheetData>{rows}</sheetData>"})

    with pytest.raises(ValueError, match=r"^a sheet spans 1,048,576 rows of 16,384 columns, and holds 2 cells$"):
        check_cells(book)
    with pytest.raises(DataError, match=r"^'a\.xlsx' cannot be read as Excel: a sheet spans 1,048,576 rows"):
        load(book)


def test_parquet_that_does_not_fit_the_memory_is_refused(tmp_path, monkeypatch) -> None:
    import pandas as pd

    pd.DataFrame({"a": np.zeros(1000), "b": 1}).to_parquet(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet")[2].shape == (1000, 2)

    monkeypatch.setattr(declared_sizes, "memory", lambda: 1000)
    with pytest.raises(DataError, match=r"^'a\.parquet' cannot be read as Parquet: it unpacks to 16 kB, and this"):
        load(tmp_path / "a.parquet")


@pytest.mark.parametrize(("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (7.2e9, "7.2 GB"), (1e18, "1e+06 TB")])
def test_sizes_are_readable(size, text) -> None:
    assert format_bytes(size) == text
