"""What kernels are made of: functions of Triton's language that several of them call, so that bits are the same."""
