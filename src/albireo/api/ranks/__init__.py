"""A model on several GPUs: a process for each rank but the first."""
