"""What guesses for a model: a draft model, or a head that drafts, planned and loaded beside it."""
