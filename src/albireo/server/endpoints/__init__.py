"""One file a route family: parse, admit, wait or stream, answer."""
