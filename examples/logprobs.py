"""What else the model might have said: the three most likely tokens at each place."""

from albireo import LLM, SamplingParams

with LLM() as llm:
    (request,) = llm.generate(["Once upon a"], SamplingParams(temperature=0, max_tokens=5, logprobs=3), use_tqdm=False)
    for place in request.outputs[0].logprobs or []:
        print("  ".join(f"{entry.decoded_token!r} {entry.logprob:.2f}" for entry in place.values()))
