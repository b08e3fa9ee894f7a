"""Pictures as the scheduler sees them: a few tiles a step, whole ones where tokens see all of theirs, and blocks that
know them."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.errors import InvalidParams, InvariantError, UnsupportedFeature
from albireo.image_input import ImageInput, Tile, seen_both_ways

IMAGE_TOKEN = 39


def image(start: int, *rows: int, key: int = 1) -> ImageInput:
    """Tiles of so many rows, side by side from a position on."""
    ends = [start + sum(rows[: place + 1]) for place in range(len(rows))]
    spans = tuple((end - count, end) for end, count in zip(ends, rows, strict=True))
    return ImageInput(bytes([key]) * 32, tuple(Tile(1, 1, b"abc", count) for count in rows), spans)


def prompt(length: int, *images: ImageInput) -> list[int]:
    tokens = [place % 30 + 1 for place in range(length)]
    for each in images:
        for start, end in each.spans:
            tokens[start:end] = [IMAGE_TOKEN] * (end - start)
    return tokens


def chunks(run: Any, seq_id: int) -> list[tuple[int, int]]:
    """First position and number of tokens of each step that computed some of a prompt."""
    return [plan[seq_id][:2] for plan in run.toy.plans if seq_id in plan]


def test_a_step_begins_with_a_tile_and_others_go_on(bench: Any) -> None:
    run = bench(image_problem="", max_num_batched_tokens=64)
    run.add([1, 2, 3], max_tokens=8)
    run.step()
    picture = image(4, 5, 5, 5)
    run.add(prompt(30, picture), max_tokens=2, images=[picture])
    run.run()
    assert chunks(run, 1) == [(0, 9), (9, 5), (14, 16), (30, 1)]
    assert all(plan[0][1] == 1 for plan in run.toy.plans[1:4])
    run.check_all_ended()


def test_tiles_are_shared_out_in_order(bench: Any) -> None:
    pictures = [image(0, 4, 4, key=1), image(2, 6, key=2)]
    run = bench(image_problem="", max_num_batched_tokens=64, max_step_tiles=2)
    for each in pictures:
        run.add(prompt(12, each), max_tokens=2, images=[each])
    run.add([5] * 4, max_tokens=2)
    run.run()
    # the first takes both, the second has its text and waits with the rest, and what is behind waits for it
    assert chunks(run, 0)[0] == (0, 12)
    assert chunks(run, 1)[:2] == [(0, 2), (2, 10)]
    run.check_all_ended()


@pytest.mark.parametrize("budget", [6, 7, 11, 64])
def test_where_tokens_see_all_of_an_image_it_is_in_one_step(bench: Any, budget: int) -> None:
    pictures = [image(3, 6, key=1), image(9, 6, key=2), image(20, 6, key=3)]
    run = bench(image_problem="", are_images_whole=True, max_num_batched_tokens=budget, max_step_tiles=9)
    run.add(prompt(30, *pictures), max_tokens=3, images=pictures)
    run.add([5] * 4, max_tokens=2)
    run.run()
    cuts = {start + count for start, count in chunks(run, 0)}
    assert not any(start < cut < end for each in pictures for start, end in each.spans for cut in cuts)
    run.check_all_ended()


def test_blocks_are_shared_with_the_same_picture_only(bench: Any) -> None:
    run = bench(image_problem="", max_num_batched_tokens=64, block_size=8)
    for key in (1, 1, 2):
        picture = image(10, 8, key=key)
        run.add(prompt(33, picture), max_tokens=2, images=[picture])
        run.run()
    assert [run.last[name].progress.num_cached_tokens for name in "012"] == [0, 32, 8]
    run.check_all_ended()


def test_what_can_never_run_is_refused(bench: Any) -> None:
    picture = image(2, 9)
    run = bench(max_num_batched_tokens=64)
    with pytest.raises(UnsupportedFeature, match="the prompt has 1 images, and this model reads text only"):
        run.add(prompt(20, picture), images=[picture])
    run = bench(image_problem="", are_images_whole=True, max_num_batched_tokens=8)
    with pytest.raises(InvalidParams, match="an image of 9 tokens, max_num_batched_tokens=8"):
        run.add(prompt(20, picture), images=[picture])
    short = image(2, 5)
    with pytest.raises(UnsupportedFeature, match="prompt_logprobs=1"):
        run.add(prompt(20, short), prompt_logprobs=1, images=[short])
    with pytest.raises(InvariantError, match="images at"):
        run.add(prompt(6), images=[image(2, 5)])


def seen(length: int, *images: ImageInput, **changed: int) -> tuple[list[int], tuple[ImageInput, ...]]:
    """A prompt that sees itself, and its images. Args: changed: a token at a place, "at_3"."""
    tokens = prompt(length, *images)
    for place, token in changed.items():
        tokens[int(place.removeprefix("at_"))] = token
    return tokens, seen_both_ways(images, tokens)


@pytest.mark.parametrize("budget", [30, 33, 64])
def test_a_prompt_that_sees_itself_is_in_one_step(bench: Any, budget: int) -> None:
    """However many tiles it has; and it waits where others leave no room for all of it."""
    run = bench(image_problem="", are_images_whole=True, max_num_batched_tokens=budget, max_num_seqs=4)
    run.add([5] * 4, max_tokens=2)
    tokens, pictures = seen(30, image(3, 6, key=1), image(9, 6, 2, key=2))
    run.add(tokens, max_tokens=3, images=pictures)
    run.add(tokens[::-1][:9], max_tokens=2)
    run.run()
    assert chunks(run, 1)[0] == (0, 30)
    run.check_all_ended()


def test_blocks_of_a_prompt_that_sees_itself_are_those_of_the_whole_of_it(bench: Any) -> None:
    """What is asked behind a picture changes all that is kept of it."""
    run = bench(image_problem="", are_images_whole=True, max_num_batched_tokens=64, block_size=8)
    for key, changed in ((1, {}), (1, {}), (1, {"at_30": 7}), (2, {}), (1, {"at_30": 7})):
        tokens, pictures = seen(33, image(10, 8, key=key), **changed)
        run.add(tokens, max_tokens=2, images=pictures)
        run.run()
    assert [run.last[name].progress.num_cached_tokens for name in "01234"] == [0, 32, 0, 0, 32]
    run.check_all_ended()


def test_prompts_that_see_themselves_and_can_never_run(bench: Any) -> None:
    tokens, pictures = seen(20, image(2, 5))
    run = bench(image_problem="", are_images_whole=True, max_num_batched_tokens=16)
    with pytest.raises(InvalidParams, match="the prompt has 20 tokens, max_num_batched_tokens=16: tokens of a prompt"):
        run.add(tokens, images=pictures)
    run = bench(image_problem="", are_images_whole=True, max_num_batched_tokens=64, narrowest_window=19)
    with pytest.raises(InvalidParams, match=r"has 20 tokens, each of which sees all .* some of its layers see 19"):
        run.add(tokens, images=pictures)
    run = bench(image_problem="", are_images_whole=True, max_num_batched_tokens=64, narrowest_window=20)
    run.add(tokens, max_tokens=2, images=pictures)
    run.run()
    run.check_all_ended()
