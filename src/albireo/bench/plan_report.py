"""The figures of plan.py as lines of text.

Called by cli/plan. Does not count or predict anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from albireo.api.media.perception import HEARS, TEXT_ONLY
from albireo.bench.report import NO_GPU_COSTS, Spread, row, seconds
from albireo.bench.video_cost import video_text

#: In place of speed, where a prompt begins with a sound.
NO_HEARING_COSTS = "nothing: the speed of models that hear is not predicted yet"


def plan_lines(figures: dict[str, Any]) -> list[str]:
    """The figures for reading."""
    workload, writes_text = figures["workload"], figures["writes_text"]
    drawn = "greedy" if workload["temperature"] == 0 else f"drawn at temperature {workload['temperature']:g}"
    return [
        row("model", f"{figures['model']}, computed in {figures['dtype']}"),
        row(
            "workload",
            f"{_requests(workload['concurrency'])} at once, {workload['input_len']:,} prompt "
            + (f"and {workload['output_len']:,} output tokens each, {drawn}" if writes_text else "tokens each"),
        ),
        "",
        *_memory_lines(figures),
        "",
        *_image_lines(figures["images"]),
        *_video_lines(figures["videos"]),
        *_sound_lines(figures),
        *_speed_lines(figures),
        *_draft_lines(figures["speculative"]),
    ]


def _memory_lines(figures: dict[str, Any]) -> Iterator[str]:
    memory, workload, settings = figures["memory"], figures["workload"], figures["settings"]
    per_token, beyond = f"{memory['kv_bytes_per_token']:,} B per token", memory["kv_bytes_per_token_beyond_windows"]
    if beyond != memory["kv_bytes_per_token"]:
        per_token += f", {beyond:,} B of one that windows have passed"
    num, is_gpu = settings["data_parallel_size"], settings["device"] == "cuda"
    whom = f", for each of {num} engines; all figures are of one of them" if num > 1 else ""
    vision = ("images", "vision_bytes", "   the part that reads them; --limit-mm-per-prompt leaves it out")
    if figures["sounds"] is not None:
        vision = ("sounds", "vision_bytes", "   the part that hears them; --limit-mm-per-prompt leaves it out")
        if not figures["images"]["problem"]:
            vision = ("media", "vision_bytes", "   what sees and what hears; --limit-mm-per-prompt leaves either out")
    if figures["hearing"] is not None:
        vision = ("hearing", "vision_bytes", "   the encoder, and what listens to it")
    num_ranks = settings["tensor_parallel_size"]
    of_gpu = (" of a GPU" if num_ranks == 1 else f" of each of {num_ranks} GPUs") if is_gpu else ""
    yield row("memory", f"{_size(memory['budget_bytes'])} allowed{of_gpu}{whom}")
    for name, key, note in (
        ("weights", "weight_bytes", ""),
        ("adapters", "adapter_bytes", "   slots of --enable-lora"),
        ("states", "state_bytes", f"   of {settings['max_num_seqs']} sequences, beside their KV caches"),
        ("KV cache", "kv_bytes", f"   {_requests(workload['concurrency'])}, {per_token}"),
        ("activations", "activation_bytes", ""),
        vision,
        (
            "drafts",
            "drafter_bytes",
            "   weights of what guesses; its activations and its KV cache are with the model's",
        ),
        ("overhead", "overhead_bytes", "   Python, libraries, tokenizer, scratch of threads"),
        ("needed", "needed_bytes", ""),
        ("free", "free_bytes", ""),
    ):
        if memory[key] or key not in ("adapter_bytes", "state_bytes", "vision_bytes", "drafter_bytes"):
            yield row(f"  {name}", f"{_size(memory[key]):>10}{note}")
    length = workload["input_len"] + workload["output_len"]
    yield row(
        "fits",
        f"one context of {memory['longest_context']:,} tokens, or {_requests(memory['requests_at_once'])} of "
        f"{length:,} tokens at once",
    )


def _image_lines(images: dict[str, Any]) -> Iterator[str]:
    if images["problem"] in (TEXT_ONLY, HEARS):
        return
    if images["problem"]:
        yield row("images", f"not read: {images['problem']}")
        return
    width, height = images["picture"]
    tiles = f"{images['tiles']} tile{'s' * (images['tiles'] != 1)}"
    predicted = images["first_token_s"]
    time = f", first token in {_bars(predicted, seconds)}" if predicted is not None else ""
    yield row("an image", f"of {width:,} x {height:,} pixels: {images['tokens']:,} tokens, {tiles}{time}")


def _video_lines(videos: dict[str, Any] | None) -> Iterator[str]:
    if videos is not None:
        yield row("a video", video_text(videos))


def _sound_lines(figures: dict[str, Any]) -> Iterator[str]:
    sounds, hearing = figures["sounds"], figures["hearing"]
    if sounds is not None:
        yield row("a sound", f"of {sounds['seconds']} s: {sounds['tokens']:,} tokens")
    if hearing is not None:
        many = "s" * (hearing["positions"] != 1)
        yield row("a sound", f"of up to {hearing['seconds']} s: {hearing['positions']:,} prompt token{many}")


def _why_not(figures: dict[str, Any]) -> str:
    return NO_GPU_COSTS if figures["hearing"] is None else NO_HEARING_COSTS


def _speed_lines(figures: dict[str, Any]) -> Iterator[str]:
    if figures["limits"] is not None:
        yield from _predicted_lines(figures)
    elif figures["at_most"] is not None:
        yield from _bound_lines(figures["at_most"], figures["writes_text"])
    else:
        yield row("predicted", _why_not(figures))


def _bound_lines(bounds: dict[str, Any], writes_text: bool) -> Iterator[str]:
    """What a GPU that is named could do at most."""
    limits, one, every = bounds["limits"], bounds["one_request"], bounds["all_requests"]
    for name, each in {"one request": one, f"{every['num_requests']} at once": every}.items():
        yield row(
            name,
            f"first token {seconds(each['first_token_s'])} or more   prompts up to "
            f"{_number(each['prompt_tokens_per_s'])} tok/s",
        )
        if each["decode_step_s"] is not None:
            yield row(
                "",
                f"decode step {seconds(each['decode_step_s'])} or more   up to {_number(each['decode_tokens_per_s'])} "
                "tok/s",
            )
        if writes_text:
            output = f"output up to {_number(each['output_tokens_per_s'])} tok/s"
            yield row("", f"whole {seconds(each['elapsed_s'])} or more   {output}")
    of_each = f"each of {limits['num_gpus']} x " if limits["num_gpus"] > 1 else ""
    yield row(
        "limits",
        f"{of_each}{limits['gpu']}: read {limits['read_bytes_per_s'] / 1e9:,.0f} GB/s, dot "
        f"{limits['dot_flops_per_s'] / 1e12:,.0f} Tflop/s, by its data sheet; kernels reach a part of it",
    )


def _predicted_lines(figures: dict[str, Any]) -> Iterator[str]:
    one, all_requests = figures["one_request"], figures["all_requests"]
    batches = {"one request": one}
    if all_requests["num_requests"] > 1:
        batches[f"{all_requests['num_requests']} at once"] = all_requests
    for name, speed in batches.items():
        if figures["writes_text"]:
            yield from _batch_lines(name, speed)
        else:
            yield row(name, f"{_bars(speed['elapsed_s'], seconds)}   {_rates(speed['prompt_tokens_per_s'])}")
    if not figures["writes_text"]:
        yield from _limit_lines(figures)
        return
    parts = sorted(figures["decode_step_parts_s"].items(), key=lambda part: -part[1])
    whole = sum(figures["decode_step_parts_s"].values())
    shown = ", ".join(f"{name} {each / whole:.0%}" for name, each in parts if each >= 0.005 * whole)
    yield row("decode step", f"{shown}   ({_requests(all_requests['num_requests'])})")
    yield from _limit_lines(figures)


def _batch_lines(name: str, speed: dict[str, Any]) -> Iterator[str]:
    yield row(
        name,
        f"first token {_bars(speed['first_token_s'], seconds)}   prompts {_rates(speed['prompt_tokens_per_s'])}",
    )
    if speed["decode_step_s"] is not None:
        yield row(
            "",
            f"decode step {_bars(speed['decode_step_s'], seconds)}   {_rates(speed['decode_tokens_per_s'])}",
        )
    yield row(
        "",
        f"whole {_bars(speed['elapsed_s'], seconds)}   output {_rates(speed['output_tokens_per_s'])}   "
        f"in all {_rates(speed['total_tokens_per_s'])}",
    )


def _limit_lines(figures: dict[str, Any]) -> Iterator[str]:
    limits = figures["limits"]
    read, dot = Spread(**limits["read_bytes_per_s"]), Spread(**limits["dot_flops_per_s"])
    known = f"dot {dot.text(lambda x: f'{x / 1e9:.0f}')} Gflop/s" if dot.median else "dot not known"
    yield row(
        "limits",
        f"read {read.text(lambda x: f'{x / 1e9:.1f}')} GB/s, {known}, {limits['num_threads']} threads, measured now",
    )
    yield row(
        "error bars",
        f"the spread of the limits while they were measured, and {figures['model_error']:.0%} of the model",
    )


def _draft_lines(drafts: dict[str, Any] | None) -> Iterator[str]:
    """What drafts bring, by how many of those come true whose predecessors did."""
    if drafts is None or drafts["one_request"] is None:
        return
    yield ""
    prompt_s = drafts["prompt_s"]
    prompt = "" if prompt_s is None else f"; what guesses reads a prompt in {_bars(prompt_s, seconds)}"
    yield row(
        "drafts", f"{drafts['method']}, at most {drafts['num_speculative_tokens']} of a request in a step{prompt}"
    )
    one, all_requests = drafts["one_request"], drafts["all_requests"]
    yield from _draft_batch_lines("one request", one)
    if all_requests["num_requests"] > 1:
        yield from _draft_batch_lines(f"{all_requests['num_requests']} at once", all_requests)


def _draft_batch_lines(name: str, speed: dict[str, Any]) -> Iterator[str]:
    numbers, pays = speed["by_number"], speed["pays_from"]
    if not numbers:
        yield row(name, "no drafts: a step has no rows for them")
        return
    worth = "does not pay"
    if pays["expected"] is not None:
        high = "never" if pays["high"] is None else f"{pays['high']:.0%}"
        worth = f"pays from {pays['expected']:.0%} on ({pays['low']:.0%} to {high})"
    shown = [numbers[0], numbers[-1]] if len(numbers) > 1 else numbers
    steps = "; ".join(
        f"{_drafts(each['num_drafts'])}: step {seconds(each['step_s'])}, guesses {seconds(each['guess_s'])}"
        for each in shown
    )
    yield row(name, f"{worth}   step {seconds(speed['plain_s'])}; {steps}")
    for each in speed["rates"]:
        if not each["num_drafts"]:
            yield row(
                "", f"{each['rate']:.0%} come true: no drafts are worth it, {_rates(each['decode_tokens_per_s'])}"
            )
            continue
        gain = f"{_bars(each['ratio'], '{:.2f}'.format)} times as fast, {_rates(each['decode_tokens_per_s'])}"
        tokens = f"{_drafts(each['num_drafts'])}, {each['tokens_per_step']:.2f} tokens a step"
        yield row("", f"{each['rate']:.0%} come true: {tokens}, {gain}")


def _drafts(number: int) -> str:
    return f"{number} draft{'s' * (number != 1)}"


def _requests(number: int) -> str:
    return f"{number:,} request{'s' * (number != 1)}"


def _bars(estimate: dict[str, float], form: Callable[[float], str]) -> str:
    return f"{form(estimate['expected'])} ({form(estimate['low'])} to {form(estimate['high'])})"


def _rates(estimate: dict[str, float]) -> str:
    return f"{_bars(estimate, _number)} tok/s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 1 << 30 else f"{num_bytes / 2**20:.1f} MiB"
