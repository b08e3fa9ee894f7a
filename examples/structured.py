"""An answer that fits a schema: a form the program can rely on."""

import json

from albireo import LLM, SamplingParams, StructuredOutputsParams

SCHEMA = {
    "type": "object",
    "properties": {
        "hero": {"type": "string", "maxLength": 30},
        "animal": {"enum": ["fox", "cat", "bird"]},
        "age": {"type": "integer", "minimum": 1, "maximum": 12},
    },
    "required": ["hero", "animal", "age"],
    "additionalProperties": False,
}

form = StructuredOutputsParams(json=SCHEMA, disable_any_whitespace=True)
params = SamplingParams(seed=8, max_tokens=120, structured_outputs=form)
with LLM() as llm:
    for output in llm.generate(["Once upon a time, there was a", "One day, a little"], params):
        print(json.loads(output.outputs[0].text))
