"""Do frames come out of a video as they went in, whole or not at all, one by one?"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from invert.animation import check_video, write_video
from invert.errors import OutputError


def still(brightness, height=48, width=64):
    """A smooth picture: strongly red on the left, green at the bottom."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 - 4 * x, 5 * y, np.full_like(x, brightness)], -1).clip(0, 255).astype(np.uint8)


def read_video(path):
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], container.streams.video[0]


@pytest.mark.parametrize(("suffix", "tolerance"), [(".mp4", 3), (".gif", 6)])
def test_a_video_gives_back_every_frame_in_its_colours(tmp_path, suffix, tolerance):
    frames = [still(20 * i) for i in range(10)]
    assert write_video(tmp_path / f"a{suffix}", iter(frames), fps=12.5) == 10
    found, stream = read_video(tmp_path / f"a{suffix}")
    assert stream.average_rate == 12.5
    assert len(found) == 10
    for before, after in zip(frames, found, strict=True):
        assert np.abs(before.astype(int) - after).mean() < tolerance


def test_an_mp4_is_what_every_browser_plays(tmp_path):
    write_video(tmp_path / "a.mp4", [still(0)] * 3)
    _, stream = read_video(tmp_path / "a.mp4")
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first, so that it plays while it loads"


def test_an_mp4_of_odd_sides_repeats_its_border(tmp_path):
    frame = still(100, 33, 41)
    write_video(tmp_path / "a.mp4", [frame] * 2)
    (found, _), _ = read_video(tmp_path / "a.mp4")
    assert found.shape == (34, 42, 3)
    assert np.abs(found[:33, :41].astype(int) - frame).mean() < 4


def test_a_gif_loops_for_ever(tmp_path):
    write_video(tmp_path / "a.gif", [still(0), still(200)], fps=10)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.info["loop"], image.info["duration"]) == (2, 0, 100)


def test_a_folder_gets_every_frame_exactly(tmp_path):
    (tmp_path / "frames").mkdir()  # An empty folder is as good as none.
    frames = [still(20 * i) for i in range(3)]
    assert write_video(tmp_path / "frames", frames) == 3
    assert [path.name for path in sorted((tmp_path / "frames").iterdir())] == [f"{i:06d}.png" for i in range(3)]
    for i, frame in enumerate(frames):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "frames" / f"{i:06d}.png")), frame)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_stop_half_way_leaves_what_was_there(tmp_path, name, stop):
    if name != "frames":
        (tmp_path / name).write_bytes(b"old")

    def frames():
        yield from [still(0)] * 5
        raise stop

    with pytest.raises(stop):
        write_video(tmp_path / name, frames())
    left = [path.name for path in tmp_path.iterdir()]
    assert left == ([] if name == "frames" else [name])
    assert name == "frames" or (tmp_path / name).read_bytes() == b"old"


def test_frames_are_taken_one_by_one(tmp_path):
    alive = 0

    class Counted(np.ndarray):
        def __array_finalize__(self, source):
            nonlocal alive
            alive += 1

        def __del__(self):
            nonlocal alive
            alive -= 1

    most = 0

    def frames():
        nonlocal most
        for _ in range(30):
            yield still(0).view(Counted)
            most = max(most, alive)

    write_video(tmp_path / "a.mp4", frames())
    assert most < 10


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
def test_no_frames_are_refused(tmp_path, name):
    with pytest.raises(OutputError, match="no frames"):
        write_video(tmp_path / name, [])
    assert not list(tmp_path.iterdir())


def test_frames_of_two_sizes_are_refused_and_both_are_named(tmp_path):
    with pytest.raises(OutputError, match=r"frame 2 .*\(48, 60, 3\).*\(48, 64, 3\)"):
        write_video(tmp_path / "a.mp4", [still(0), still(0), still(0, width=60)])


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 2000])
def test_a_rate_that_is_none_is_refused(tmp_path, fps):
    with pytest.raises(ValueError, match="frames a second"):
        write_video(tmp_path / "a.mp4", itertools.repeat(still(0)), fps)


def test_a_gif_is_not_faster_than_browsers_play_it(tmp_path):
    with pytest.raises(ValueError, match="50 in a GIF"):
        check_video(tmp_path / "a.gif", 60)


def test_another_kind_of_file_is_refused_in_words(tmp_path):
    with pytest.raises(OutputError, match=r"use \.mp4, \.gif, or a folder"):
        check_video(tmp_path / "a.avi")


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(OutputError, match="new or empty folder"):
        check_video(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write_video(tmp_path / "file" / "a.mp4", [still(0)])
