"""cohere: rerank by both of its clients, typed exceptions."""

from __future__ import annotations

import cohere
from ask import KEY, MODEL, PROMPT, URL, raises

DOCUMENTS = ["The sun is hot.", PROMPT, "x"]
new = cohere.ClientV2(api_key=KEY, base_url=URL)
ranked = new.rerank(model=MODEL, query=PROMPT, documents=DOCUMENTS, top_n=2, max_tokens_per_doc=100)
assert [len(ranked.results), ranked.results[0].index] == [2, 1], "rerank"
assert abs(ranked.results[0].relevance_score - 1) < 1e-6, "score"
old = cohere.Client(api_key=KEY, base_url=URL)
again = old.rerank(
    model=MODEL, query=PROMPT, documents=[*DOCUMENTS[:2], {"text": "x"}], rank_fields=["text"], return_documents=True
)
assert again.results[0].document is not None and again.results[0].document.text == PROMPT, "documents"
assert [each.relevance_score for each in again.results[:2]] == [each.relevance_score for each in ranked.results]
raises(cohere.NotFoundError, lambda: new.rerank(model="other", query=PROMPT, documents=DOCUMENTS), "model")
raises(cohere.BadRequestError, lambda: new.rerank(model=MODEL, query=PROMPT, documents=[]), "documents")
made = new.embed(model=MODEL, texts=[PROMPT, "x"], input_type="search_document", embedding_types=["float", "ubinary"])
assert made.embeddings.float_ is not None and len(made.embeddings.float_) == 2, "embeddings"
assert made.embeddings.ubinary is not None and len(made.embeddings.ubinary[0]) * 8 == len(made.embeddings.float_[0])
