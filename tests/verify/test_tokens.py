"""The verdict on tokens: equal to the last bit, or the first that is not."""

from __future__ import annotations

from albireo.verify.tokens import NUM_TOKENS, Continuation, prompts, tokens_stage

SAID = [Continuation((1, 2), (-0.5, -0.25)), Continuation((3, 4), (-1.0, -2.0))]


def judged(seen: list[Continuation], same_kernels: bool = True) -> tuple[str, str]:
    stage = tokens_stage(seen, SAID, [5, 6], same_kernels)
    return stage.verdict, stage.finding or str(stage.figures["first_difference"])


def test_equal_to_the_last_bit() -> None:
    assert judged(list(SAID)) == ("passed", "")
    token = [SAID[0], Continuation((3, 9), (-1.0, -2.0))]
    assert judged(token) == ("failed", "prompt 2, token 2 is 9, the checkpoint says 4")
    bit = [Continuation((1, 2), (-0.5, -0.25000000000000006)), SAID[1]]
    verdict, said = judged(bit)
    assert verdict == "failed"
    assert said.startswith("prompt 1, token 2 has log-probability -0.25000000000000006, the checkpoint says -0.25")
    assert judged([SAID[0], Continuation((3,), (-1.0,))])[0] == "failed"


def test_other_kernels_are_not_judged() -> None:
    verdict, said = judged([SAID[0], Continuation((3, 9), (-1.0, -2.0))], same_kernels=False)
    assert (verdict, said) == ("not judged", "prompt 2, token 2 is 9, the checkpoint says 4")


def test_prompts_fit_the_context() -> None:
    assert [len(prompt) for prompt in prompts(range(90), 4096)] == [5, 17, 33, 64]
    assert [len(prompt) for prompt in prompts(range(90), NUM_TOKENS + 3)] == [3, 3, 3, 3]
    assert [len(prompt) for prompt in prompts(range(90), 2)] == [1, 1, 1, 1]
