import pytest

from mtrl_imgrad.errors import ArgumentError, CheckpointError
from mtrl_imgrad.reporting.figures import new_figure, save_figure


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("PDF", b"%PDF"), ("svg", b"<?xml")])
def test_the_suffix_names_the_format(tmp_path, suffix, magic):
    path = save_figure(new_figure(1, 1), str(tmp_path / "new" / f"a.{suffix}"))
    assert path.read_bytes().startswith(magic)
    assert [file.name for file in path.parent.iterdir()] == [f"a.{suffix}"], "no temporary file is left"


@pytest.mark.parametrize("name", ["a", "a.jpg", "png"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(ArgumentError, match=r"path must end in .png, .pdf or .svg, got "):
        save_figure(new_figure(1, 1), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    figure = new_figure(1, 1)

    def fail(file, **options):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(CheckpointError, match=r"a\.png cannot be written: disk full"):
        save_figure(figure, path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_place_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match=r"file cannot be made .* take another folder"):
        save_figure(new_figure(1, 1), tmp_path / "file" / "a.png")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(CheckpointError, match=r"b\.png cannot be written"):
        save_figure(new_figure(1, 1), tmp_path / "b.png")


def test_a_notebook_shows_a_figure():
    assert new_figure(1, 1)._repr_png_().startswith(b"\x89PNG")
