"""Is a video edited like its frames, smoothly, and refused in words where it is none?"""

from __future__ import annotations

import itertools
import json

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from editing.composition import EditSpec
from editing.directions import Direction
from invert.animation import write_video
from invert.cli.main import cli
from invert.errors import ImageError, NoFaceFound, OutputError, VideoError
from invert.faces import crop_corners, detect
from invert.inverters import load_inverter
from invert.pipeline import followed
from invert.recipe import Recipe, read_recipe
from invert.tools import Tools
from invert.video import NO_SMOOTHING, Smoothing, Track, edit_video, follow, open_clip, read_frames

WIDER = EditSpec("wider", 4.0)


def moving(photo, count, step=3.0):
    """Move a photo to the right, a little each frame."""
    for number in range(count):
        shift = np.float32([[1, 0, step * number], [0, 1, 0]])
        yield cv2.warpAffine(photo, shift, photo.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


@pytest.fixture(scope="module")
def face():
    from invert.photo import demo_photo, read_photo

    return read_photo(demo_photo())[:320, 64:384]


@pytest.fixture
def clip(face, tmp_path):
    """Four frames with a face that moves, one without, one with it again."""
    frames = [*moving(face, 4), np.full_like(face, 120), face]
    write_video(tmp_path / "clip.mp4", frames, 10)
    return tmp_path / "clip.mp4"


@pytest.fixture
def tools(tiny_generator, encoder_file, cheap_distance):
    vector = torch.zeros(tiny_generator.w_dim)
    vector[0] = 1
    direction = Direction.of("wider", vector, tiny_generator.identity)
    return Tools(tiny_generator, load_inverter(str(encoder_file), tiny_generator), cheap_distance, {"wider": direction})


def with_sound(silent, path):
    """Add a second of a tone."""
    import av

    tone = (np.sin(np.arange(24000) / 10) * 8000).astype(np.int16)[None]
    with av.open(str(silent)) as pictures, av.open(str(path), "w") as film:
        stream = film.add_stream_from_template(pictures.streams.video[0])
        sound = film.add_stream("aac", rate=24000)
        for packet in pictures.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                film.mux(packet)
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate = 24000
        film.mux([*sound.encode(frame), *sound.encode(None)])
    return path


def test_a_video_is_edited_where_it_shows_the_face_and_nowhere_else(clip, tools, tmp_path):
    report = edit_video(clip, tmp_path / "out", tools, Recipe(edits=(WIDER,), paste="change"))
    assert (report["frames"], report["frames_with_face"], report["shots"]) == (6, 5, 3)
    frames = list(read_frames(clip))
    edited = [cv2.imread(str(path))[..., ::-1] for path in sorted((tmp_path / "out").iterdir())]
    changed = [np.any(a != b) for a, b in zip(frames, edited, strict=True)]
    assert changed == [True] * 4 + [False, True]
    assert not np.any(edited[0][-1] != frames[0][-1])  # The last row lies outside the face.


def test_an_edit_that_leads_too_far_is_told_with_advice_and_leaves_no_video(clip, tools, tmp_path):
    far = Recipe(edits=(WIDER._replace(strength=1e30),))
    with pytest.raises(ImageError, match="take smaller strengths"):
        edit_video(clip, tmp_path / "out.mp4", tools, far)
    assert not (tmp_path / "out.mp4").exists()


def test_an_edit_of_strength_0_changes_nothing(clip, tools, tmp_path):
    edit_video(clip, tmp_path / "out", tools, Recipe(edits=(EditSpec("wider", 0.0),), paste="change"))
    for frame, path in zip(read_frames(clip), sorted((tmp_path / "out").iterdir()), strict=True):
        assert np.array_equal(frame, cv2.imread(str(path))[..., ::-1])


def test_sound_and_recipe_come_along(clip, tools, tiny_generator, tmp_path):
    loud = with_sound(clip, tmp_path / "loud.mp4")
    recipe = Recipe(edits=(WIDER,), paste="change")
    report = edit_video(loud, tmp_path / "out.mp4", tools, recipe)
    assert report["sound"] == "copied"
    written = open_clip(tmp_path / "out.mp4")
    assert written.has_audio
    assert (written.size, written.fps, len(list(read_frames(tmp_path / "out.mp4")))) == ((320, 320), 10, 6)
    assert read_recipe(tmp_path / "out.mp4") == followed(recipe, tiny_generator)
    assert edit_video(loud, tmp_path / "out.gif", tools, recipe)["sound"].startswith("left out")
    assert edit_video(clip, tmp_path / "silent.mp4", tools, recipe)["sound"] == "none"


def test_later_frames_take_few_steps_from_the_last_ones_code(
    clip, tools, tiny_generator, encoder_file, cheap_distance, tmp_path
):
    steps = []
    inverter = load_inverter(
        str(encoder_file),
        tiny_generator,
        refine=3,
        perceptual=cheap_distance,
        on_step=lambda step, terms: steps.append(step),
    )
    edit_video(clip, tmp_path / "out", Tools(tiny_generator, inverter, cheap_distance), Recipe(), later_steps=1)
    # One more look than steps; a new shot begins anew.
    assert steps == [0, 1, 2, 3, *[0, 1] * 3, 0, 1, 2, 3]


def test_the_projector_alone_works_too(clip, tools, tiny_generator, cheap_distance, tmp_path):
    inverter = load_inverter("projector", tiny_generator, steps=2, perceptual=cheap_distance)
    report = edit_video(clip, tmp_path / "out", Tools(tiny_generator, inverter, cheap_distance), Recipe("projector"))
    assert report["frames_with_face"] == 5


def test_the_track_follows_one_face_of_two(face):
    def pair(number):
        frame = np.full((200, 460, 3), 90, np.uint8)
        frame[:160, number : 160 + number] = cv2.resize(face, (160, 160))
        frame[40:200, 300 - number : 460 - number] = cv2.resize(face, (160, 160))
        return frame

    tracks = [follow((pair(8 * number) for number in range(3)), which) for which in (0, 1)]
    ways = sorted(float(track.corners[2].mean(0)[0] - track.corners[0].mean(0)[0]) for track in tracks)
    assert ways == pytest.approx([-16, 16], abs=3)
    assert all(set(track.shots) == {0} for track in tracks)


def test_looking_nearby_finds_what_looking_everywhere_finds(face):
    photo = cv2.copyMakeBorder(cv2.resize(face, (500, 500)), 100, 300, 400, 400, cv2.BORDER_REPLICATE)
    track = follow([photo, photo])
    everywhere = crop_corners(detect(photo)[0])
    side = np.hypot(*(everywhere[3] - everywhere[0]))
    assert np.abs(track.corners[1] - everywhere).max() < 0.02 * side


def test_a_cut_begins_a_new_shot(face):
    track = follow([face, face, 255 - face, face[:, ::-1].copy()])
    assert track.shots[0] == track.shots[1] != track.shots[2]
    assert track.shots[2] != track.shots[3]


squares = st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(1, 100), st.floats(0, 6))


def corners_of(x, y, half, angle):
    across, down = half * np.array([np.cos(angle), np.sin(angle)]), half * np.array([-np.sin(angle), np.cos(angle)])
    centre = np.array([x, y])
    return np.stack([centre - across - down, centre - across + down, centre + across + down, centre + across - down])


@given(st.lists(squares, min_size=1, max_size=9), st.floats(0, 4), st.floats(0, 4))
def test_smoothed_crops_are_squares_and_nothing_at_0(track, centre, axes):
    corners = [corners_of(*square) for square in track]
    smooth = Track(list(corners), [0] * len(corners)).smoothed(Smoothing(centre, axes)).corners
    for square in smooth:
        sides = square - np.roll(square, 1, 0)
        np.testing.assert_allclose((sides * np.roll(sides, 1, 0)).sum(1), 0, atol=1e-6 * max(1, np.abs(sides).max() ** 2))
        np.testing.assert_allclose((sides**2).sum(1), (sides[0] ** 2).sum(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(Track(corners, [0] * len(corners)).smoothed(NO_SMOOTHING).corners, corners, atol=1e-9)


def test_steady_motion_is_not_held_back_and_jitter_is():
    steady = [corners_of(5.0 * number, 0, 50 + number, 0) for number in range(20)]
    smooth = Track(list(steady), [0] * 20).smoothed(Smoothing()).corners
    np.testing.assert_allclose(smooth, steady, atol=1e-6)
    swinging = [corners_of(0, 0, 100 + 15 * np.sin(2 * np.pi * number / 24), 0) for number in range(48)]
    there = np.stack(Track(list(swinging), [0] * 48).smoothed(Smoothing()).corners) - np.stack(swinging)
    assert np.abs(there[12:36]).max() < 1  # A plain Gaussian is 4 px behind.
    noise = np.random.default_rng(0).normal(size=(20, 2))
    shaky = [corners + 3 * shift for corners, shift in zip(steady, noise, strict=True)]
    still = np.stack(Track(shaky, [0] * 20).smoothed(Smoothing(2.0)).corners) - np.stack(steady)
    assert still.std() < 0.6 * 3


def test_smoothing_stops_at_a_cut_and_at_frames_without_a_face():
    far = [corners_of(0, 0, 50, 0)] * 3 + [None] + [corners_of(900, 0, 50, 0)] * 3
    smooth = Track(list(far), [0, 0, 0, 1, 2, 2, 2]).smoothed(Smoothing()).corners
    assert smooth[3] is None
    np.testing.assert_allclose(np.stack(smooth[:3]), np.stack(far[:3]))
    np.testing.assert_allclose(np.stack(smooth[4:]), np.stack(far[4:]))


def test_codes_are_smoothed_within_their_shot_and_none_is_lost():
    from invert.video import _Item, _smooth_codes

    frame = np.zeros((1, 1, 3), np.uint8)
    codes = [torch.full((1, 2, 3), float(value)) for value in (0, 0, 9, 0, 0, 7, 7)]
    items = [_Item(frame, shot, None, None, code) for shot, code in zip([0] * 5 + [1] * 2, codes, strict=True)]
    items.insert(5, _Item(frame, 5, None, None, None))
    smooth = list(_smooth_codes(items, 1.0))
    values = [None if item.code is None else round(item.code[0, 0, 0].item(), 3) for item in smooth]
    assert values[5:] == [None, 7, 7]
    assert values[:2] == values[3:5][::-1]
    assert abs(values[0]) < values[1] < values[2] < 9
    maps = [_Item(frame, 0, None, None, (code[:, 0, :, None, None],)) for code in codes[:5]]
    assert [round(item.code[0][0, 0].item(), 3) for item in _smooth_codes(maps, 1.0)] == values[:5]


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "truncated", "photo bytes", "sound only"])
def test_what_is_no_video_is_refused_in_words(clip, tmp_path, kind, tools):
    path = tmp_path / "bad.mp4"
    data = clip.read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind == "sound only":
        import av

        with av.open(str(path), "w") as film:
            stream = film.add_stream("aac", rate=24000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 24000), np.int16), format="s16", layout="mono")
            frame.sample_rate = 24000
            film.mux([*stream.encode(frame), *stream.encode(None)])
    elif kind != "missing":
        content = {
            "text": b"no video",
            "empty": b"",
            "truncated": data[: len(data) // 3],
            "photo bytes": b"\xff\xd8\xff\xe0",
        }
        path.write_bytes(content[kind])
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        edit_video(path, tmp_path / "out.mp4", tools, Recipe())
    assert not (tmp_path / "out.mp4").exists()


def test_a_damaged_part_costs_no_more_than_itself(clip, tmp_path):
    data = bytearray(clip.read_bytes())
    middle = data.index(b"mdat") + 4 + (len(data) - data.index(b"mdat")) * 2 // 3
    data[middle : middle + 40] = bytes(40)
    (tmp_path / "scratched.mp4").write_bytes(data)
    assert 1 <= len(list(read_frames(tmp_path / "scratched.mp4"))) <= 6


def test_a_video_without_a_face_says_so_and_leaves_no_file(tools, tmp_path):
    write_video(tmp_path / "grey.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3, 10)
    with pytest.raises(NoFaceFound, match="in any of 3 frames"):
        edit_video(tmp_path / "grey.mp4", tmp_path / "out.mp4", tools, Recipe())
    assert [path.name for path in tmp_path.glob("*.mp4")] == ["grey.mp4"]


def test_a_stop_leaves_no_half_video(clip, tools, tmp_path):
    def stop(step, number):
        if (step, number) == ("edit", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit_video(clip, tmp_path / "out" / "cut.mp4", tools, Recipe(), on_frame=stop)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("output", "recipe", "error", "words"),
    [
        ("out.avi", Recipe(), OutputError, "out.avi"),
        ("out.mp4", Recipe(face="all"), VideoError, "one face at a time"),
        ("out.mp4", Recipe(is_aligned=True), VideoError, "one face at a time"),
    ],
)
def test_what_cannot_be_done_with_a_video_is_said_before_the_work(clip, tools, tmp_path, output, recipe, error, words):
    with pytest.raises(error, match=words):
        edit_video(clip, tmp_path / output, tools, recipe)


def test_a_gif_cannot_keep_sixty_frames_a_second(face, tools, tmp_path):
    write_video(tmp_path / "fast.mp4", moving(face, 2), 60)
    with pytest.raises(OutputError, match="at most 50"):
        edit_video(tmp_path / "fast.mp4", tmp_path / "out.gif", tools, Recipe())


def test_colours_survive_reading_and_writing(tmp_path):
    patches = np.zeros((64, 128, 3), np.uint8)
    for number, colour in enumerate(itertools.product((40, 210), repeat=3)):
        patches[:, 16 * number : 16 * number + 16] = colour
    write_video(tmp_path / "colours.mp4", [patches] * 2, 10)
    frame = next(read_frames(tmp_path / "colours.mp4"))
    assert np.abs(frame.astype(int) - patches)[:, 4::16].max() <= 6


@pytest.fixture
def run(clip, generator_file, encoder_file, cheap_distance, monkeypatch):
    monkeypatch.setattr("invert.tools.load_perceptual", lambda *_: cheap_distance)
    monkeypatch.setattr("invert.performance.keep_freed_memory", lambda: False)
    networks = ["--generator", str(generator_file), "--method", str(encoder_file), "--device", "cpu"]

    def call(*arguments):
        return CliRunner().invoke(cli, ["video", *map(str, arguments), *networks])

    return call


def test_the_command_edits_a_video_and_its_result_is_a_recipe(run, clip, tmp_path):
    result = run(clip, "--paste", "change", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["frames"], report["frames_with_face"]) == (6, 5)
    again = run(clip, "--recipe", tmp_path / "clip-edited.mp4", "-o", tmp_path / "again.mp4", "--no-smooth")
    assert again.exit_code == 0, again.output
    assert read_recipe(tmp_path / "again.mp4").paste == "change"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["gone.mp4"], 1, "no such file"),
        (["CLIP", "--edit", "age=nan"], 2, "expected a number"),
        (["CLIP", "-o", "out.avi"], 1, "out.avi"),
        (["CLIP", "--face", "all"], 1, "one face at a time"),
    ],
)
def test_a_mistake_with_a_video_is_explained(run, clip, arguments, code, words):
    result = run(*(clip if argument == "CLIP" else argument for argument in arguments))
    message = result.output if isinstance(result.exception, SystemExit) else str(result.exception)
    assert words in " ".join(message.split())
    assert result.exit_code == code
