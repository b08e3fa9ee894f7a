"""Guess ahead: which tokens may follow, and how many guesses are worth computing. Knows token ids only."""
