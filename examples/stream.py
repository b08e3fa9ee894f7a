"""Two streams from one engine, printed as they come."""

import asyncio

from albireo import AsyncLLM, SamplingParams


async def tell(llm: AsyncLLM, prompt: str, seed: int) -> None:
    shown = 0
    async for output in llm.generate(prompt, SamplingParams(seed=seed, max_tokens=40)):
        text = output.outputs[0].text
        print(f"[{seed}] {text[shown:]!r}")
        shown = len(text)


async def main() -> None:
    async with AsyncLLM() as llm:
        await asyncio.gather(tell(llm, "Once upon a time", 1), tell(llm, "One day", 2))


asyncio.run(main())
