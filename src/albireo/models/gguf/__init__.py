"""GGUF files: a model in one file or several, with its settings and its tokenizer.

files.py tells by names which files a model is in, header.py reads one and trusts nothing in it, split.py joins all,
kept_heads.py has each read once in a start; architectures.py joins the tables of what llama.cpp calls an architecture
and what its files hold; by it names.py renames tensors, put_back.py undoes what converters did to them, tensors.py
gives them as graphs read them, and config.py, with the files of settings, makes a config.json. recommended.py has what
a file says of sampling, adapter.py reads adapters. Metadata for text/gguf_tokenizer.py is handed on as it lies.
"""
