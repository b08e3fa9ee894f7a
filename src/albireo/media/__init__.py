"""Where pictures and sounds of requests come from."""
