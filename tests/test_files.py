"""Files are replaced completely or not at all, and locks keep other processes out."""

import contextlib
import errno
from typing import Any

import pytest

from poise.files import (
    CannotWriteError,
    OutputExistsError,
    check_writable,
    checksum,
    clear_leftovers,
    replace_file,
    replace_folder,
    take_lock,
    write_bytes,
)


def _names(folder) -> Any:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_at_the_end(tmp_path) -> None:
    target = tmp_path / "new" / "file.txt"

    for text in ("first", "second"):
        with replace_file(target) as new:
            new.write_text(text)
            assert not target.exists() or target.read_text() == "first"

    assert target.read_text() == "second"
    assert _names(target.parent) == ["file.txt"]


def test_after_an_exception_a_file_and_a_folder_are_unchanged(tmp_path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_text("old")

    with contextlib.suppress(KeyError), replace_file(tmp_path / "file") as new:
        new.write_text("half")
        raise KeyError
    with contextlib.suppress(KeyError), replace_folder(tmp_path / "folder") as new:
        (new / "inside").write_text("half")
        raise KeyError

    assert _names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "inside").read_text() == "old"


def test_a_folder_is_replaced_with_all_it_held(tmp_path) -> None:
    target = tmp_path / "folder"
    for name in ("old", "new"):
        with replace_folder(target) as new:
            write_bytes(new / name, b"content")

    assert _names(tmp_path) == ["folder"]
    assert _names(target) == ["new"]
    assert checksum(target / "new") == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"


def test_leftovers_of_a_killed_writer_are_cleared_and_what_it_moved_comes_back(tmp_path) -> None:
    target = tmp_path / "folder"
    beside = tmp_path / ".folder.saving-killed"
    (beside / "old").mkdir(parents=True)
    (beside / "lock").write_text("folder")
    (tmp_path / ".folder.saving-foreign").mkdir()

    clear_leftovers(target)

    assert _names(tmp_path) == [".folder.saving-foreign", "folder"]


def test_leftovers_of_a_running_writer_stay(tmp_path) -> None:
    with replace_folder(tmp_path / "folder"):
        clear_leftovers(tmp_path / "folder")
        assert len(_names(tmp_path)) == 1


def test_a_lock_is_held_once_and_released(tmp_path) -> None:
    file = tmp_path / "lock"

    assert take_lock(file, create=False) is None
    lock = take_lock(file)
    assert lock is not None
    assert take_lock(file) is None
    lock.release()
    assert take_lock(file) is not None


def test_a_path_that_cannot_be_written_is_named_with_the_reason(tmp_path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CannotWriteError, match="cannot be written: Not a directory. Choose another path.") as caught:
        check_writable(tmp_path / "file" / "inside")
    assert caught.value.path == tmp_path / "file" / "inside"
    with pytest.raises(CannotWriteError, match="Free some disk space"), replace_file(tmp_path / "full"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert _names(tmp_path) == ["file"]


def test_an_output_that_exists_is_named() -> None:
    assert str(OutputExistsError("runs/a")) == "'runs/a' already exists. Pass overwrite=True to replace it."
