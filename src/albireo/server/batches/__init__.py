"""Files of many requests, run behind everybody who waits for an answer, and what became of each line of them."""
