"""Sounds -> what an encoder hears of them: decoding, rates, spectra, and windows of what is long."""
