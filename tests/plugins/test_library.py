"""Finding the plugin library, and refusing one that others could change."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.errors import BackendError
from edgeseg.files import sha256_file
from edgeseg.plugins import FILE, plugin_library
from edgeseg.plugins.library import check_trusted, open_library


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library file where ``plugins build`` puts it."""
    monkeypatch.setenv("EDGESEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EDGESEG_PLUGINS", raising=False)
    return make(tmp_path / "home" / "plugins")


def make(directory: Path, mode: int = 0o755) -> Path:
    directory.mkdir(parents=True)
    path = directory / FILE
    path.write_bytes(b"not really")
    path.chmod(mode)
    return path


def test_the_library_that_was_built_here(library: Path) -> None:
    found = plugin_library()
    assert found.path == library.resolve()
    assert found.sha256 == sha256_file(library)
    library.write_bytes(b"another")
    assert plugin_library().sha256 != found.sha256


@pytest.mark.parametrize("directory", [True, False])
def test_the_environment_names_another(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: bool) -> None:
    other = make(tmp_path / "other")
    monkeypatch.setenv("EDGESEG_PLUGINS", str(other.parent if directory else other))
    assert plugin_library().path == other.resolve()


def test_none_at_all(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.unlink()
    with pytest.raises(BackendError, match=r"no TensorRT plugin library there; .*; fix: edgeseg plugins build"):
        plugin_library()
    monkeypatch.setenv("EDGESEG_PLUGINS", "/nowhere/lib.so")
    with pytest.raises(BackendError, match=r"^/nowhere/lib\.so: no TensorRT plugin library"):
        plugin_library()


def test_a_file_that_all_may_write_is_refused(library: Path) -> None:
    library.chmod(0o757)
    with pytest.raises(BackendError, match=r"not loaded, every user may write .*; fix: chmod o-w"):
        plugin_library()


@pytest.mark.parametrize("mode", [0o757, 0o1777])
def test_a_directory_that_all_may_write_is_refused(library: Path, mode: int) -> None:
    library.parent.chmod(mode)
    with pytest.raises(BackendError, match=f"every user may write {library.parent}"):
        plugin_library()


def test_a_directory_further_up(library: Path) -> None:
    above = library.parent.parent
    above.chmod(0o1777)  # as /tmp: nobody can replace the directory below
    assert plugin_library().path == library.resolve()
    above.chmod(0o757)
    with pytest.raises(BackendError, match=f"every user may write {above}"):
        plugin_library()


def test_links_are_followed(library: Path, tmp_path: Path) -> None:
    # link/first -> middle/second -> open/lib.so, and each of the three directories counts
    target = make(tmp_path / "open")
    for name in ("middle", "link"):
        (tmp_path / name).mkdir()
        (tmp_path / name / FILE).symlink_to(target)
        target = tmp_path / name / FILE
    check_trusted(target)
    assert open_library(target).path == (tmp_path / "open" / FILE).resolve()
    for name in ("open", "middle", "link"):
        (tmp_path / name).chmod(0o757)
        with pytest.raises(BackendError, match=f"every user may write {tmp_path / name}"):
            check_trusted(target)
        (tmp_path / name).chmod(0o755)


def test_a_directory_that_is_a_link(library: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(library.parent, target_is_directory=True)
    check_trusted(tmp_path / "alias" / FILE)
    library.parent.parent.chmod(0o757)  # above the target, not above the link
    with pytest.raises(BackendError, match="every user may write"):
        check_trusted(tmp_path / "alias" / FILE)
