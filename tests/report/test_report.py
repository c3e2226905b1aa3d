"""The HTML report: everything escaped, nothing loaded from elsewhere, pictures of the right shape."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np

from edgeseg.data.camvid import CLASSES
from edgeseg.data.streets import write_clip
from edgeseg.report.page import Page, Table
from edgeseg.report.pictures import comparison, data_uri, strip


def test_page_is_one_file_and_escapes_what_it_is_given(tmp_path: Path) -> None:
    page = Page("<script>alert(1)</script>", "a & b")
    page.heading("h<1>", "n<2>")
    page.table(Table(("x<y",), [("<b>",), ("best",)], best=1))
    page.class_scores(CLASSES[:2], {"fp32": {"sky": 0.5, "building": None}, "int8": {"sky": 0.25, "building": None}})
    page.commands(["a < b"])
    page.write(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text
    assert "<b>" not in text
    assert "src=" not in text
    assert "http" not in text
    assert text.count("class=best") == 1
    assert "<td>50.0</td>" in text
    assert "<td>-</td>" in text
    assert "width:3.00rem" in text  # the bar is the last column, 12 rem being 1.0


def test_comparison_marks_exactly_the_wrong_counted_pixels() -> None:
    image = np.full((20, 30, 3), 90, np.uint8)
    truth = np.zeros((20, 30), np.uint8)
    truth[:, :10] = 255
    guess = truth.copy()
    guess[5:8, 12:15] = 3
    guess[0, 0] = 2  # wrong, but where there is no truth
    row = comparison(image, truth, [("float", truth), ("int8", guess)], CLASSES)
    assert row.shape == (20 + 24, 5 * 30, 3)
    wrong = row[24:, 4 * 30 :]
    assert np.array_equal(np.argwhere((wrong == (40, 40, 230)).all(axis=2)), np.argwhere(guess == 3))


def test_strip_takes_frames_over_the_whole_clip(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", 0.5, 160, 120)
    found = strip(tmp_path / "clip.mp4", count=3, width=80)
    assert found is not None
    assert found.shape == (60, 240, 3)
    assert strip(tmp_path / "absent.mp4") is None


def test_data_uri_holds_the_picture() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    found = re.fullmatch(r"data:image/jpeg;base64,(.+)", data_uri(picture))
    assert found
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(found[1]), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == picture.shape
