"""guidance against a server of vLLM's: text, a choice, a regular expression, JSON, several in one grammar."""

from __future__ import annotations

import json
import re

from ask import COLOURS, KEY, MAX_TOKENS, MODEL, PROMPT, URL, end_without_schemas, is_colour
from guidance import assistant, gen, select, user
from guidance import json as json_of
from guidance.models.experimental import VLLMModel

end_without_schemas(is_all=True)
asked = VLLMModel(MODEL, base_url=f"{URL}/v1", api_key=KEY, echo=False)
with user():
    asked += PROMPT
with assistant():
    said = asked + gen("text", max_tokens=MAX_TOKENS)
assert said["text"], "text"  # a temperature of 0 does not arrive: it leaves out what is false
with assistant():
    chosen = asked + select(["red", "blue"], name="colour")
assert chosen["colour"] in ("red", "blue"), chosen["colour"]
with assistant():
    matched = asked + gen("letters", regex="[a-c]{3}")
assert re.fullmatch("[a-c]{3}", matched["letters"]), matched["letters"]
with assistant():
    made = asked + json_of("paint", schema=COLOURS)
assert is_colour(json.loads(made["paint"])), made["paint"]
with assistant():
    joined = asked + (
        "I am " + select(["old", "young"], name="age") + ", " + gen("years", regex="[1-9]", max_tokens=3) + "."
    )
assert joined["age"] in ("old", "young") and joined["years"].isdigit(), str(joined)
