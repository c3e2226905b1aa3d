"""model.json is strict: every mistake is an error that names its JSON path."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from edgeseg.errors import ManifestError
from edgeseg.manifest import Manifest, load_manifest, parse_manifest
from tests.manifests import document

Place = tuple[Any, ...]
FREE = {("architecture", "options")}  # keyword arguments of any kind
OPTIONAL = {("architecture",), ("parity",), ("provenance", "seed"), ("crf",), ("tile",), ("keypoints",)}  # may be null
MEASURED = ("measurements", 0, "values")  # numbers under any name


def whole() -> dict[str, Any]:
    """A manifest with every optional part filled in, as JSON."""
    geometry = {"name": "geometry", "classes": [{"name": "flat", "colour": [1, 2, 3], "thing": False}]}
    return document(
        spaces=[geometry],
        keypoints={"names": ["left", "right"], "flip": [1, 0], "sigmas": [0.1, 0.1]},
        crf={"w1": 4.0, "sigma_alpha": 67.0, "sigma_beta": 3.0, "w2": 3.0, "sigma_gamma": 1.0, "iterations": 10},
        tile={"overlap": 32, "border": "mirror"},
    )


def places(value: Any, here: Place = ()) -> list[Place]:
    """Every path into a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [here, *(place for key, item in inner for place in places(item, (*here, key)))]


def at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def json_path(place: Place) -> str:
    return "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)


def refused(changed: Any) -> str:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(json.dumps(changed))
    return str(caught.value)


PLACES = [place for place in places(whole()) if place and not any(place[: len(free)] == free for free in FREE)]
OBJECTS = [place for place in places(whole()) if isinstance(at(whole(), place), dict)]


def test_round_trip() -> None:
    first = parse_manifest(json.dumps(whole()))
    assert first.to_json() == whole()
    assert parse_manifest(json.dumps(first.to_json())) == first


@given(
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5),
    st.integers(1, 16384),
    st.floats(1e-6, 10),
    st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
)
def test_round_trip_of_any_valid_values(names: list[str], width: int, scale: float, mean: list[float]) -> None:
    changed = document(classes=[{"name": name, "colour": [1, 2, 3], "thing": False} for name in names])
    changed["input"].update(width=width, scale=scale, mean=mean)
    assert parse_manifest(json.dumps(changed)).to_json() == changed


@given(st.sampled_from(OBJECTS), st.text(min_size=1, max_size=12))
def test_an_unknown_key_is_refused_with_its_path(place: Place, key: str) -> None:
    changed = whole()
    target = at(changed, place)
    if place in FREE or key in target:
        return
    target[key] = "surprise"
    message = refused(changed)
    # A file or measured value may have any valid name: there the value is what is wrong, at the same path.
    assert f"{json_path(place)}.{key}".split("\n")[0].rstrip()[:20] in message or json_path((*place, key)) in message


@given(st.sampled_from(PLACES), st.sampled_from([None, True, "text", 3.5, -7, [], {}, [1, "a"], {"x": 1}]))
@settings(max_examples=300)
def test_a_value_of_another_type_is_refused_with_its_path(place: Place, wrong: Any) -> None:
    original, changed = whole(), whole()
    old = at(original, place)
    optional = place in OPTIONAL and wrong is None
    number = isinstance(old, float) and isinstance(wrong, int | float) and not isinstance(wrong, bool)
    integer = isinstance(old, int) and not isinstance(old, bool) and isinstance(wrong, int) and not isinstance(wrong, bool)
    text = isinstance(old, str) and isinstance(wrong, str)
    boolean = isinstance(old, bool) and isinstance(wrong, bool)
    empty = type(old) is type(wrong) and not wrong and isinstance(wrong, dict | list)
    named = place == MEASURED and wrong == {"x": 1}
    if optional or number or integer or text or boolean or empty or named:
        return  # the type is right: test_values_out_of_range
    at(changed, place[:-1])[place[-1]] = wrong
    assert json_path(place) in refused(changed)


@given(st.sampled_from([("input", "width"), ("input", "mean"), ("name",), ("classes",), ("format",), ("version",), ("input",)]))
def test_a_missing_key_is_refused_with_its_path(place: Place) -> None:
    changed = whole()
    del at(changed, place[:-1])[place[-1]]
    assert json_path(place) in refused(changed)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("version",), 2),
        (("version",), 1.0),
        (("format",), "other"),
        (("name",), "../x"),
        (("name",), ""),
        (("name",), "a\n"),
        (("classes",), []),
        (("classes", 0, "name"), ""),
        (("classes", 0, "colour"), [0, 0]),
        (("classes", 0, "colour", 0), 256),
        (("ignore_label",), 300),
        (("input", "width"), 0),
        (("input", "width"), 20000),
        (("input", "batch"), 0),
        (("input", "channels"), 2),
        (("input", "scale"), 0.0),
        (("input", "std", 1), 0.0),
        (("input", "resize"), "crop"),
        (("output", "kind"), "magic"),
        (("output", "threshold"), 1.5),
        (("files", "model.onnx", "sha256"), "A" * 64),
        (("files", "model.onnx", "bytes"), -1),
        (("parity", "argmax_agreement"), 1.01),
        (("task",), "depth"),
    ],
)
def test_values_out_of_range_are_refused_with_their_path(place: Place, wrong: Any) -> None:
    changed = whole()
    at(changed, place[:-1])[place[-1]] = wrong
    assert json_path(place) in refused(changed)


@pytest.mark.parametrize("changes", [{"mean": [0.5]}, {"std": [1.0] * 4}, {"colour_order": "grey"}, {"channels": 1}])
def test_channels_mean_and_order_must_agree(changes: dict) -> None:
    changed = whole()
    changed["input"].update(changes)
    assert "$.input" in refused(changed)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\0b"])
def test_file_names_stay_in_the_folder(name: str) -> None:
    assert "$.files" in refused(document(files={name: {"sha256": "0" * 64, "bytes": 1}}))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"format": "edgeseg-model", "format": "edgeseg-model"}'],
)
def test_what_is_no_manifest_is_told(text: bytes) -> None:
    with pytest.raises(ManifestError, match=r"m\.json"):
        parse_manifest(text, "m.json")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "place", [("input", "scale"), ("measurements", 0, "values", "mean_iou"), ("architecture", "options", "width")]
)
def test_numbers_are_finite(place: Place, number: str) -> None:
    changed = copy.deepcopy(whole())
    at(changed, place[:-1])[place[-1]] = "HERE"
    with pytest.raises(ManifestError):
        parse_manifest(json.dumps(changed).replace('"HERE"', number))


def test_load_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"model\.json"):
        load_manifest(tmp_path / "model.json")
    parse_manifest(json.dumps(whole())).save(tmp_path / "model.json")
    assert load_manifest(tmp_path / "model.json").name == "small"


def models(kind: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """``kind`` and every model in its fields, by name."""
    found = {kind.__name__: kind}
    for field in kind.model_fields.values():
        stack = [field.annotation]
        while stack:
            item = stack.pop()
            if isinstance(item, type) and issubclass(item, BaseModel):
                found.update(models(item))
            stack.extend(getattr(item, "__args__", ()))
    return found


def test_the_document_lists_every_key() -> None:
    text = (Path(__file__).parent.parent / "docs" / "manifest.md").read_text(encoding="utf-8")
    sections = {part.split("`", 1)[0]: part for part in text.split("\n## `")[1:]}
    for name, kind in models(Manifest).items():
        listed = {line.split("`")[1] for line in sections[name].splitlines() if line.startswith("| `")}
        assert listed == set(kind.model_fields), name
