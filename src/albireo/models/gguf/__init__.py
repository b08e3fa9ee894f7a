"""GGUF files: a model in one file, with its settings and its tokenizer.

container.py reads the file and trusts nothing in it; tensors.py knows what its tensors are called here; config.py makes
a config.json of its settings; metadata for text/gguf_tokenizer.py is handed on as it lies.
"""
