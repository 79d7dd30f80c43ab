from __future__ import annotations

import pytest
import torch

from w8a16.study.scenarios import pictures
from w8a16.study.scenarios.captions import CAPTIONS, LENGTH, caption_tokens, captioned, held_out_pairs
from w8a16.study.scenarios.pictures import crops, digits, photographs, placed
from w8a16.study.scenarios.vision import digits_on_photographs, held_out_pictures


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_no_held_out_digit_is_among_the_others() -> None:
    training, held_out = digits(False), digits(True)
    assert (len(training.labels), len(held_out.labels)) == (1397, 400)
    known = {tuple(image.flatten().tolist()) for image in training.images}
    new = {tuple(image.flatten().tolist()) for image in held_out.images}
    assert not known & new
    assert set(held_out.labels.tolist()) == set(range(10))


def test_the_parts_of_a_photograph_are_columns_apart() -> None:
    """Together with the ten columns between them they are the photograph."""
    from sklearn.datasets import load_sample_images

    left, right = photographs(False), photographs(True)
    for number, image in enumerate(load_sample_images().images):
        whole = torch.tensor(image).permute(2, 0, 1) / 255
        assert torch.equal(whole[..., : left.shape[-1]], left[number])
        assert torch.equal(whole[..., left.shape[-1] + 10 :], right[number])


@pytest.mark.parametrize("held_out", [False, True])
def test_crops_come_from_their_part_only(held_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "photographs", lambda held_out: torch.full((2, 3, 20, 30), float(held_out)))
    assert torch.equal(crops(9, 16, held_out, generator()), torch.full((9, 3, 16, 16), float(held_out)))


def test_a_digit_goes_where_it_is_told() -> None:
    corner = torch.zeros(1, 8, 8)
    corner[0, 1, 4] = 1.0  # above the middle
    none = torch.zeros(1)

    def brightest(angle: float, right: float) -> tuple[int, int]:
        drawn = placed(corner, 32, torch.tensor([angle]), torch.ones(1), torch.tensor([[right, 0.0]]))
        return divmod(int(drawn.argmax()), 32)

    row, column = brightest(0, 0)
    assert row < 8
    assert brightest(0, 0.25) == (row, column + 4)
    turned_row, turned_column = brightest(90, 0)  # clockwise: what was above is at the right
    assert turned_column > 23
    assert 12 <= turned_row <= 20
    assert float(placed(corner, 16, none, torch.ones(1), torch.zeros(1, 2)).max()) > 0


def test_held_out_pictures_are_the_same_at_every_call_and_normalised() -> None:
    drawn, labels = held_out_pictures()
    again, same = digits_on_photographs(torch.arange(400), True, generator(400))
    assert torch.equal(drawn, again)
    assert torch.equal(labels, same)
    assert drawn.shape == (400, 3, 16, 16)
    assert abs(float(drawn.mean())) < 0.5
    assert 0.7 < float(drawn.std()) < 1.4


def test_a_caption_says_what_is_drawn() -> None:
    pairs = captioned(torch.arange(200), False, generator())
    labels = digits(False).labels
    columns = torch.linspace(-1, 1, 24)
    numbers = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    centres: dict[str, list[float]] = {"left": [], "middle": [], "right": []}
    for picture, caption, label in zip(pairs.pictures, pairs.captions.tolist(), labels, strict=False):
        words = CAPTIONS[caption].split()
        assert words[2] == numbers[label]
        ink = (picture[0] + 0.3).clamp(min=0.6) - 0.6  # above the noise
        if float(ink.sum()) > 0:
            centres[words[-1]].append(float((ink.sum(0) * columns).sum() / ink.sum()))
    means = [sum(centres[place]) / len(centres[place]) for place in ("left", "middle", "right")]
    assert means[0] < -0.2 < means[1] < 0.2 < means[2]


def test_every_caption_has_its_own_tokens() -> None:
    ids, mask = caption_tokens()
    assert ids.shape == mask.shape == (180, LENGTH)
    assert len({tuple(row) for row in ids.tolist()}) == len(CAPTIONS) == 180
    assert len(held_out_pairs().captions.unique()) > 100
