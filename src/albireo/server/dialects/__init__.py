"""Requests of other protocols -> those of chats, so that there is one way into the engine."""
