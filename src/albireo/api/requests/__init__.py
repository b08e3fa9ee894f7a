"""One request, from what a caller gives to what the engine takes, and from its tokens to an output."""
