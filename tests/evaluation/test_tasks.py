"""Tasks and splits: what is kept apart, and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from transformers.image_utils import load_image

from vtw_search.engine import check_images
from vtw_search.errors import TaskError, UnknownNameError
from vtw_search.evaluation.splits import SPLITS, make_splits
from vtw_search.evaluation.tasks import FileImage, Sample, digits, easy_vqa, load_pools
from vtw_search.evaluation.tasks.jsonl import read_jsonl
from vtw_search.evaluation.tasks.slices import derived_slices

SIZES = {"calibration": 40, "selection": 40, "confirmation": 40, "holdout": 40}


def sample(number: int, cluster: str) -> Sample:
    return Sample(str(number), (), "q", ("a",), "exact_match", cluster)


@settings(max_examples=50)
@given(extra=st.lists(st.integers(0, 60), max_size=99), seed=st.integers(0, 5), fixed=st.booleans())
def test_splits_share_no_image(extra: list[int], seed: int, fixed: bool) -> None:
    samples = [sample(number, str(cluster)) for number, cluster in enumerate([*range(61), *extra])]
    pools = {"search": samples, "holdout": [sample(-1, "held")]} if fixed else {"all": samples}
    splits = make_splits(pools, seed, {**SIZES, "holdout": 1})
    found = [{each.cluster for each in splits[split]} for split in SPLITS]
    assert sum(map(len, found)) == len(set.union(*found))


def test_the_holdout_does_not_depend_on_the_seed() -> None:
    samples = [sample(number, str(number)) for number in range(300)]
    everything = dict.fromkeys(SPLITS, 1000)
    held = [{each.id for each in make_splits({"all": samples}, seed, everything)["holdout"]} for seed in range(4)]
    assert all(other == held[0] for other in held)
    chosen = [{each.id for each in make_splits({"all": samples}, seed, everything)["selection"]} for seed in range(4)]
    assert chosen[0] != chosen[1]


def test_every_image_is_asked_once_before_any_is_asked_twice() -> None:
    samples = [sample(number, str(number % 150)) for number in range(900)]
    splits = make_splits({"all": samples}, 0, SIZES)
    for split in ("calibration", "selection"):
        count = len(splits[split])
        distinct = len({each.cluster for each in splits[split]})
        assert distinct == min(
            count, len({each.cluster for each in make_splits({"all": samples}, 0, dict.fromkeys(SPLITS, 999))[split]})
        )


def test_an_image_with_many_questions_is_drawn_no_more_often() -> None:
    """Two of three images have one question and the others ten: so it is among the images that are used."""
    few = [sample(number, f"one-{number}") for number in range(3000)]
    many = [sample(3000 + number, f"ten-{number // 10}") for number in range(15_000)]
    splits = make_splits({"all": [*few, *many]}, 0, {**SIZES, "confirmation": 300})
    found = [each.cluster.startswith("one-") for each in splits["confirmation"]]
    # Within four standard deviations.
    assert abs(sum(found) - 200) < 4 * (300 * 2 / 9) ** 0.5


def test_the_question_that_is_asked_first_does_not_depend_on_where_its_image_stands() -> None:
    samples = [sample(number, f"image-{number // 4}") for number in range(40_000)]
    splits = make_splits({"all": samples}, 0, {**SIZES, "confirmation": 300})
    listed = [int(each.id) % 4 for each in splits["confirmation"]]
    assert all(abs(listed.count(place) - 75) < 4 * (300 * 3 / 16) ** 0.5 for place in range(4))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(TaskError, match="no image is left"):
        make_splits({"all": [sample(1, "only")]}, 0, SIZES)


def test_digests_see_every_change() -> None:
    base = sample(1, "a")
    others = [
        Sample("2", (), "q", ("a",), "exact_match", "a"), Sample("1", (), "p", ("a",), "exact_match", "a"),
              Sample("1", (), "q", ("b",), "exact_match", "a"), Sample("1", (), "q", ("a",), "anls", "a"),
              Sample("1", (), "q", ("a",), "exact_match", "b"),
              Sample("1", (), "q", ("a",), "exact_match", "a", {"k": "v"}),
              Sample("1", (), "q", ("a",), "exact_match", "a", accept_empty=True),
    ]  # fmt: skip
    assert len({each.digest() for each in [base, *others]}) == len(others) + 1


@pytest.mark.parametrize("kind", ["color", "shape", "yesno"])
def test_easy_vqa_keeps_training_images_out(kind: str) -> None:
    pools = load_pools("easy_vqa", {"kind": kind})
    assert all(int(each.cluster.split("-")[1]) >= easy_vqa.FIRST_SEARCH_IMAGE for each in pools["search"])
    assert all(each.cluster.startswith("test-") for each in pools["holdout"])
    assert len({each.cluster for each in pools["search"]}) > 900


def test_at_least_1200_train_images_are_kept_out_of_training() -> None:
    assert sum(image >= easy_vqa.FIRST_SEARCH_IMAGE for image in easy_vqa.image_paths("train")) >= 1200


def test_glyph_pools_are_disjoint_and_complete() -> None:
    pools = digits.glyph_pools()
    together = np.concatenate(list(pools.values()))
    assert sorted(together.tolist()) == list(range(1797))


@pytest.mark.parametrize("pool", list(digits.POOL_GLYPHS))
def test_digits_show_the_answer_with_glyphs_of_their_own_pool(pool: str) -> None:
    samples = list(digits.load_pool(pool))
    allowed = set(digits.glyph_pools()[pool].tolist())
    for each in samples[:50]:
        image = each.images[0]
        assert isinstance(image, digits.NumberImage)
        assert {place.glyph for place in image.placements} <= allowed
        assert digits.number_of(image) == each.answers[0]
        assert image.open().size == image.size() == (64, 64)
    assert [each.digest() for each in digits.load_pool(pool)] == [each.digest() for each in samples]


def _jsonl(folder: Path, *lines: Any) -> Path:
    path = folder / "task.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


GOOD = {"id": "1", "images": ["a.png"], "prompt": "what?", "answers": ["x"]}


def test_jsonl_is_read_with_defaults(tmp_path: Path) -> None:
    _images(tmp_path, "a.png", "b.png")
    full = {**GOOD, "id": "2", "images": ["b.png"], "metric": "anls", "cluster": "c", "slices": {"kind": "photo"}}
    first, second = read_jsonl(_jsonl(tmp_path, GOOD, "", full))
    assert (first.metric, first.cluster) == ("exact_match", FileImage(tmp_path / "a.png").digest())
    assert (second.metric, second.slices) == ("anls", {"kind": "photo"})
    assert second.cluster == FileImage(tmp_path / "b.png").digest()


def test_samples_that_share_an_image_or_a_cluster_are_one_cluster(tmp_path: Path) -> None:
    _images(tmp_path, "a.png", "b.png", "c.png", "d.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "copy of a.png")
    rows = [
        {**GOOD, "id": "0", "images": ["a.png", "b.png"]},
        {**GOOD, "id": "1", "images": ["c.png"], "cluster": "x"},
        {**GOOD, "id": "2", "images": ["./copy of a.png"]},
        {**GOOD, "id": "3", "images": ["d.png"]},
        {**GOOD, "id": "4", "images": ["b.png"], "cluster": "x"},
    ]
    a, b, c, d = (FileImage(tmp_path / f"{name}.png").digest() for name in "abcd")
    assert [each.cluster for each in read_jsonl(_jsonl(tmp_path, *rows))] == [*[min(a, b, c)] * 3, d, min(a, b, c)]


def test_samples_without_images_are_clusters_of_their_own_unless_they_say_otherwise(tmp_path: Path) -> None:
    rows = [{**GOOD, "id": str(number), "images": []} for number in range(4)]
    rows[2]["cluster"] = rows[3]["cluster"] = "pair"
    first, second, *pair = (each.cluster for each in read_jsonl(_jsonl(tmp_path, *rows)))
    assert len({first, second, *pair}) == 3
    assert pair[0] == pair[1]


def test_the_order_of_a_file_changes_no_split() -> None:
    samples = [sample(number, f"image-{number // 3}") for number in range(600)]
    one, two = (make_splits({"all": listed}, 0, SIZES) for listed in (samples, samples[::-1]))
    assert all(one[split] == two[split] for split in SPLITS)


def test_tasks_over_the_same_images_are_divided_alike(tmp_path: Path) -> None:
    """What one is searched on is not what another one, or the policy that both share, is tested on."""
    names = [f"{number}.png" for number in range(120)]
    _images(tmp_path, *names)
    rows = [{**GOOD, "id": str(number), "images": [name]} for number, name in enumerate(names)]
    other = [{**row, "id": f"other-{row['id']}", "prompt": "how?"} for row in reversed(rows)]
    one, two = (
        make_splits({"all": read_jsonl(_jsonl(tmp_path, *lines))}, 0, dict.fromkeys(SPLITS, 999))
        for lines in (rows, other)
    )
    for split in SPLITS:
        assert {each.cluster for each in one[split]} == {each.cluster for each in two[split]}


def _images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / name)


@pytest.mark.parametrize(
    "line,message",
    [
        ('{"id": "1"', "line 2: must be one JSON object"),
        ({**GOOD, "id": "1"}, "line 2, field id.*give every line an id of its own"),
        ({**GOOD, "id": "2", "answers": []}, "line 2, field answers"),
        ({**GOOD, "id": "2", "answers": ["", " "]}, "line 2, field answers: .*must not be blank.*accept_empty"),
        ({**GOOD, "id": "2", "prompt": ""}, r'line 2, field prompt.*"what is this\?"'),
        ({**GOOD, "id": "2", "images": "a.png"}, r"line 2, field images.*got 'a.png'.*write a list: \[\"a.png\"\]"),
        ({**GOOD, "id": "2", "metric": "exact"}, "line 2, field metric.*exact_match"),
        ({**GOOD, "id": "2", "anwsers": ["x"]}, "line 2, field anwsers: is not known.*did you mean 'answers'"),
        (
            {"id": "2", "images": ["a.png"], "prompt": "q"},
            r'field answers: must be there.*add it, such as .*"answers":',
        ),
        ({**GOOD, "id": "2", "answers": [2]}, r'line 2, field answers\.0: .*got 2; write it as text: "2"$'),
        ({**GOOD, "id": "2", "answers": [True]}, r'got True; write it as text: "true"$'),
        ({**GOOD, "id": 2.5}, r'field id: .*got 2\.5; write it as text: "2\.5"$'),
        ({**GOOD, "id": "2", "prompt": None}, r'field prompt: .*write it as in {"prompt"'),
        ({**GOOD, "id": "2", "slices": {"kind": 3}}, r'field slices\.kind: .*got 3; write it as text: "3"$'),
        ({**GOOD, "id": "2", "slices": ["kind"]}, r'field slices: .*write it as in {"slices"'),
        ({**GOOD, "id": "2", "accept_empty": "yes"}, r'field accept_empty: .*write it as in {"accept_empty": true}'),
        ([1], r"line 2: must be one JSON object, got '\[1\]'; write one object per line"),
    ],
)
def test_a_broken_line_is_named_with_number_and_field(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        list(read_jsonl(_jsonl(tmp_path, GOOD, line)))


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_refused_shortly(tmp_path: Path, indent: int | None) -> None:
    rows = [{**GOOD, "id": str(number)} for number in range(1000)]
    (tmp_path / "task.jsonl").write_text(json.dumps(rows, indent=indent))
    with pytest.raises(TaskError, match=r"line 1: must be one JSON object.*write one object per line") as raised:
        read_jsonl(tmp_path / "task.jsonl")
    assert len(str(raised.value)) < 1000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from([*GOOD, "metric", "cluster", "slices", "accept_empty"])
ROWS = st.dictionaries(NAMES | st.text(max_size=9), VALUES, max_size=2).map(lambda changed: {**GOOD, **changed})
LINES = st.one_of(ROWS.map(json.dumps), VALUES.map(json.dumps), st.text(max_size=20)).map(str.encode)
DEEP = [b"[" * 100_000, b'{"id":' * 100_000, b'{"id": ' + b"[" * 900 + b"]" * 900 + b"}"]
WIDE = [b'{"id": ' + b"9" * 5000 + b"}", json.dumps({**GOOD, "x" * 99_999: 1}).encode()]
WIDE += [json.dumps({**GOOD, name: "a\0" * 99_999}).encode() for name in ("images", "prompt", "metric", "slices")]
WIDE += [json.dumps({**GOOD, "images": [name]}).encode() for name in ("a\0", "x" * 99_999, "\ud800", ".")]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES | st.binary(max_size=20) | st.sampled_from([*DEEP, *WIDE]), max_size=3))
def test_any_file_gives_samples_or_a_short_error_with_a_remedy(tmp_path: Path, lines: list[bytes]) -> None:
    _images(tmp_path, "a.png")
    (tmp_path / "task.jsonl").write_bytes(b"\n".join(lines))
    error = _refused(tmp_path / "task.jsonl")
    if error is not None:
        assert error.rule
        assert error.value is not None
        assert error.remedy
        assert len(str(error)) < 3000
        str(error).encode()


def _refused(path: Path) -> TaskError | None:
    try:
        for each in read_jsonl(path):
            each.digest()
    except TaskError as error:
        return error
    return None


def test_missing_empty_and_text_only_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="readable"):
        load_pools("jsonl", {"path": str(tmp_path / "none.jsonl")})
    with pytest.raises(TaskError, match="at least one sample"):
        load_pools("jsonl", {"path": str(_jsonl(tmp_path, ""))})
    with pytest.raises(TaskError, match="must have an image"):
        load_pools("jsonl", {"path": str(_jsonl(tmp_path, {**GOOD, "images": []}))})
    with pytest.raises(UnknownNameError, match="did you mean 'jsonl'"):
        load_pools("json", {})


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    _images(tmp_path, "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    samples = read_jsonl(_jsonl(tmp_path, GOOD, {**GOOD, "id": "2", "images": ["b.png"]}))
    check_images(samples[:1])
    with pytest.raises(TaskError, match=r"'2'.*b\.png"):
        check_images(samples)
    with pytest.raises(TaskError, match=r"line 1, field images: must be files, got 'none\.png'"):
        read_jsonl(_jsonl(tmp_path, {**GOOD, "images": ["none.png"]}))


def test_a_png_with_a_broken_chunk_is_named(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 80).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[content.find(b"IDAT") - 2] -= 1  # its length: what follows is no chunk
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(TaskError, match=r"'1'.*a\.png'; broken PNG file"):
        check_images(read_jsonl(_jsonl(tmp_path, GOOD)))


def test_annotators_may_leave_an_answer_out(tmp_path: Path) -> None:
    _images(tmp_path, "a.png")
    (only,) = read_jsonl(_jsonl(tmp_path, {**GOOD, "answers": ["", "x"]}))
    assert only.answers == ("", "x")
    assert only.score("") == 0
    (only,) = read_jsonl(_jsonl(tmp_path, {**GOOD, "answers": [""], "accept_empty": True}))
    assert (only.score(""), only.score("x")) == (1, 0)


@pytest.mark.parametrize(
    "prompt,answer,side,expected",
    [
        ("What is this?", "cat", 64, ("what", "1", "small")),
        ("  'Is' it red?", "dark red", 336, ("is", "2", "small")),
        ("what's up", "a b c", 337, ("what's", "3_or_more", "medium")),
        ("?!", "", 1024, ("other", "0", "medium")),
        ("read", "one two three four", 1025, ("read", "3_or_more", "large")),
    ],
)
def test_slices_of_the_content(prompt: str, answer: str, side: int, expected: tuple[str, ...]) -> None:
    found = derived_slices(prompt, [answer, "another and longer answer"], side * side)
    assert tuple(found[name] for name in ("question_type", "answer_words", "image_size")) == expected


def test_a_photo_stands_upright_as_it_does_for_a_server(tmp_path: Path) -> None:
    """Cameras store the pixels as the sensor has them, and how the picture is to be turned beside it."""
    stored = Image.fromarray(np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored.save(tmp_path / "photo.png", exif=exif)
    found = FileImage(tmp_path / "photo.png").open()
    assert found.size == (2, 4)
    assert (np.asarray(found) == np.asarray(load_image(str(tmp_path / "photo.png")))).all()


def test_sizes_are_read_from_the_header_of_all_images_together(tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (300, 300)).save(tmp_path / f"{number}.png")
        whole = (tmp_path / f"{number}.png").read_bytes()
        (tmp_path / f"{number}.png").write_bytes(whole[:60])  # what follows the header cannot be decoded any more
    images = tuple(FileImage(tmp_path / f"{number}.png") for number in range(2))
    one, both = (Sample("1", used, "q", ("a",), "exact_match", "c") for used in (images[:1], images))
    assert (one.all_slices["image_size"], both.all_slices["image_size"]) == ("small", "medium")
    with pytest.raises(TaskError, match="an image must be readable"):
        images[0].open()
    with pytest.raises(TaskError, match="an image must be readable"):
        FileImage(tmp_path / "none.png").size()


def test_derived_slices_change_no_digest_and_give_way_to_the_tasks_own() -> None:
    plain = sample(1, "a")
    before = plain.digest()
    assert plain.all_slices == {"question_type": "q", "answer_words": "1", "image_size": "small"}
    assert plain.digest() == before
    own = Sample("1", (), "q", ("a",), "exact_match", "a", {"question_type": "colour"})
    assert own.all_slices["question_type"] == "colour"


def test_a_slice_that_means_two_things_is_refused(tmp_path: Path) -> None:
    _images(tmp_path, "a.png", "b.png")
    second = {**GOOD, "id": "2", "images": ["b.png"]}
    typed = {"slices": {"question_type": "colour"}}
    path = _jsonl(tmp_path, {**GOOD, **typed}, {**second, **typed})
    assert {each.all_slices["question_type"] for each in load_pools("jsonl", {"path": path})["all"]} == {"colour"}
    with pytest.raises(TaskError, match=r"question_type is derived.*unless all samples bring it.*sample 2.*these 1"):
        load_pools("jsonl", {"path": _jsonl(tmp_path, {**GOOD, **typed}, second)})
    measured = {"slices": {"downsampling_fails": "yes"}}
    with pytest.raises(TaskError, match=r"downsampling_fails is measured.*sample 2"):
        load_pools("jsonl", {"path": _jsonl(tmp_path, GOOD, {**second, **measured})})


@pytest.mark.parametrize("part", ['"answers": ["cat"], "answers": ["dog"]', '"answers": ["cat\\ud800"]'])
def test_a_field_that_stands_twice_and_text_that_is_none_are_refused(tmp_path: Path, part: str) -> None:
    _images(tmp_path, "a.png")
    path = tmp_path / "task.jsonl"
    path.write_text(f'{{"id": "1", "images": ["a.png"], "prompt": "what?", {part}}}\n')
    with pytest.raises(TaskError, match="line 1: must be one JSON object"):
        read_jsonl(path)
