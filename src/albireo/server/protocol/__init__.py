"""Shapes of requests and answers, one file a route family. Strict types, no behaviour."""
