"""What is said in sounds, as text: how each kind of model is asked, and what comes of its tokens."""
