"""Strings <-> token ids, chats -> prompts, tokens -> text as it grows. Knows no scheduling and no tensors."""
