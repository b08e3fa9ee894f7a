"""Files of llama.cpp's that hold what sees or hears for a model (mmproj): config.json, what prepares pictures and
sounds, and tensors, as the model's authors publish them, told from such a file and the model's own.

Imported where there is one. file.py reads tensors, told.py settings; one file a family says what differs.
"""
