"""Pictures -> what a vision tower reads of them, and what stands for them in a prompt. Knows no token ids."""
