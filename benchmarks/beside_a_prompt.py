"""The question: what does a long prompt do to those that are served beside it? Of any server that speaks OpenAI's API.

    python benchmarks/beside_a_prompt.py --base-url http://127.0.0.1:8000 [--streams 8] [--prompt-len 2048] [--rounds 3]

--streams requests stream; once each has a few tokens, a prompt of --prompt-len comes, and half a second later a short
one. Printed, as medians and spreads over rounds: the longest and the median gap between two pieces of a stream from
then until it ends, and how long the long and the short one wait for their first. Prompts are random token ids, new ones
each round.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import time

from albireo.bench.serving.client import Client, Server
from albireo.bench.serving.outcome import Outcome
from albireo.bench.serving.request import ServeRequest

#: Seconds that streams run before the long prompt comes, and after it before the short one.
SETTLE_S, SHORT_AFTER_S = 1.5, 0.5
SHORT_LEN = 32


def request(rng: random.Random, num_ids: int, prompt_len: int, output_len: int) -> ServeRequest:
    return ServeRequest([rng.randrange(10, num_ids) for _ in range(prompt_len)], prompt_len, output_len)


async def one_round(client: Client, model: str, args: argparse.Namespace, seed: int) -> dict[str, float]:
    rng = random.Random(seed)
    ask = [request(rng, args.num_ids, SHORT_LEN, args.tokens) for _ in range(args.streams)]
    streams = [asyncio.create_task(client.send(model, each)) for each in ask]
    await asyncio.sleep(SETTLE_S)
    came_s = time.perf_counter()
    long = asyncio.create_task(client.send(model, request(rng, args.num_ids, args.prompt_len, 2)))
    await asyncio.sleep(SHORT_AFTER_S)
    short = asyncio.create_task(client.send(model, request(rng, args.num_ids, SHORT_LEN, 2)))
    outcomes: list[Outcome] = await asyncio.gather(*streams, long, short)
    for each in outcomes:
        if each.error:
            raise SystemExit(each.error)
    gaps = []
    for each in outcomes[: args.streams]:
        ends = list(itertools.accumulate(each.itl_s, initial=each.start_s + each.ttft_s))
        if ends[-1] < came_s + outcomes[-2].ttft_s:
            raise SystemExit("a stream was over before the long prompt had its first token; raise --tokens")
        gaps += [gap for gap, end in zip(each.itl_s, ends[1:], strict=True) if came_s < end]
    return {
        "worst_gap_s": max(gaps),
        "median_gap_s": statistics.median(gaps),
        "long_first_token_s": outcomes[-2].ttft_s,
        "short_first_token_s": outcomes[-1].ttft_s,
    }


async def run(args: argparse.Namespace) -> None:
    body = {"temperature": 0.0, "ignore_eos": True}
    async with Client(Server(base_url=args.base_url), body, time.perf_counter) as client:
        model = (await client.first_model()).model_id
        rounds = [await one_round(client, model, args, seed) for seed in range(args.rounds + 1)][1:]
    for name in rounds[0]:
        values = [each[name] for each in rounds]
        print(f"{name:20} {statistics.median(values):8.3f} ({min(values):.3f} to {max(values):.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt-len", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=300, help="of each stream")
    parser.add_argument("--num-ids", type=int, default=30_000, help="token ids are below it")
    parser.add_argument("--rounds", type=int, default=3, help="beside one that is not counted")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
