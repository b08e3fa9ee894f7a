"""Which sentence is nearest to which: embeddings of the model's last hidden states, and their cosines."""

from albireo import LLM, PoolingParams

SENTENCES = ["The cat was very happy.", "The dog was very happy.", "One day it rained.", "The boy ran to the park."]

with LLM() as llm:
    outputs = llm.embed(SENTENCES, PoolingParams(pooling_type="mean"), use_tqdm=False)
    vectors = [output.outputs.embedding for output in outputs]  # of length 1, so products are cosines
    for sentence, vector in zip(SENTENCES, vectors, strict=True):
        cosines = [sum(x * y for x, y in zip(vector, other, strict=True)) for other in vectors]
        print(sentence.ljust(28), *(f"{cosine:5.2f}" for cosine in cosines))
