"""Several prompts at once, each with its own parameters."""

from albireo import LLM, SamplingParams

with LLM() as llm:  # the bundled model; or LLM("path/to/model")
    prompts = ["Once upon a time", "The old man and the cat"]
    params = [
        SamplingParams(temperature=0, max_tokens=30),
        SamplingParams(temperature=0.8, seed=1, max_tokens=30, n=2),
    ]
    for request in llm.generate(prompts, params, use_tqdm=False):
        for output in request.outputs:
            print(f"{request.prompt}{output.text} [{output.finish_reason}]")
