"""What programs run on: devices, their memory, what of a machine an engine takes, kernels compiled for it."""
