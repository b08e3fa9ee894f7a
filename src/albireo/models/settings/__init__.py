"""What config.json, and what lies next to it, say of a model, checked: a topic a file."""
